//! Datagrams of UDP and UDP-Lite.
//!
//! `udp`: bound, connected and neither, of both families, that still hear each other. `udp-options`: with whatever can be
//! set. `udp-elsewhere`: bound to an address that nobody has. `udp-shutdown`: every direction. `udp-shared`: several sockets of one port. `udp-owner`: made by another user.
//! `udp-lite`: with partial checksums. `udp-corked`: in the middle of a datagram. `udp-multicast`: in groups, with and without
//! sources.

use crate::Entry;
use crate::inet::{Facts, UDP, UDPLITE, address, bound, hear, heard, own, set, set_bytes, socket};
use crate::protocol::{Check, Failure, Guest, same};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketType, bind, connect, getpeername, send, shutdown,
};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("udp", plain),
    Entry("udp-options", options),
    Entry("udp-elsewhere", elsewhere),
    Entry("udp-shutdown", shut),
    Entry("udp-shared", shared),
    Entry("udp-owner", owner),
    Entry("udp-lite", lite),
    Entry("udp-corked", corked),
    Entry("udp-multicast", multicast),
];

const DGRAM: SocketType = SocketType::DGRAM;
const IPV6_FREEBIND: i32 = 78;
const LOCAL6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

fn plain(guest: &Guest) -> Check {
    let one = bound(DGRAM, UDP, own())?;
    let two = bound(DGRAM, UDP, own())?;
    let (first, second) = (address(&one)?, address(&two)?);
    connect(&two, &first)?;
    let unbound = socket(AddressFamily::INET, DGRAM, 0)?;
    let six = bound(DGRAM, UDP, LOCAL6)?;
    let sixth = address(&six)?;
    // Both families by one socket.
    let both = socket(AddressFamily::INET6, DGRAM, 0)?;
    set(&both, libc::SOL_IPV6, libc::IPV6_V6ONLY, 0)?;
    bind(&both, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
    let port = address(&both)?.port();
    let all = [
        one.as_fd(),
        two.as_fd(),
        unbound.as_fd(),
        six.as_fd(),
        both.as_fd(),
    ];
    let facts = all.map(Facts::of);
    guest.hold()?;
    for (facts, socket) in facts.iter().zip(all) {
        facts.check("socket", socket)?;
    }
    let addresses = (address(&one)?, address(&two)?, address(&six)?);
    same!("addresses", addresses, (first, second, sixth));
    same!("peer", peer(&two)?, Some(first));
    same!("nobody", getpeername(&one), Err(Errno::NOTCONN));
    send(&two, b"connected", SendFlags::empty())?;
    heard("connected", &one)?;
    hear("back", &one, &two, second)?;
    hear("from anywhere", &unbound, &one, first)?;
    hear("six", &both, &six, sixth)?;
    hear("four", &unbound, &both, (own().ip(), port).into())?;
    Ok(())
}

fn peer(socket: &OwnedFd) -> Check<Option<SocketAddr>> {
    Ok(getpeername(socket)?.map(SocketAddr::try_from).transpose()?)
}

fn elsewhere(guest: &Guest) -> Check {
    let nobodys = [
        (
            AddressFamily::INET,
            "192.0.2.1:0",
            libc::SOL_IP,
            libc::IP_FREEBIND,
        ),
        (
            AddressFamily::INET6,
            "[2001:db8::1]:0",
            libc::SOL_IPV6,
            IPV6_FREEBIND,
        ),
    ];
    let mut sockets = Vec::new();
    for (family, address, level, option) in nobodys {
        for stays in [1, 0] {
            let socket = socket(family, DGRAM, 0)?;
            set(&socket, level, option, 1)?;
            let address: SocketAddr = address.parse().map_err(|_| Failure::from(Errno::INVAL))?;
            bind(&socket, &address)?;
            set(&socket, level, option, stays)?;
            sockets.push((Facts::of(&socket), socket));
        }
    }
    guest.hold()?;
    for (facts, socket) in &sockets {
        facts.check("socket", socket)?;
    }
    Ok(())
}

/// Two sockets with whatever can be set.
fn set_up() -> Check<[OwnedFd; 2]> {
    let four = bound(DGRAM, UDP, own())?;
    let six = bound(DGRAM, UDP, LOCAL6)?;
    let ip = [
        (1, 16),
        (2, 5),
        (6, 1),
        (7, 1),
        (8, 1),
        (10, 2),
        (11, 1),
        (12, 1),
        (13, 1),
        (15, 1),
        (20, 1),
        (33, 9),
        (34, 0),
        (49, 0),
    ];
    for (name, value) in ip {
        set(&four, libc::SOL_IP, name, value)?;
    }
    for (name, value) in [
        (16, 7),
        (18, 3),
        (19, 0),
        (23, 2),
        (49, 1),
        (51, 1),
        (62, 1),
        (66, 1),
        (67, 32),
    ] {
        set(&six, libc::SOL_IPV6, name, value)?;
    }
    for (name, value) in [
        (6, 1),
        (10, 1),
        (12, 4),
        (18, 2),
        (29, 1),
        (36, 77),
        (40, 1),
        (42, 3),
    ] {
        set(&four, libc::SOL_SOCKET, name, value)?;
    }
    set(&four, libc::SOL_SOCKET, libc::SO_RCVBUF, 100_000)?;
    set(&six, libc::SOL_UDP, 103, 1400)?;
    set_bytes(&six, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo")?;
    set_bytes(
        &six,
        libc::SOL_SOCKET,
        libc::SO_RCVTIMEO,
        &[3i64, 500_000].map(i64::to_ne_bytes).concat(),
    )?;
    set_bytes(
        &six,
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        &[1i32, 7].map(i32::to_ne_bytes).concat(),
    )?;
    Ok([four, six])
}

fn options(guest: &Guest) -> Check {
    let sockets = set_up()?;
    let facts = sockets.each_ref().map(Facts::of);
    guest.hold()?;
    for (facts, socket) in facts.iter().zip(&sockets) {
        facts.check("socket", socket)?;
    }
    Ok(())
}

fn shut(guest: &Guest) -> Check {
    let target = bound(DGRAM, UDP, own())?;
    let mut sockets = Vec::new();
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        let socket = bound(DGRAM, UDP, own())?;
        connect(&socket, &address(&target)?)?;
        shutdown(&socket, how)?;
        sockets.push((how, socket));
    }
    guest.hold()?;
    for (how, socket) in sockets {
        let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
        poll(&mut polled, Some(&Timespec::default()))?;
        let read_shut = polled[0].revents().contains(PollFlags::RDHUP);
        same!(
            format!("reading, {how:?}"),
            read_shut,
            how != Shutdown::Write
        );
        let written = send(&socket, b"x", SendFlags::NOSIGNAL);
        let write_shut = how != Shutdown::Read;
        same!(
            format!("write of {how:?}"),
            written,
            if write_shut { Err(Errno::PIPE) } else { Ok(1) }
        );
    }
    Ok(())
}

fn shared(guest: &Guest) -> Check {
    let make = |option, at| {
        let socket = socket(AddressFamily::INET, DGRAM, 0)?;
        set(&socket, libc::SOL_SOCKET, option, 1)?;
        bind(&socket, &at)?;
        Check::Ok(socket)
    };
    let mut sockets = Vec::new();
    for option in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
        let first = make(option, own())?;
        let at = address(&first)?;
        let second = make(option, at)?;
        // What it was at first does not matter any more.
        set(&second, libc::SOL_SOCKET, libc::SO_REUSEADDR, 0)?;
        sockets.extend([(at, first), (at, second)]);
    }
    let facts: Vec<_> = sockets
        .iter()
        .map(|(_, socket)| Facts::of(socket))
        .collect();
    guest.hold()?;
    for (facts, (at, socket)) in facts.iter().zip(&sockets) {
        facts.check("socket", socket)?;
        same!("address", address(socket)?, *at);
    }
    Ok(())
}

