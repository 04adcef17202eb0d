//! TUN and TAP devices. Section 16.3 of the format.
//!
//! A device that is persistent stays on the host, with its addresses and routes, and the file becomes a queue of it
//! again. Another one would go with the tree, and all that was set up for it.

use gelid_image::messages::{FdTypes, FileEntry, GelidTunfileEntry, TunfileEntry};
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
        if device
            .as_ref()
            .is_some_and(|(_, flags)| flags & tun::PERSISTENT == 0)
        {
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
            entry.gelid = Some(GelidTunfileEntry {
                flags: Some((flags & tun::ATTACHING).into()),
            });
        }
        self.push(FileEntry {
            r#type: FdTypes::Tunf.into(),
            id,
            tunf: Some(entry),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Tunf, id))
    }
}
