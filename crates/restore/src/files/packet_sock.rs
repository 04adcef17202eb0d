//! Packet sockets. Section 14.6 of the format.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::BorrowedFd;

use gelid_image::messages::{PacketRing, PacketSockEntry};
use gelid_sys::packet::{self, LONGEST_ADDRESS, Membership, Ring};
use gelid_sys::sockopt::SocketOption;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, netdevice, socket_with};

use super::open::Opener;
use super::sk_opts::{self, SocketOptions};
use super::socket_option::Values;
use super::{Error, Kind};

/// `SOCK_PACKET`, which has its protocol from the start.
const OLD: u32 = 10;

/// A packet socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketSock {
    /// Datagrams, raw, or the old kind.
    pub kind: SocketType,
    /// Protocol as the wire has it.
    pub protocol: u16,
    /// Interface; 0 is all of them.
    pub index: u32,
    /// What it hears beyond what comes anyhow.
    pub memberships: Vec<Membership>,
    /// Group that shares its packets.
    pub fanout: Option<u32>,
    /// Rings for receiving and sending.
    pub rings: (Option<Ring>, Option<Ring>),
    /// Options of the socket layer.
    pub options: SocketOptions,
    /// All other options.
    pub values: Values,
}

impl fmt::Display for PacketSock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = u16::from_be(self.protocol);
        write!(
            f,
            "packet socket of protocol {protocol:#x}, interface {}",
            self.index
        )
    }
}