fn owner(guest: &Guest) -> Check {
    let socket = bound(DGRAM, UDP, own())?;
    let uid = rustix::process::Uid::from_raw(12_345);
    rustix::fs::fchown(&socket, Some(uid), None)?;
    guest.hold()?;
    same!("owner", rustix::fs::fstat(&socket)?.st_uid, 12_345);
    Ok(())
}

fn lite(guest: &Guest) -> Check {
    let one = bound(DGRAM, UDPLITE, own())?;
    let two = bound(DGRAM, UDPLITE, LOCAL6)?;
    set(&one, 136, 10, 8)?;
    set(&one, 136, 11, 16)?;
    let facts = [Facts::of(&one), Facts::of(&two)];
    guest.hold()?;
    facts[0].check("one", &one)?;
    facts[1].check("two", &two)?;
    hear("oneself", &two, &two, address(&two)?)
}

fn corked(guest: &Guest) -> Check {
    let socket = bound(DGRAM, UDP, own())?;
    let at = address(&socket)?;
    connect(&socket, &at)?;
    set(&socket, libc::SOL_UDP, 1, 1)?;
    send(&socket, b"one ", SendFlags::empty())?;
    guest.hold()?;
    send(&socket, b"datagram", SendFlags::empty())?;
    set(&socket, libc::SOL_UDP, 1, 0)?;
    heard("one datagram", &socket)
}

