//! Internet sockets: UDP, UDP-Lite, raw, ICMP, TCP. Section 14.2 of the format.
//!
//! What has no connection is recorded when it is met. Connections of TCP are left to [`tcp`](super::tcp), as their
//! state is only known when packets are kept away from them.

mod absent;
mod multicast;
mod network;
mod options;
mod raw;
mod refusal;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use gelid_image::messages::{
    FdTypes, FileEntry, GelidInetSkEntry, GelidSocketOptionEntry, InetSkEntry, SkShutdown,
};
use gelid_sys::diag::{Diag, PacketSocket};
use gelid_sys::sockopt::{self, IntOption, SocketOption};
use gelid_sys::{Errno, tcp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::multicast::Groups;
pub(crate) use self::network::NETWORK;
use self::options::Fresh;
pub use self::refusal::InetRefusal;
use super::regfile::Opening;
use super::tcp::Connection;
use super::{Collector, Error, Name, Object, sk_opts};
use crate::Options;

/// `AF_INET6`
pub(super) const INET6: u32 = 10;
/// `AF_PACKET`
const PACKET: u32 = 17;
const STREAM: u32 = 1;
const DGRAM: u32 = 2;
const RAW: u32 = 3;
const ICMP: u32 = 1;
pub(super) const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;
const UDPLITE: u32 = 136;
const MPTCP: u32 = 262;

/// `TCP_ESTABLISHED`, which other sockets borrow.
const CONNECTED: u32 = 1;
/// `TCP_CLOSE`, the same.
pub(super) const CLOSED: u32 = 7;
pub(super) const LISTENING: u32 = 10;
/// What was asked about internet sockets so far.
#[derive(Debug, Default)]
pub(super) struct Internet {
    diag: Option<Diag>,
    /// What is shut down, by family and protocol, and inode.
    shutdowns: HashMap<(u32, u32), HashMap<u32, u8>>,
    fresh: Fresh,
    /// Multicast groups of the machine.
    groups: Option<Groups>,
    /// Packet sockets, by inode.
    packets: Option<HashMap<u32, PacketSocket>>,
    /// Connections, which are looked at last.
    pub(super) connections: Vec<Connection>,
    /// Inode of the network namespace that the thread is in; of the dumper's own if it has never joined one.
    here: Option<u64>,
    /// Inode of the dumper's, once it was asked for.
    own: Option<u64>,
}

/// What a socket was made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Make {
    pub(super) family: u32,
    pub(super) kind: u32,
    pub(super) protocol: u32,
}

impl Make {
    fn of(object: &Object<'_>) -> Result<Self, Error> {
        let read = || {
            Ok(Self {
                family: sockopt::int(object.file, IntOption::DOMAIN)?.cast_unsigned(),
                kind: sockopt::int(object.file, IntOption::TYPE)?.cast_unsigned(),
                protocol: sockopt::protocol(object.file)?.cast_unsigned(),
            })
        };
        read().map_err(object.failed("ask for the kind of"))
    }

    /// Why such a socket is not dumped.
    fn refused(self) -> Option<InetRefusal> {
        let known = match self.kind {
            STREAM => matches!(self.protocol, TCP | MPTCP),
            DGRAM => matches!(self.protocol, UDP | UDPLITE | ICMP | ICMPV6),
            kind => kind == RAW,
        };
        (!known).then_some(InetRefusal::Protocol {
            protocol: self.protocol,
        })
    }

    /// Whether it is a stream of TCP, bare or below MPTCP.
    fn is_tcp(self) -> bool {
        self.kind == STREAM
    }

    fn is_udp(self) -> bool {
        self.kind == DGRAM && matches!(self.protocol, UDP | UDPLITE)
    }
}

