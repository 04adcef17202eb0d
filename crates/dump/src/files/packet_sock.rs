//! Packet sockets, without the packets in their queues. Section 14.6 of the format.

use gelid_image::messages::{FdTypes, FileEntry, PacketMclist, PacketRing, PacketSockEntry};
use gelid_sys::packet::{self, Membership, Ring};
use gelid_sys::sockopt::{self, IntOption};

use super::regfile::Opening;
use super::{Collector, Error, InetRefusal, Object, Unsupported, sk_opts};

impl Collector<'_> {
    /// Records a packet socket.
    pub(super) fn packet_sock(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
    ) -> Result<(FdTypes, u32), Error> {
        let Some(network) = self.enter_network(object)? else {
            return Err(object.refused_inet(InetRefusal::Namespace));
        };
        let inode = u32::try_from(object.stat.st_ino).unwrap_or_default();
        let seen = self.packet_socket(inode)?;
        let Some(seen) = seen else {
            return Err(object.unsupported(Unsupported::Anonymous));
        };
        let kind = sockopt::int(object.file, IntOption::TYPE);
        let fanout = match seen.has_fanout {
            true => {
                Some(packet::fanout(object.file).map_err(object.failed("ask for the group of"))?)
            }
            // What images have as the default, CRIU would set if it were written.
            false => None,
        };
        let is = |flag| seen.flags & flag != 0;
        let id = self.new_id()?;
        let entry = PacketSockEntry {
            id,
            r#type: kind
                .map_err(object.failed("ask for the kind of"))?
                .cast_unsigned(),
            protocol: seen.protocol.to_be().into(),
            flags: opening.flags,
            ifindex: seen.index,
            fown: opening.fown,
            opts: sk_opts::entry(object)?,
            version: seen.version,
            reserve: seen.reserve,
            aux_data: is(2),
            orig_dev: is(4),
            vnet_hdr: is(8),
            loss: is(16),
            timestamp: seen.timestamp,
            copy_thresh: seen.copy_threshold,
            mclist: seen.memberships.into_iter().map(membership).collect(),
            fanout,
            rx_ring: seen.receive_ring.map(ring),
            tx_ring: seen.send_ring.map(ring),
            ns_id: Some(network),
            option: self.unusual_options(object)?,
        };
        self.push(FileEntry {
            r#type: FdTypes::Packetsk.into(),
            id,
            psk: Some(Box::new(entry)),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Packetsk, id))
    }
}

fn membership(it: Membership) -> PacketMclist {
    PacketMclist {
        index: it.index,
        r#type: it.kind.into(),
        addr: it.address,
    }
}

fn ring(it: Ring) -> PacketRing {
    PacketRing {
        block_size: it.block_size,
        block_nr: it.block_nr,
        frame_size: it.frame_size,
        frame_nr: it.frame_nr,
        retire_tmo: it.retire_tmo,
        sizeof_priv: it.sizeof_priv,
        features: it.features,
    }
}
