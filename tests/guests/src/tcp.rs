//! TCP without connections.
//!
//! `tcp-listening`: of both families, with options, that still accept. `tcp-bound`: bound or not, never connected.
//! `tcp-shared`: several that listen at one port. `tcp-mptcp`: the same that speak MPTCP. `tcp-in-flight`: with a
//! connection that nobody has accepted; `tcp-in-flight-skipped`: with one that may be dropped.

use crate::Entry;
use crate::inet::{Facts, MPTCP, TCP, address, bound, heard, own, set, set_bytes, socket};
use crate::protocol::{Check, Guest, same};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketType, accept, bind, connect, listen, send};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("tcp-listening", listening),
    Entry("tcp-bound", unconnected),
    Entry("tcp-shared", shared),
    Entry("tcp-mptcp", mptcp),
    Entry("tcp-in-flight", in_flight),
    Entry("tcp-in-flight-skipped", skipped),
];

const STREAM: SocketType = SocketType::STREAM;

/// Connects with somebody who listens, and talks.
fn visit(listener: impl AsFd, at: SocketAddr) -> Check<[OwnedFd; 2]> {
    let family = match at {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let client = socket(family, STREAM, TCP)?;
    connect(&client, &at)?;
    let server = accept(listener)?;
    send(&client, b"hello", SendFlags::empty())?;
    heard("hello", &server)?;
    Ok([client, server])
}

fn listening(guest: &Guest) -> Check {
    let four = bound(STREAM, TCP, own())?;
    listen(&four, 7)?;
    let both = socket(AddressFamily::INET6, STREAM, TCP)?;
    set(&both, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set(&both, libc::SOL_IPV6, libc::IPV6_V6ONLY, 0)?;
    bind(&both, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
    for (name, value) in [
        (1, 1),
        (2, 1000),
        (4, 50),
        (5, 7),
        (6, 3),
        (7, 4),
        (9, 5),
        (18, 1234),
        (23, 5),
        (25, 9999),
    ] {
        set(&both, libc::SOL_TCP, name, value)?;
    }
    set_bytes(&both, libc::SOL_TCP, libc::TCP_CONGESTION, b"reno")?;
    set(&both, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    listen(&both, 77)?;
    set(&both, libc::SOL_TCP, 9, 0)?;
    let (first, port) = (address(&four)?, address(&both)?.port());
    let facts = [Facts::of(&four), Facts::of(&both)];
    guest.hold()?;
    facts[0].check("four", &four)?;
    facts[1].check("both", &both)?;
    same!("address", address(&four)?, first);
    visit(&four, first)?;
    visit(&both, (own().ip(), port).into())?;
    visit(&both, (Ipv6Addr::LOCALHOST, port).into())?;
    // Nobody else can have the port.
    same!(
        "bind",
        bind(socket(AddressFamily::INET, STREAM, TCP)?, &first),
        Err(Errno::ADDRINUSE)
    );
    Ok(())
}

fn unconnected(guest: &Guest) -> Check {
    let sockets = [
        bound(STREAM, TCP, own())?,
        bound(STREAM, TCP, (Ipv6Addr::LOCALHOST, 0).into())?,
        socket(AddressFamily::INET, STREAM, TCP)?,
        socket(AddressFamily::INET6, STREAM, TCP)?,
    ];
    set(&sockets[0], libc::SOL_TCP, libc::TCP_MAXSEG, 900)?;
    set(&sockets[2], libc::SOL_TCP, libc::TCP_CORK, 1)?;
    set(&sockets[3], libc::SOL_IPV6, libc::IPV6_V6ONLY, 1)?;
    let facts = sockets.each_ref().map(Facts::of);
    let addresses = sockets.each_ref().map(|socket| address(socket).ok());
    guest.hold()?;
    for (index, socket) in sockets.iter().enumerate() {
        facts[index].check(&format!("socket {index}"), socket)?;
        same!("address", address(socket).ok(), addresses[index]);
    }
    let at = address(&sockets[0])?;
    listen(&sockets[0], 1)?;
    visit(&sockets[0], at)?;
    Ok(())
}

fn shared(guest: &Guest) -> Check {
    let make = |at| {
        let socket = socket(AddressFamily::INET, STREAM, TCP)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        bind(&socket, &at)?;
        listen(&socket, 9)?;
        Check::Ok(socket)
    };
    let first = make(own())?;
    let at = address(&first)?;
    let sockets = [first, make(at)?, make(at)?];
    // Another address of the same port.
    let other = bound(
        STREAM,
        TCP,
        (std::net::Ipv4Addr::LOCALHOST, at.port()).into(),
    );
    guest.hold()?;
    for socket in &sockets {
        same!("address", address(socket)?, at);
    }
    if let Ok(other) = other {
        same!("port", address(&other)?.port(), at.port());
    }
    Ok(())
}

fn mptcp(guest: &Guest) -> Check {
    let listener = bound(STREAM, MPTCP, own())?;
    listen(&listener, 9)?;
    let unbound = socket(AddressFamily::INET6, STREAM, MPTCP)?;
    let at = address(&listener)?;
    let facts = [Facts::of(&listener), Facts::of(&unbound)];
    guest.hold()?;
    facts[0].check("listener", &listener)?;
    facts[1].check("unbound", &unbound)?;
    visit(&listener, at)?;
    Ok(())
}

/// A connection that may be dropped before it is accepted: the listener goes on with the next one.
fn skipped(guest: &Guest) -> Check {
    let listener = bound(STREAM, TCP, own())?;
    listen(&listener, 9)?;
    let client = socket(AddressFamily::INET, STREAM, TCP)?;
    connect(&client, &address(&listener)?)?;
    send(&client, b"early", SendFlags::empty())?;
    guest.hold()?;
    let next = socket(AddressFamily::INET, STREAM, TCP)?;
    connect(&next, &address(&listener)?)?;
    send(&next, b"late", SendFlags::empty())?;
    let first = accept(&listener)?;
    let mut text = [0; 5];
    let len = rustix::io::read(&first, &mut text)?;
    if text[..len] == *b"early" {
        // There was no restore.
        return heard("late", &accept(&listener)?);
    }
    same!("the next connection", text[..len], *b"late");
    Ok(())
}

fn in_flight(guest: &Guest) -> Check {
    let listener = bound(STREAM, TCP, own())?;
    listen(&listener, 9)?;
    let client = socket(AddressFamily::INET, STREAM, TCP)?;
    connect(&client, &address(&listener)?)?;
    guest.hold()?;
    let server = accept(&listener)?;
    send(&client, b"late", SendFlags::empty())?;
    heard("late", &server)
}