impl Collector<'_> {
    /// Records an internet socket, or takes note of it if it is a connection.
    pub(super) fn inet(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
    ) -> Result<(FdTypes, u32), Error> {
        let make = Make::of(object)?;
        if let Some(why) = make.refused() {
            return Err(object.refused_inet(why));
        }
        let Some(network) = self.enter_network(object)? else {
            return Err(object.refused_inet(InetRefusal::Namespace));
        };
        let mut entry = self.inet_entry(object, make)?;
        entry.ns_id = Some(network);
        entry.id = self.new_id()?;
        (entry.flags, entry.fown) = (opening.flags, opening.fown);
        let id = entry.id;
        if make.is_tcp() && entry.state != LISTENING && entry.dst_port != 0 {
            let ask = object.failed("ask for the addresses of");
            let own = own_address(object).map_err(&ask)?;
            let ends = own.zip(peer_address(object).map_err(&ask)?);
            match ends {
                Some(ends) if make.protocol == TCP => self.connection(object, ends, entry)?,
                _ => return Err(object.refused_inet(InetRefusal::Mptcp)),
            }
            return Ok((FdTypes::Inetsk, id));
        }
        self.push_inet(entry)?;
        Ok((FdTypes::Inetsk, id))
    }

    /// What the kernel tells of a packet socket, which it tells of all at once.
    pub(super) fn packet_socket(&mut self, inode: u32) -> Result<Option<PacketSocket>, Error> {
        let ask = || Diag::new()?.packet_sockets();
        let told = match &mut self.internet.packets {
            Some(told) => told,
            none => none.insert(ask().map_err(|errno| Error::Own {
                operation: "ask about packet sockets",
                errno,
            })?),
        };
        Ok(told.get(&inode).cloned())
    }

    /// Options in which a socket differs from a new one of its kind.
    pub(super) fn unusual_options(
        &mut self,
        object: &Object<'_>,
    ) -> Result<Vec<GelidSocketOptionEntry>, Error> {
        let mut make = Make::of(object)?;
        if make.family == PACKET {
            // With a protocol it would hear everything at once.
            make.protocol = 0;
        }
        self.internet.fresh.options(object, make, false)
    }

    /// Writes the record of an internet socket.
    pub(super) fn push_inet(&mut self, entry: InetSkEntry) -> Result<(), Error> {
        self.push(FileEntry {
            r#type: FdTypes::Inetsk.into(),
            id: entry.id,
            isk: Some(Box::new(entry)),
            ..FileEntry::default()
        })
    }

    /// What a socket tells of itself.
    fn inet_entry(&mut self, object: &Object<'_>, make: Make) -> Result<InetSkEntry, Error> {
        let address = |operation| object.failed(operation);
        let own = own_address(object).map_err(address("ask for the address of"))?;
        let peer = peer_address(object).map_err(address("ask for the peer of"))?;
        let mut entry = InetSkEntry {
            ino: u32::try_from(object.stat.st_ino).unwrap_or_default(),
            family: make.family,
            r#type: make.kind,
            proto: match make.protocol {
                MPTCP => TCP,
                protocol => protocol,
            },
            state: if peer.is_some() { CONNECTED } else { CLOSED },
            src_port: own.map_or(0, |own| own.port()).into(),
            dst_port: peer.map_or(0, |peer| peer.port()).into(),
            src_addr: words(make, own),
            dst_addr: words(make, peer),
            opts: sk_opts::entry(object)?,
            ifname: interface(own),
            ..InetSkEntry::default()
        };
        if make.family == INET6 {
            let only = SocketOption::IPV6_V6ONLY.int(object.file);
            entry.v6only = Some(only.map_err(address("ask for the options of"))? != 0);
        }
        match make.kind {
            STREAM => self.listener(object, &mut entry)?,
            RAW => raw::complete(object, make, &mut entry)?,
            _ => refuse_corked(object)?,
        }
        if !make.is_tcp() || entry.state == CLOSED {
            entry.shutdown = shut(self.shutdown(object, make)?);
        }
        let option = self
            .internet
            .fresh
            .options(object, make, entry.dst_port != 0)?;
        let gelid = GelidInetSkEntry {
            option,
            mptcp: (make.protocol == MPTCP).then_some(true),
            uid: Some(object.stat.st_uid).filter(|uid| *uid != 0),
            membership: match make.is_tcp() {
                true => Vec::new(),
                false => {
                    let groups = &mut self.internet.groups;
                    groups.get_or_insert_with(Groups::read).of(object)?
                }
            },
            ..GelidInetSkEntry::default()
        };
        options::published(object, make, &mut entry)?;
        let gelid = GelidInetSkEntry {
            absent: absent::is_absent(&entry, own).then_some(true),
            ..gelid
        };
        entry.gelid = (gelid != GelidInetSkEntry::default()).then_some(gelid);
        Ok(entry)
    }

    /// State and backlog of TCP.
    fn listener(&self, object: &Object<'_>, entry: &mut InetSkEntry) -> Result<(), Error> {
        let info = tcp::info(object.file).map_err(object.failed("ask for the state of"))?;
        entry.state = info.state.into();
        if entry.state == LISTENING {
            entry.backlog = info.backlog;
            if info.waiting > 0 && !self.options.skip_in_flight {
                return Err(object.refused_inet(InetRefusal::InFlight {
                    count: info.waiting,
                }));
            }
        }
        let upper = SocketOption::TCP_ULP.get(object.file).unwrap_or_default();
        let name: Vec<u8> = upper.into_iter().take_while(|byte| *byte != 0).collect();
        match name.as_slice() {
            b"" | b"mptcp" => Ok(()),
            _ => Err(object.refused_inet(InetRefusal::Upper { name: Name(name) })),
        }
    }

    /// Directions that are shut down.
    fn shutdown(&mut self, object: &Object<'_>, make: Make) -> Result<u8, Error> {
        let seen = events(object, PollFlags::RDHUP)?;
        if seen.contains(PollFlags::RDHUP) {
            // A socket of TCP without a connection hangs up in any case.
            let both = seen.contains(PollFlags::HUP) && !make.is_tcp();
            return Ok(if both { 3 } else { 1 });
        }
        if !make.is_udp() {
            return Ok(0);
        }
        // What is shut down for sending alone is not seen.
        let told = self.internet.shutdowns(make).map_err(|errno| Error::Own {
            operation: "ask about sockets",
            errno,
        })?;
        let inode = u32::try_from(object.stat.st_ino).unwrap_or_default();
        Ok(told.get(&inode).copied().unwrap_or_default())
    }
}

