//! Netlink sockets. Section 14.6 of the format.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::BorrowedFd;

use gelid_image::messages::NetlinkSkEntry;
use gelid_sys::netlink::{self, Address};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};

use super::open::Opener;
use super::sk_opts::{self, SocketOptions};
use super::socket_option::Values;
use super::{Error, Kind};

/// A netlink socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netlink {
    /// Its inode at the dump.
    pub inode: u32,
    /// Number of the protocol.
    pub protocol: u32,
    /// Datagrams or raw, which is the same but by name.
    pub kind: SocketType,
    /// Its port; 0 is none.
    pub port: u32,
    /// Groups that it hears, from 1 on.
    pub groups: Vec<u32>,
    /// To whom it sends.
    pub peer: Address,
    /// Options of the socket layer.
    pub options: SocketOptions,
    /// All other options.
    pub values: Values,
}

impl fmt::Display for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            port,
            groups,
            ..
        } = self;
        write!(
            f,
            "netlink socket of protocol {protocol}, port {port}, {} groups",
            groups.len()
        )
    }
}

/// Checks a record.
pub(super) fn plan(object: &str, entry: &NetlinkSkEntry) -> Result<Netlink, Error> {
    /// The kernel has less than that.
    const PROTOCOLS: u32 = 256;
    /// Words of the groups of a protocol.
    const WORDS: usize = 64;
    if entry.protocol >= PROTOCOLS {
        let rule = "protocols are 0 to 255";
        return Err(Error::invalid(object, "protocol", entry.protocol, rule));
    }
    if entry.groups.len() > WORDS {
        let rule = "no protocol has more than 2048 groups";
        return Err(Error::invalid(object, "groups", entry.groups.len(), rule));
    }
    let words = entry.groups.iter().zip(0u32..);
    let groups = words.flat_map(|(word, at)| {
        let bits = (0..32).filter(move |bit| word >> bit & 1 != 0);
        bits.map(move |bit| 32 * at + bit + 1)
    });
    Ok(Netlink {
        inode: entry.ino,
        protocol: entry.protocol,
        kind: match entry.datagrams {
            Some(true) => SocketType::DGRAM,
            _ => SocketType::RAW,
        },
        port: entry.portid,
        groups: groups.collect(),
        peer: Address {
            port: entry.dst_portid,
            groups: entry.dst_group,
        },
        options: sk_opts::plan(object, &entry.opts)?,
        values: Values::plan(object, BTreeMap::new(), &entry.option)?,
    })
}

/// Makes all of them.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Netlink(socket) = &description.kind else {
            continue;
        };
        opener.enter_network(description.id, description.label())?;
        let protocol = std::num::NonZeroU32::new(socket.protocol).map(Protocol::from_raw);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let made = socket_with(AddressFamily::NETLINK, socket.kind, flags, protocol);
        opener.add_socket(description, made, |fd, object| socket.prepare(fd, object))?;
    }
    Ok(())
}

impl Netlink {
    fn prepare(&self, fd: BorrowedFd<'_>, object: &str) -> Result<(), Error> {
        self.options.apply(fd, object)?;
        self.values.set(fd, object, |_| true)?;
        if self.port != 0 {
            let own = Address {
                port: self.port,
                groups: 0,
            };
            match netlink::bind(fd, own) {
                Err(Errno::ADDRINUSE) => {
                    return Err(Error::Occupied {
                        object: object.to_owned(),
                    });
                }
                bound => bound.map_err(Error::system("bind", object))?,
            }
        }
        for group in &self.groups {
            netlink::join(fd, *group).map_err(Error::system("join a group with", object))?;
        }
        match self.peer == Address::default() {
            true => Ok(()),
            false => netlink::connect(fd, self.peer).map_err(Error::system("connect", object)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_from_one() {
        let entry = NetlinkSkEntry {
            groups: vec![1 | 1 << 31, 2],
            portid: 7,
            ..NetlinkSkEntry::default()
        };
        let planned = plan("it", &entry).unwrap();
        assert_eq!((planned.groups, planned.port), (vec![1, 32, 34], 7));
        let with = |change: fn(&mut NetlinkSkEntry)| {
            let mut entry = NetlinkSkEntry::default();
            change(&mut entry);
            plan("it", &entry).unwrap_err().to_string()
        };
        assert!(with(|it| it.protocol = 256).contains("protocol"));
        assert!(with(|it| it.groups = vec![0; 65]).contains("groups"));
    }
}
