//! TUN and TAP devices: files that are queues of a device of the host, or of none yet.

use std::fmt;
use std::os::fd::AsFd;

use gelid_image::messages::TunfileEntry;
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
    /// The device that it is a queue of, and the flags it was attached with.
    pub device: Option<(String, u16)>,
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
            let Some(flags) = flags else {
                return Err(Error::Unsupported {
                    object: object.to_owned(),
                    what: "a TUN device whose record is that of a network namespace",
                    remedy: "dump it in the host's",
                });
            };
            let fitting = u16::try_from(flags).ok();
            let fitting =
                fitting.filter(|flags| flags & !tun::ATTACHING == 0 && flags & KINDS != 0);
            let Some(flags) = fitting else {
                let rule = "no device has such flags";
                return Err(Error::invalid(object, "flags", flags, rule));
            };
            Some((device.clone(), flags))
        }
    };
    Ok(Tun {
        name,
        device,
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
        let opened = opener
            .names
            .open(&Place::Path(file.name.clone()), flags.to_open())
            .map_err(|errno| opener.failed("open", &object, errno))?;
        let failed = |operation| Error::system(operation, &*object);
        if let Some((device, attaching)) = &file.device {
            tun::attach(&opened, device.as_bytes(), *attaching)
                .map_err(failed("attach to its device"))?;
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
                gelid: Some(GelidTunfileEntry { flags }),
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