impl Internet {
    fn shutdowns(&mut self, make: Make) -> Result<&HashMap<u32, u8>, Errno> {
        let key = (make.family, make.protocol);
        if !self.shutdowns.contains_key(&key) {
            if self.diag.is_none() {
                self.diag = Some(Diag::new()?);
            }
            let told = match &self.diag {
                Some(diag) => diag.shutdowns(make.family as u8, make.protocol as u8),
                None => Ok(HashMap::new()),
            };
            let told = match told {
                // The kernel has no module that tells about it.
                Err(Errno::NOENT) => HashMap::new(),
                told => told?,
            };
            self.shutdowns.insert(key, told);
        }
        Ok(&self.shutdowns[&key])
    }
}

/// Why a socket is refused at a first look: a connection that nobody expects.
pub(super) fn unexpected(options: &Options, socket: impl AsFd) -> Option<InetRefusal> {
    if options.tcp_established || options.tcp_close {
        return None;
    }
    let state = tcp::info(&socket).ok()?.state.into();
    let peer = sockopt::peer_name(&socket).ok()??;
    let own = rustix::net::getsockname(&socket).ok()?.try_into().ok()?;
    (![CLOSED, LISTENING].contains(&state)).then_some(InetRefusal::Established { own, peer })
}

/// What a socket is ready for.
pub(super) fn events(object: &Object<'_>, wanted: PollFlags) -> Result<PollFlags, Error> {
    let mut fds = [PollFd::new(&object.file, wanted)];
    poll(&mut fds, Some(&Timespec::default())).map_err(object.failed("poll"))?;
    Ok(fds[0].revents())
}

/// Directions as they are recorded.
pub(super) fn shut(directions: u8) -> Option<i32> {
    match directions & 3 {
        0 => None,
        1 => Some(SkShutdown::Read.into()),
        2 => Some(SkShutdown::Write.into()),
        _ => Some(SkShutdown::Both.into()),
    }
}

/// Where a socket is bound; `None` if the kernel has no address to tell.
fn own_address(object: &Object<'_>) -> Result<Option<SocketAddr>, Errno> {
    let address = rustix::net::getsockname(object.file)?;
    Ok(SocketAddr::try_from(address).ok())
}

/// Whom a socket is or was connected with.
fn peer_address(object: &Object<'_>) -> Result<Option<SocketAddr>, Errno> {
    match sockopt::peer_name(object.file) {
        Err(Errno::NOTCONN) => Ok(None),
        peer => peer,
    }
}

/// An address as it is recorded; zeros for none.
fn words(make: Make, address: Option<SocketAddr>) -> Vec<u32> {
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |all, byte| all << 8 | u32::from(*byte))
    };
    match address {
        Some(SocketAddr::V4(address)) => vec![word(&address.ip().octets())],
        Some(SocketAddr::V6(address)) => address.ip().octets().chunks(4).map(word).collect(),
        None if make.family == INET6 => vec![0; 4],
        None => vec![0],
    }
}

/// Name of the interface that an address is of.
fn interface(address: Option<SocketAddr>) -> Option<String> {
    let Some(SocketAddr::V6(address)) = address else {
        return None;
    };
    match address.scope_id() {
        0 => None,
        index => rustix::net::netdevice::index_to_name(
            rustix::net::socket(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::DGRAM,
                None,
            )
            .ok()?,
            index,
        )
        .ok(),
    }
}

/// A datagram in the making is where nobody can look.
fn refuse_corked(object: &Object<'_>) -> Result<(), Error> {
    let corked = SocketOption::UDP_CORK.int(object.file).unwrap_or_default() != 0;
    let waiting = tcp::unacknowledged(object.file).unwrap_or_default();
    match corked && waiting > 0 {
        true => Err(object.refused_inet(InetRefusal::Corked)),
        false => Ok(()),
    }
}

impl Object<'_> {
    pub(super) fn refused_inet(&self, why: InetRefusal) -> Error {
        Error::Internet {
            place: self.place,
            name: Name(self.link.clone()),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INET: u32 = 2;

    #[test]
    fn addresses_are_words_of_the_network() {
        let make = |family| Make {
            family,
            kind: DGRAM,
            protocol: UDP,
        };
        let local = words(make(INET), "127.0.0.1:1".parse().ok());
        assert_eq!(local, [16_777_343]);
        let local = words(make(INET6), "[::1]:1".parse().ok());
        assert_eq!(local, [0, 0, 0, 0x0100_0000]);
        assert_eq!(words(make(INET6), None), [0; 4]);
        assert_eq!((shut(0), shut(3)), (None, Some(3)));
    }
}
