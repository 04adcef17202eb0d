//! Raw sockets, and those of ICMP.
//!
//! `raw`: of both families, with and without a peer, with filters and options. `ping`: sockets of ICMP that still have
//! their number.

use crate::Entry;
use crate::inet::{Facts, address, own, set, set_bytes, socket};
use crate::protocol::{Check, Failure, Guest, same};
use rustix::net::{AddressFamily, SendFlags, SocketType, bind, connect, sendto};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

pub(crate) const GUESTS: &[Entry] = &[Entry("raw", raw), Entry("ping", ping)];

const ICMP: u32 = 1;
const ICMPV6: u32 = 58;
/// A protocol of nobody.
const SPARE: u32 = 253;

fn raw(guest: &Guest) -> Check {
    let make = |family, protocol| socket(family, SocketType::RAW, protocol);
    let filtered = make(AddressFamily::INET, ICMP)?;
    set(&filtered, 255, 1, 1 << 13)?;
    bind(&filtered, &own())?;
    let filtered6 = make(AddressFamily::INET6, ICMPV6)?;
    set_bytes(&filtered6, 58, 1, &[0xa5; 32])?;
    let connected = make(AddressFamily::INET, SPARE)?;
    connect(&connected, &own())?;
    set(&connected, libc::SOL_IP, libc::IP_TTL, 9)?;
    let whole = make(AddressFamily::INET, 255)?;
    let headers = make(AddressFamily::INET, SPARE)?;
    set(&headers, libc::SOL_IP, libc::IP_HDRINCL, 1)?;
    set(&headers, libc::SOL_IP, libc::IP_NODEFRAG, 1)?;
    let summed = make(AddressFamily::INET6, 17)?;
    set(&summed, libc::SOL_IPV6, 7, 6)?;
    let sockets: [OwnedFd; 6] = [filtered, filtered6, connected, whole, headers, summed];
    let facts = sockets.each_ref().map(Facts::of);
    let addresses = sockets.each_ref().map(|socket| address(socket).ok());
    guest.hold()?;
    for (index, socket) in sockets.iter().enumerate() {
        facts[index].check(&format!("socket {index}"), socket)?;
        same!("address", address(socket).ok(), addresses[index]);
    }
    // It has a peer.
    rustix::net::send(&sockets[2], b"itself", SendFlags::empty())?;
    Ok(())
}

fn ping(guest: &Guest) -> Check {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, ICMP);
    let socket = socket.map_err(|why| Failure::skip(format!("no socket of ICMP: {why}")))?;
    bind(&socket, &own())?;
    let (facts, at) = (Facts::of(&socket), address(&socket)?);
    guest.hold()?;
    facts.check("socket", &socket)?;
    same!("number", address(&socket)?, at);
    let echo = [8, 0, 0, 0, 0, 0, 0, 1, b'x'];
    sendto(
        &socket,
        &echo,
        SendFlags::empty(),
        &std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    )?;
    let mut buffer = [0; 64];
    let (got, _) = rustix::net::recv(&socket, &mut buffer[..], rustix::net::RecvFlags::empty())?;
    same!("answer", got, echo.len());
    Ok(())
}
