//! Multicast groups of sockets, `ip(7)` and RFC 3678.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use rustix::io::{Errno, Result};

use crate::sockopt::{ask, set};

const JOIN_GROUP: i32 = 42;
const MSFILTER: i32 = 48;
/// Bytes of `struct sockaddr_storage`.
const ADDRESS: usize = 128;
/// Where the group is in `struct group_req` and `struct group_filter`.
const GROUP: usize = 8;
/// Where the mode of a filter and the number of its sources are.
const MODE: usize = GROUP + ADDRESS;
/// Where its sources are.
const SOURCES: usize = MODE + 8;
/// `MCAST_INCLUDE`
const INCLUDE: u32 = 1;
/// Most sources that are asked for.
const MOST: usize = 256;

/// A group that a socket is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// Interface.
    pub index: u32,
    /// The group.
    pub group: IpAddr,
    /// Only the sources are heard; otherwise all but them.
    pub include: bool,
    /// The sources.
    pub sources: Vec<IpAddr>,
}

/// The membership of a socket in a group; `None` if it is not in it.
///
/// # Errors
///
/// `ENOBUFS` if there are more than 256 sources.
pub fn membership(socket: impl AsFd, index: u32, group: IpAddr) -> Result<Option<Membership>> {
    let mut filter = vec![0; SOURCES + MOST * ADDRESS];
    filter[..4].copy_from_slice(&index.to_ne_bytes());
    put(&mut filter[GROUP..], group);
    filter[MODE + 4..SOURCES].copy_from_slice(&(MOST as u32).to_ne_bytes());
    match ask(socket, level(group), MSFILTER, &mut filter) {
        Err(Errno::ADDRNOTAVAIL | Errno::NOPROTOOPT | Errno::OPNOTSUPP | Errno::NODEV) => {
            return Ok(None);
        }
        asked => asked?,
    };
    let word = |at: usize| {
        u32::from_ne_bytes([filter[at], filter[at + 1], filter[at + 2], filter[at + 3]])
    };
    let count = word(MODE + 4) as usize;
    if count > MOST {
        return Err(Errno::NOBUFS);
    }
    let sources = filter[SOURCES..].chunks_exact(ADDRESS).take(count);
    Ok(Some(Membership {
        index,
        group,
        include: word(MODE) == INCLUDE,
        sources: sources.filter_map(get).collect(),
    }))
}

/// Makes a socket a member.
///
/// # Errors
///
/// `ENODEV` if there is no such interface, `EINVAL` for what is no group.
pub fn join(socket: impl AsFd, membership: &Membership) -> Result<()> {
    let Membership {
        index,
        group,
        include,
        sources,
    } = membership;
    let mut filter = vec![0; SOURCES + sources.len() * ADDRESS];
    filter[..4].copy_from_slice(&index.to_ne_bytes());
    put(&mut filter[GROUP..], *group);
    set(&socket, level(*group), JOIN_GROUP, &filter[..MODE])?;
    if !include && sources.is_empty() {
        return Ok(());
    }
    filter[MODE..MODE + 4].copy_from_slice(&u32::from(*include).to_ne_bytes());
    filter[MODE + 4..SOURCES].copy_from_slice(&(sources.len() as u32).to_ne_bytes());
    for (source, to) in sources
        .iter()
        .zip(filter[SOURCES..].chunks_exact_mut(ADDRESS))
    {
        put(to, *source);
    }
    set(socket, level(*group), MSFILTER, &filter)
}

fn level(group: IpAddr) -> i32 {
    match group {
        IpAddr::V4(_) => libc::SOL_IP,
        IpAddr::V6(_) => libc::SOL_IPV6,
    }
}

/// Writes an address as the kernel has it.
fn put(to: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            to[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            to[4..8].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            to[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            to[8..24].copy_from_slice(&address.octets());
        }
    }
}

fn get(from: &[u8]) -> Option<IpAddr> {
    let family = i32::from(u16::from_ne_bytes(from.first_chunk().copied()?));
    if family == libc::AF_INET {
        let octets: [u8; 4] = from.get(4..8)?.try_into().ok()?;
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets: [u8; 16] = from.get(8..24)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// Of the loopback interface.
    fn of_lo(group: &str, include: bool, sources: &[&str]) -> Membership {
        Membership {
            index: 1,
            group: group.parse().unwrap(),
            include,
            sources: sources.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn memberships_are_told_as_they_are_made() {
        let four = UdpSocket::bind("0.0.0.0:0").unwrap();
        let six = UdpSocket::bind("[::]:0").unwrap();
        for (socket, membership) in [
            (&four, of_lo("239.1.2.3", false, &[])),
            (&four, of_lo("239.1.2.4", true, &["10.0.0.1", "10.0.0.2"])),
            (&four, of_lo("239.1.2.5", false, &["10.0.0.3"])),
            (&six, of_lo("ff05::1:3", false, &[])),
            (&six, of_lo("ff05::1:4", true, &["2001:db8::1"])),
        ] {
            let ask = || super::membership(socket, 1, membership.group);
            assert_eq!(ask(), Ok(None));
            join(socket, &membership).unwrap();
            let mut told = ask().unwrap().unwrap();
            told.sources.sort();
            assert_eq!(told, membership);
        }
        let other = UdpSocket::bind("0.0.0.0:0").unwrap();
        assert_eq!(
            super::membership(&other, 1, "239.1.2.3".parse().unwrap()),
            Ok(None)
        );
    }
}
