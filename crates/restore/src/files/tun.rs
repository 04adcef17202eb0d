//! TUN and TAP devices: files that are queues of a device of the host, or of none yet.

use std::fmt;
use std::os::fd::AsFd;

use gelid_image::messages::TunfileEntry;
use gelid_sys::netlink::channel::Channel;
use gelid_sys::netlink::message::{Attributes, Builder};
use gelid_sys::netlink::route::{GET_LINK, LINK, link, link_header};
use gelid_sys::tun;
use rustix::io::Errno;

use super::open::{Opener, set_status};
use super::place::Place;
use super::{Error, Kind, Name};

/// `IFF_TUN` and `IFF_TAP`
const KINDS: u16 = 3;
/// Bytes of the name of a device, with its end.
const NAME: usize = 16;

/// An open `/dev/net/tun`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tun {
    /// Its path.
    pub name: Name,
    /// The device that it is a queue of, and the flags it was attached with, if the image tells them.
    pub device: Option<(String, Option<u16>)>,
    /// Size of the virtio header and of the send buffer of a device of the tree's own, bytes.
    pub buffers: Option<(u32, u32)>,
    /// The queue gets nothing.
    pub detached: bool,
}

impl fmt::Display for Tun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            None => write!(f, "{} without a device", self.name),
            Some((device, _)) => write!(f, "{}, a queue of {device}", self.name),
        }
    }
}

/// Checks a record.
pub(super) fn plan(object: &str, entry: &TunfileEntry, name: Name) -> Result<Tun, Error> {
    let flags = entry.gelid.as_ref().and_then(|gelid| gelid.flags);
    let device = match &entry.netdev {
        None => None,
        Some(device) => {
            let odd = |byte: u8| byte == b'/' || byte == b'%' || !byte.is_ascii_graphic();
            if device.is_empty() || device.len() >= NAME || device.bytes().any(odd) {
                let rule = "no device has such a name";
                return Err(Error::invalid(object, "netdev", device, rule));
            }
            let fits = |flags: &u16| flags & !tun::ATTACHING == 0 && flags & KINDS != 0;
            let fitting = flags.map(|flags| u16::try_from(flags).ok().filter(fits));
            match fitting {
                Some(None) => {
                    let rule = "no device has such flags";
                    let flags = flags.unwrap_or_default();
                    return Err(Error::invalid(object, "flags", flags, rule));
                }
                // The link tells, which is made before.
                None if entry.ns_id.is_some() => Some((device.clone(), None)),
                None => {
                    return Err(Error::Unsupported {
                        object: object.to_owned(),
                        what: "a TUN device whose record does not tell what it is",
                        remedy: "dump it in a network namespace",
                    });
                }
                Some(flags) => Some((device.clone(), flags)),
            }
        }
    };
    Ok(Tun {
        name,
        device,
        buffers: entry
            .gelid
            .as_ref()
            .and_then(|gelid| gelid.vnethdr.zip(gelid.sndbuf)),
        detached: entry.detached == Some(true),
    })
}

/// Opens all of them.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Tun(file) = &description.kind else {
            continue;
        };
        let object = description.label();
        let flags = description.flags;
        opener.enter_network(description.id, &object)?;
        let opened = opener
            .names
            .open(&Place::Path(file.name.clone()), flags.to_open())
            .map_err(|errno| opener.failed("open", &object, errno))?;
        let failed = |operation| Error::system(operation, &*object);
        if let Some((device, attaching)) = &file.device {
            let attaching = match attaching {
                Some(attaching) => *attaching,
                None => of_link(device).map_err(failed("look at the device of"))?,
            };
            tun::attach(&opened, device.as_bytes(), attaching)
                .map_err(failed("attach to its device"))?;
            if let Some((header, send)) = file.buffers {
                let set = tun::set_buffers(&opened, header, send);
                set.map_err(failed("set the buffers of"))?;
            }
            let now = tun::device(&opened).map_err(failed("examine"))?;
            // A device that this has made goes again with the file.
            if now.is_none_or(|(_, flags)| flags & tun::PERSISTENT == 0) {
                return Err(Error::system("find the device of", &*object)(Errno::NODEV));
            }
            if file.detached {
                tun::detach(&opened).map_err(failed("detach"))?;
            }
        }
        set_status(opened.as_fd(), flags.status(), &object)?;
        opener.add_raised(description.id, opened, &object)?;
    }
    let_go(opener)
}

/// What the link of a device was made with.
fn of_link(device: &str) -> Result<u16, Errno> {
    let mut request = Builder::new(&link_header(0, 0, 0));
    request.text(link::NAME, device.as_bytes());
    let answer = Channel::route()?.ask(GET_LINK, request.bytes())?;
    let attributes = Attributes(answer.get(LINK..).unwrap_or_default());
    let data = attributes
        .nested(link::INFO)
        .and_then(|info| info.nested(link::DATA));
    Ok(tun::told_flags(data.unwrap_or(Attributes(&[]))) & tun::ATTACHING)
}

/// Devices of the tree's own that go with their last file do so again: they were made to stay until it is there.
fn let_go(opener: &Opener<'_>) -> Result<(), Error> {
    for description in opener.plan.descriptions.values() {
        let Kind::Tun(file) = &description.kind else {
            continue;
        };
        let (Some((device, _)), Some(network)) = (&file.device, description.network) else {
            continue;
        };
        if opener.networks.is_fleeting(network, device)
            && let Some(queue) = opener.fd(description.id)
        {
            let object = description.label();
            let set = tun::set_persistent(queue, false);
            set.map_err(Error::system("let go of the device of", &*object))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::GelidTunfileEntry;

    #[test]
    fn names_and_flags_are_checked() {
        let name = Name::new(b"/dev/net/tun").unwrap();
        let plan = |device: &str, flags| {
            let entry = TunfileEntry {
                id: 3,
                netdev: Some(device.to_owned()),
                gelid: Some(GelidTunfileEntry {
                    flags,
                    ..GelidTunfileEntry::default()
                }),
                ..TunfileEntry::default()
            };
            plan("file 3", &entry, name.clone())
        };
        let planned = plan("tap0", Some(0x1002)).unwrap();
        assert_eq!(planned.to_string(), "/dev/net/tun, a queue of tap0");
        for (device, flags) in [
            ("", Some(1)),
            ("a/b", Some(1)),
            ("tun%d", Some(1)),
            ("sixteen-letters!", Some(1)),
            ("tun0", Some(0)),
            ("tun0", Some(0x801)),
            ("tun0", None),
        ] {
            assert!(plan(device, flags).is_err(), "{device} {flags:?}");
        }
    }
}