/// Checks a record.
pub(super) fn plan(object: &str, entry: &PacketSockEntry) -> Result<PacketSock, Error> {
    /// Memberships, each of which is a call.
    const MANY: usize = 1 << 16;
    let protocol = u16::try_from(entry.protocol);
    let protocol = protocol.map_err(|_| {
        let rule = "a protocol has 16 bits";
        Error::invalid(object, "protocol", entry.protocol, rule)
    })?;
    if !matches!(entry.r#type, 2 | 3 | OLD) {
        let rule = "it is 2, 3 or 10";
        return Err(Error::invalid(object, "type", entry.r#type, rule));
    }
    if entry.mclist.len() > MANY {
        let rule = "there are not that many";
        return Err(Error::invalid(object, "mclist", entry.mclist.len(), rule));
    }
    let memberships = entry.mclist.iter().map(|it| {
        let kind = u16::try_from(it.r#type).ok();
        let kind = kind.filter(|_| it.addr.len() <= LONGEST_ADDRESS);
        let Some(kind) = kind else {
            let found = format!("{} of {} bytes", it.r#type, it.addr.len());
            let rule = "no membership is like that";
            return Err(Error::invalid(object, "mclist", found, rule));
        };
        Ok(Membership {
            index: it.index,
            kind,
            address: it.addr.clone(),
        })
    });
    let ring = |ring: &Option<PacketRing>| {
        let checked = ring.as_ref().map(|it| self::ring(object, it));
        checked.transpose()
    };
    Ok(PacketSock {
        kind: SocketType::from_raw(entry.r#type),
        protocol,
        index: entry.ifindex,
        memberships: memberships.collect::<Result<_, _>>()?,
        fanout: entry.fanout.filter(|group| *group != u32::MAX),
        rings: (ring(&entry.rx_ring)?, ring(&entry.tx_ring)?),
        options: sk_opts::plan(object, &entry.opts)?,
        values: Values::plan(object, published(entry), &entry.option)?,
    })
}

fn ring(object: &str, entry: &PacketRing) -> Result<Ring, Error> {
    /// A ring is memory of the kernel's.
    const LARGEST: u64 = 1 << 30;
    let size = u64::from(entry.block_size) * u64::from(entry.block_nr);
    if size > LARGEST {
        let rule = "it has up to a GiB";
        return Err(Error::invalid(object, "rx_ring, tx_ring", size, rule));
    }
    Ok(Ring {
        block_size: entry.block_size,
        block_nr: entry.block_nr,
        frame_size: entry.frame_size,
        frame_nr: entry.frame_nr,
        retire_tmo: entry.retire_tmo,
        sizeof_priv: entry.sizeof_priv,
        features: entry.features,
    })
}

/// Options of the published format.
fn published(entry: &PacketSockEntry) -> BTreeMap<SocketOption, Vec<u8>> {
    let all = [
        (SocketOption::PACKET_VERSION, entry.version),
        (SocketOption::PACKET_RESERVE, entry.reserve),
        (SocketOption::PACKET_AUXDATA, entry.aux_data.into()),
        (SocketOption::PACKET_ORIGDEV, entry.orig_dev.into()),
        (SocketOption::PACKET_VNET_HDR, entry.vnet_hdr.into()),
        (SocketOption::PACKET_LOSS, entry.loss.into()),
        (SocketOption::PACKET_TIMESTAMP, entry.timestamp),
        (SocketOption::PACKET_COPY_THRESH, entry.copy_thresh),
    ];
    let values = all.map(|(option, value)| (option, value.to_ne_bytes().to_vec()));
    values.into_iter().collect()
}

/// Makes all of them.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::PacketSock(socket) = &description.kind else {
            continue;
        };
        opener.enter_network(description.id, description.label())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // With a protocol it hears everything at once.
        let protocol = match socket.kind.as_raw() {
            OLD => std::num::NonZeroU32::new(socket.protocol.into()).map(Protocol::from_raw),
            _ => None,
        };
        let made = socket_with(AddressFamily::PACKET, socket.kind, flags, protocol);
        opener.add_socket(description, made, |fd, object| socket.prepare(fd, object))?;
    }
    Ok(())
}

impl PacketSock {
    fn prepare(&self, fd: BorrowedFd<'_>, object: &str) -> Result<(), Error> {
        self.options.apply(fd, object)?;
        self.values.set(fd, object, |_| true)?;
        for (sends, ring) in [(false, self.rings.0), (true, self.rings.1)] {
            if let Some(ring) = ring {
                let made = packet::set_ring(fd, sends, ring);
                made.map_err(Error::system("make a ring of", object))?;
            }
        }
        self.bind(fd, object)?;
        for membership in &self.memberships {
            let joined = packet::join(fd, membership);
            joined.map_err(Error::system("join a group with", object))?;
        }
        match self.fanout {
            Some(group) => {
                packet::set_fanout(fd, group).map_err(Error::system("share the packets of", object))
            }
            None => Ok(()),
        }
    }

    fn bind(&self, fd: BorrowedFd<'_>, object: &str) -> Result<(), Error> {
        if self.kind.as_raw() == OLD {
            if self.index == 0 {
                return Ok(());
            }
            let name = netdevice::index_to_name(fd, self.index);
            let bound = name.and_then(|name| packet::bind_by_name(fd, &name));
            return bound.map_err(Error::system("bind", object));
        }
        match (self.protocol, self.index) {
            (0, 0) => Ok(()),
            (protocol, index) => {
                packet::bind(fd, protocol, index).map_err(Error::system("bind", object))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::PacketMclist;

    #[test]
    fn what_cannot_be_is_refused() {
        let with = |change: fn(&mut PacketSockEntry)| {
            let mut entry = PacketSockEntry {
                r#type: 3,
                protocol: 768,
                ..PacketSockEntry::default()
            };
            change(&mut entry);
            plan("it", &entry).map_err(|error| error.to_string())
        };
        let fine = with(|it| it.fanout = Some(u32::MAX)).unwrap();
        assert_eq!((fine.protocol, fine.fanout), (768, None));
        assert!(
            with(|it| it.protocol = 65_536)
                .unwrap_err()
                .contains("protocol")
        );
        assert!(with(|it| it.r#type = 1).unwrap_err().contains("type"));
        let long = with(|it| {
            it.mclist = vec![PacketMclist {
                addr: vec![0; 33],
                ..PacketMclist::default()
            }];
        });
        assert!(long.unwrap_err().contains("mclist"));
        let large = with(|it| {
            it.rx_ring = Some(PacketRing {
                block_size: u32::MAX,
                block_nr: u32::MAX,
                ..PacketRing::default()
            });
        });
        assert!(large.unwrap_err().contains("GiB"));
    }
}
