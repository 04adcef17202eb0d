//! Netlink sockets with nothing unread. Section 14.6 of the format.

use gelid_image::messages::{FdTypes, FileEntry, NetlinkSkEntry};
use gelid_sys::netlink;
use gelid_sys::sockopt::{self, IntOption};
use rustix::event::PollFlags;

use super::inet;
use super::regfile::Opening;
use super::{Collector, Error, InetRefusal, Name, Object, sk_opts};

/// `SOCK_DGRAM`
const DGRAM: i32 = 2;
/// States as TCP has them.
const CONNECTED: u32 = 1;
const ALONE: u32 = 7;

impl Collector<'_> {
    /// Records a netlink socket.
    pub(super) fn netlink(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
    ) -> Result<(FdTypes, u32), Error> {
        let Some(network) = self.enter_network(object)? else {
            return Err(object.refused_inet(InetRefusal::Namespace));
        };
        let waiting = PollFlags::IN | PollFlags::ERR;
        if inet::events(object, PollFlags::IN)?.intersects(waiting) {
            return Err(Error::Netlink {
                place: object.place,
                name: Name(object.link.clone()),
            });
        }
        let failed = |operation| object.failed(operation);
        let own = netlink::address(object.file).map_err(failed("ask for the address of"))?;
        let peer = netlink::peer(object.file).map_err(failed("ask for the peer of"))?;
        let groups = netlink::groups(object.file).map_err(failed("ask for the groups of"))?;
        let kind = sockopt::int(object.file, IntOption::TYPE);
        let protocol = sockopt::protocol(object.file);
        let id = self.new_id()?;
        let entry = NetlinkSkEntry {
            id,
            ino: u32::try_from(object.stat.st_ino).unwrap_or_default(),
            protocol: protocol
                .map_err(failed("ask for the protocol of"))?
                .cast_unsigned(),
            state: match peer == netlink::Address::default() {
                true => ALONE,
                false => CONNECTED,
            },
            flags: opening.flags,
            portid: own.port,
            groups: shortened(groups),
            dst_portid: peer.port,
            dst_group: peer.groups,
            fown: opening.fown,
            opts: sk_opts::entry(object)?,
            ns_id: Some(network),
            datagrams: (kind.map_err(failed("ask for the kind of"))? == DGRAM).then_some(true),
            option: self.unusual_options(object)?,
        };
        self.push(FileEntry {
            r#type: FdTypes::Netlinksk.into(),
            id,
            nlsk: Some(Box::new(entry)),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Netlinksk, id))
    }
}

/// Words of a mask without those at the end that are zero: CRIU takes one word.
fn shortened(mut words: Vec<u32>) -> Vec<u32> {
    while words.last() == Some(&0) {
        words.pop();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_as_long_as_need_be() {
        assert_eq!(shortened(vec![1, 0, 2, 0, 0]), [1, 0, 2]);
        assert_eq!(shortened(vec![0, 0]), [0; 0]);
    }
}