fn multicast(guest: &Guest) -> Check {
    const JOIN: i32 = 42;
    const LEAVE: i32 = 45;
    const JOIN_SOURCE: i32 = 46;
    let at =
        |group: &str| -> Check<SocketAddr> { format!("{group}:0").parse().map_err(Failure::new) };
    let join = |socket: &OwnedFd, level, group: SocketAddr| {
        let request = [&1u64.to_ne_bytes()[..], &storage(group)].concat();
        set_bytes(socket, level, JOIN, &request)
    };
    let (four, six) = (
        socket(AddressFamily::INET, DGRAM, 0)?,
        socket(AddressFamily::INET6, DGRAM, 0)?,
    );
    bind(&four, &SocketAddr::from(([0, 0, 0, 0], 0)))?;
    bind(&six, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
    // Groups of nobody else.
    let [.., a, b] = std::process::id().to_be_bytes();
    let group = at(&format!("239.77.{a}.{b}"))?;
    join(&four, libc::SOL_IP, group)?;
    let picky = at(&format!("239.78.{a}.{b}"))?;
    let request = [
        &1u64.to_ne_bytes()[..],
        &storage(picky),
        &storage(at("127.0.0.1")?),
    ]
    .concat();
    set_bytes(&four, libc::SOL_IP, JOIN_SOURCE, &request)?;
    let sixth = at(&format!("[ff05::{a:x}:{b:x}]"))?;
    join(&six, libc::SOL_IPV6, sixth)?;
    guest.hold()?;
    let sender = bound(DGRAM, UDP, "127.0.0.1:0".parse().map_err(Failure::new)?)?;
    set_bytes(&sender, libc::SOL_IP, 32, &[127, 0, 0, 1])?;
    let port = address(&four)?.port();
    hear("to all", &sender, &four, (group.ip(), port).into())?;
    hear("from one", &sender, &four, (picky.ip(), port).into())?;
    // Only who is in a group can leave it.
    let request = [&1u64.to_ne_bytes()[..], &storage(sixth)].concat();
    set_bytes(&six, libc::SOL_IPV6, LEAVE, &request)
}

/// An address as `struct sockaddr_storage`.
fn storage(address: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes[..2].copy_from_slice(&2u16.to_ne_bytes());
            bytes[4..8].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes[..2].copy_from_slice(&10u16.to_ne_bytes());
            bytes[8..24].copy_from_slice(&ip.octets());
        }
    }
    bytes
}
