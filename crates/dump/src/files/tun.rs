//! TUN and TAP devices. Section 16.3 of the format.
//!
//! A device in a network namespace of the tree is a link of that, and made again with it. A device of the host that is persistent stays on the host, with its addresses and routes, and the file becomes a queue of it
//! again. Another one would go with the tree, and all that was set up for it.

use gelid_image::messages::{FdTypes, FileEntry, GelidTunfileEntry, TunfileEntry};
use gelid_sys::proc::ns::Kind;
use gelid_sys::tun;

use super::regfile::Opening;
use super::{Collector, Error, Object, Unsupported};

impl Collector<'_> {
    /// Records an open `/dev/net/tun`.
    pub(super) fn tun(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
    ) -> Result<(FdTypes, u32), Error> {
        let device = tun::device(object.file).map_err(object.failed("ask for the device of"))?;
        let network = match device {
            Some(_) => self.network_of_device(object)?,
            None => None,
        };
        let fleeting = |(_, flags): &(_, u16)| flags & tun::PERSISTENT == 0;
        if network.is_none() && device.as_ref().is_some_and(fleeting) {
            return Err(object.unsupported(Unsupported::FleetingTun));
        }
        // The record of the path has the same id.
        let id = self.regular(object, opening)?;
        let mut entry = TunfileEntry {
            id,
            ..TunfileEntry::default()
        };
        if let Some((name, flags)) = device {
            entry.netdev = Some(String::from_utf8_lossy(&name).into_owned());
            entry.detached = (flags & tun::DETACHED != 0).then_some(true);
            let mut gelid = GelidTunfileEntry {
                flags: Some((flags & tun::ATTACHING).into()),
                ..GelidTunfileEntry::default()
            };
            if network.is_some() {
                let sizes = tun::buffers(object.file);
                let sizes = sizes.map_err(object.failed("ask for the buffers of"))?;
                (gelid.vnethdr, gelid.sndbuf) = (Some(sizes.0), Some(sizes.1));
            }
            entry.gelid = Some(gelid);
            entry.ns_id = network;
        }
        self.push(FileEntry {
            r#type: FdTypes::Tunf.into(),
            id,
            tunf: Some(entry),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Tunf, id))
    }

    /// Number of the network namespace of the tree that a device is in.
    fn network_of_device(&self, object: &Object<'_>) -> Result<Option<u32>, Error> {
        let mut networks = self.census.of(Kind::Net).peekable();
        if networks.peek().is_none() {
            return Ok(None);
        }
        let theirs = tun::network(object.file).and_then(rustix::fs::fstat);
        let theirs = theirs.map_err(object.failed("ask for the network namespace of"))?;
        Ok(networks
            .find(|network| network.inode == theirs.st_ino)
            .map(|network| network.id))
    }
}
