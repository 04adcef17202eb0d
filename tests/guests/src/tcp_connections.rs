//! Connections of TCP.
//!
//! `tcp-connected`: both ends in the tree, of both families, with something unread. `tcp-options`: with whatever can be
//! set. `tcp-full`: without room for more, in both directions. `tcp-ending`: whose ends have come or gone, in every
//! state. `tcp-reset`: broken off, with something unread and an error to be told. `tcp-over`: at an end in peace.
//! `tcp-asking`: to somebody who does not answer. `tcp-outside`: with a process outside of the tree. `tcp-closed`: which
//! the restore closes. `tcp-unexpected`: which the dump is not told to expect. `tcp-urgent`: with urgent data.
//! `tcp-fallback`: accepted by a listener that speaks MPTCP, from somebody who does not.

use crate::Entry;
use crate::inet::{Facts, MPTCP, TCP, address, bound, heard, own, set, set_bytes, socket};
use crate::protocol::{Check, Failure, Guest, ensure, nap, same, until};
use crate::unix_names::stranger;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketType, accept, connect, listen, recv, send,
    shutdown,
};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("tcp-connected", connected),
    Entry("tcp-options", options),
    Entry("tcp-full", full),
    Entry("tcp-ending", ending),
    Entry("tcp-reset", reset),
    Entry("tcp-over", over),
    Entry("tcp-asking", asking),
    Entry("tcp-outside", outside),
    Entry("tcp-closed", closed),
    Entry("tcp-unexpected", connected),
    Entry("tcp-urgent", urgent),
    Entry("tcp-fallback", fallback),
];

const STREAM: SocketType = SocketType::STREAM;
const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSED: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// Skips the guest where nothing keeps packets away.
pub(crate) fn firewall() -> Check {
    let places = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = places.split(':').any(|place| {
        std::path::Path::new(place)
            .join("iptables-restore")
            .exists()
    });
    found
        .then_some(())
        .ok_or_else(|| Failure::skip("iptables is not installed"))
}

/// Both ends of a connection: who has connected, and who has accepted.
type Pair = [OwnedFd; 2];

fn pair_at(at: SocketAddr) -> Check<Pair> {
    let listener = bound(STREAM, TCP, at)?;
    listen(&listener, 4)?;
    let at = address(&listener)?;
    let family = if at.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let client = socket(family, STREAM, TCP)?;
    connect(&client, &at)?;
    let server = accept(&listener)?;
    Ok([client, server])
}

fn pair() -> Check<Pair> {
    pair_at(own())
}

/// Breaks connections off, so that nothing is left that waits for the last segments.
fn part(ends: impl IntoIterator<Item = OwnedFd>) -> Check {
    for end in ends {
        set_bytes(
            &end,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            &[1i32, 0].map(i32::to_ne_bytes).concat(),
        )?;
    }
    Ok(())
}

fn state(socket: impl AsFd) -> Check<u8> {
    let info = crate::inet::get(socket, libc::SOL_TCP, libc::TCP_INFO);
    Ok(info.map_err(|errno| Failure::new(format!("TCP_INFO: {errno}")))?[0])
}

/// Waits for a state, which takes the kernel a moment.
fn comes_to(socket: impl AsFd, wanted: u8) -> Check {
    until(&format!("state {wanted}"), || Ok(state(&socket)? == wanted))
}

fn say(socket: impl AsFd, what: &[u8]) -> Check {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = send(socket, what, flags)?;
    same!("sent", sent, what.len());
    Ok(())
}

/// Writes until there is no more room, and tells how many bytes that were.
fn fill(socket: impl AsFd) -> Check<usize> {
    let mut len = 0;
    loop {
        let piece: Vec<u8> = (len..len + 60_000).map(|at| (at % 251) as u8).collect();
        match send(&socket, &piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => len += sent,
            Err(Errno::AGAIN) => return Ok(len),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reads as many bytes of those, and then the end if there is to be one.
fn drain(socket: impl AsFd, len: usize, ends: bool) -> Check {
    set_bytes(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_RCVTIMEO,
        &[9i64, 0].map(i64::to_ne_bytes).concat(),
    )?;
    let (mut buffer, mut at) = (vec![0; 1 << 20], 0);
    while at < len {
        let (got, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        ensure!(got > 0, "the end after {at} of {len} bytes");
        let wrong = buffer[..got]
            .iter()
            .enumerate()
            .find(|(index, byte)| **byte != ((at + index) % 251) as u8);
        ensure!(wrong.is_none(), "byte {:?} after {at} is wrong", wrong);
        at += got;
    }
    same!("bytes", at, len);
    if ends {
        same!(
            "end",
            recv(&socket, &mut buffer[..], RecvFlags::empty())?.0,
            0
        );
    }
    Ok(())
}

/// Both ends hear each other.
fn talk(ends: &Pair) -> Check {
    say(&ends[0], b"there")?;
    heard("there", &ends[1])?;
    say(&ends[1], b"and back")?;
    heard("and back", &ends[0])
}

fn connected(guest: &Guest) -> Check {
    firewall()?;
    let mut pairs = vec![pair()?, pair_at((Ipv6Addr::LOCALHOST, 0).into())?];
    // A socket of IPv6 that speaks IPv4.
    let listener = socket(AddressFamily::INET6, STREAM, TCP)?;
    set(&listener, libc::SOL_IPV6, libc::IPV6_V6ONLY, 0)?;
    rustix::net::bind(&listener, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
    listen(&listener, 4)?;
    let client = socket(AddressFamily::INET, STREAM, TCP)?;
    connect(
        &client,
        &SocketAddr::from((own().ip(), address(&listener)?.port())),
    )?;
    pairs.push([client, accept(&listener)?]);
    for [client, server] in &pairs {
        say(client, b"unread")?;
        say(server, b"unread too")?;
    }
    let addresses = |pairs: &[Pair]| {
        pairs
            .iter()
            .flatten()
            .map(|end| address(end).ok())
            .collect::<Vec<_>>()
    };
    let before = addresses(&pairs);
    guest.hold()?;
    same!("addresses", addresses(&pairs), before);
    for ends in &pairs {
        heard("unread", &ends[1])?;
        heard("unread too", &ends[0])?;
        talk(ends)?;
        same!(
            "states",
            (state(&ends[0])?, state(&ends[1])?),
            (ESTABLISHED, ESTABLISHED)
        );
        let len = fill(&ends[0])?;
        drain(&ends[1], len, false)?;
    }
    part(pairs.into_iter().flatten())
}

fn options(guest: &Guest) -> Check {
    firewall()?;
    let ends = pair()?;
    for (name, value) in [
        (1, 1),
        (4, 50),
        (5, 7),
        (6, 3),
        (8, 9),
        (18, 4321),
        (25, 5000),
        (36, 1),
    ] {
        set(&ends[0], libc::SOL_TCP, name, value)?;
    }
    set_bytes(&ends[0], libc::SOL_TCP, libc::TCP_CONGESTION, b"reno")?;
    for (name, value) in [(9, 1), (10, 1), (12, 4), (18, 9), (36, 5)] {
        set(&ends[1], libc::SOL_SOCKET, name, value)?;
    }
    set(&ends[1], libc::SOL_SOCKET, libc::SO_RCVBUF, 100_000)?;
    set(&ends[1], libc::SOL_IP, libc::IP_TOS, 16)?;
    set(&ends[1], libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    // The size of segments follows what comes and goes. Of multicast a connection knows nothing.
    let facts = |end: &OwnedFd| Facts::of(end).without(libc::SOL_TCP, libc::TCP_MAXSEG);
    let facts = ends.each_ref().map(facts);
    let facts = facts.map(|facts| facts.without(libc::SOL_IP, libc::IP_MULTICAST_TTL));
    guest.hold()?;
    for (facts, end) in facts.iter().zip(&ends) {
        facts.check("end", end)?;
    }
    talk(&ends)?;
    part(ends)
}

fn full(guest: &Guest) -> Check {
    firewall()?;
    let ends = pair()?;
    for end in &ends {
        set(end, libc::SOL_SOCKET, libc::SO_SNDBUF, 300_000)?;
    }
    let lens = [fill(&ends[0])?, fill(&ends[1])?];
    guest.hold()?;
    drain(&ends[1], lens[0], false)?;
    drain(&ends[0], lens[1], false)?;
    talk(&ends)?;
    part(ends)
}

fn ending(guest: &Guest) -> Check {
    firewall()?;
    // Half closed, with something unread.
    let half = pair()?;
    say(&half[1], b"before")?;
    shutdown(&half[0], Shutdown::Write)?;
    comes_to(&half[0], FIN_WAIT2)?;
    // The end waits behind what has no room.
    let full = || {
        let ends = pair()?;
        set(&ends[0], libc::SOL_SOCKET, libc::SO_SNDBUF, 300_000)?;
        let len = fill(&ends[0])?;
        Check::Ok((ends, len))
    };
    let (first, first_len) = full()?;
    shutdown(&first[0], Shutdown::Write)?;
    // Both have ended it, one after the other and at once.
    let (last, last_len) = full()?;
    shutdown(&last[1], Shutdown::Write)?;
    comes_to(&last[0], CLOSE_WAIT)?;
    shutdown(&last[0], Shutdown::Write)?;
    let (both, both_len) = full()?;
    shutdown(&both[0], Shutdown::Write)?;
    shutdown(&both[1], Shutdown::Write)?;
    comes_to(&both[0], CLOSING)?;
    same!(
        "states",
        (state(&first[0])?, state(&last[0])?),
        (FIN_WAIT1, LAST_ACK)
    );
    // For reading alone.
    let deaf = pair()?;
    shutdown(&deaf[0], Shutdown::Read)?;
    guest.hold()?;
    same!(
        "states",
        (state(&half[0])?, state(&half[1])?),
        (FIN_WAIT2, CLOSE_WAIT)
    );
    heard("before", &half[0])?;
    say(&half[1], b"after")?;
    heard("after", &half[0])?;
    heard("", &half[1])?;
    drain(&first[1], first_len, true)?;
    drain(&last[1], last_len, true)?;
    heard("", &last[0])?;
    drain(&both[1], both_len, true)?;
    heard("", &both[0])?;
    heard("", &deaf[0])?;
    say(&deaf[0], b"not mute")?;
    heard("not mute", &deaf[1])?;
    Ok(())
}

fn reset(guest: &Guest) -> Check {
    let [client, server] = pair()?;
    say(&server, b"last words")?;
    part([server])?;
    comes_to(&client, CLOSED)?;
    let [told, server] = pair()?;
    part([server])?;
    comes_to(&told, CLOSED)?;
    let error = |socket: &OwnedFd| rustix::net::sockopt::socket_error(socket);
    same!("error", error(&told)?, Err(Errno::CONNRESET));
    guest.hold()?;
    same!("states", (state(&client)?, state(&told)?), (CLOSED, CLOSED));
    same!("error that was told", error(&told)?, Ok(()));
    heard("last words", &client)?;
    let mut buffer = [0; 9];
    same!(
        "error",
        recv(&client, &mut buffer[..], RecvFlags::DONTWAIT),
        Err(Errno::CONNRESET)
    );
    same!(
        "end",
        recv(&client, &mut buffer[..], RecvFlags::DONTWAIT),
        Ok((0, 0))
    );
    Ok(())
}

fn over(guest: &Guest) -> Check {
    let [client, server] = pair()?;
    say(&server, b"last words")?;
    drop(server);
    comes_to(&client, CLOSE_WAIT)?;
    shutdown(&client, Shutdown::Write)?;
    comes_to(&client, CLOSED)?;
    guest.hold()?;
    same!("state", state(&client)?, CLOSED);
    heard("last words", &client)?;
    heard("", &client)?;
    same!(
        "error",
        rustix::net::sockopt::socket_error(&client)?,
        Ok(())
    );
    Ok(())
}

fn asking(guest: &Guest) -> Check {
    firewall()?;
    // A backlog that is full makes the kernel silent.
    let listener = bound(STREAM, TCP, own())?;
    listen(&listener, 0)?;
    let at = address(&listener)?;
    let ask = || {
        let client = socket(AddressFamily::INET, STREAM, TCP)?;
        rustix::io::ioctl_fionbio(&client, true)?;
        match connect(&client, &at) {
            Ok(()) | Err(Errno::INPROGRESS) => Check::Ok(client),
            Err(errno) => Err(errno.into()),
        }
    };
    let visitor = ask()?;
    until("the first connection", || {
        Ok(state(&visitor)? == ESTABLISHED)
    })?;
    let client = ask()?;
    nap(Duration::from_millis(5));
    if state(&client)? != 2 {
        return Err(Failure::skip("the kernel answers although nobody has room"));
    }
    let from = address(&client)?;
    // It is accepted outside of what is dumped: what waits would not come back.
    let first = accept(&listener)?;
    part([visitor, first])?;
    guest.hold()?;
    same!("address", address(&client)?, from);
    comes_to(&client, ESTABLISHED)?;
    let server = accept(&listener)?;
    talk(&[client, server])
}

fn outside(guest: &Guest) -> Check {
    firewall()?;
    let listener = bound(STREAM, TCP, own())?;
    listen(&listener, 4)?;
    let (at, inherited) = (address(&listener)?, listener.as_raw_fd());
    stranger(guest, move || {
        // SAFETY: in this process nobody uses it.
        unsafe { rustix::io::close(inherited) };
        let client = socket(AddressFamily::INET, STREAM, TCP)?;
        connect(&client, &at)?;
        say(&client, b"from outside")?;
        // Whatever it hears it says again.
        guest.fork("echo", |guest| {
            let mut buffer = [0; 256];
            while guest.dir.exists() {
                let (got, _) = recv(&client, &mut buffer[..], RecvFlags::empty())?;
                if got == 0 {
                    break;
                }
                send(&client, &buffer[..got], SendFlags::NOSIGNAL)?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    let server = accept(&listener)?;
    guest.hold()?;
    heard("from outside", &server)?;
    say(&server, b"echo")?;
    heard("echo", &server)?;
    part([server])
}

fn closed(guest: &Guest) -> Check {
    let ends = pair()?;
    say(&ends[0], b"lost")?;
    guest.hold()?;
    for end in &ends {
        same!("state", state(end)?, CLOSED);
        same!(
            "reading",
            recv(end, &mut [0; 9][..], RecvFlags::DONTWAIT),
            Ok((0, 0))
        );
        same!(
            "writing",
            send(end, b"x", SendFlags::NOSIGNAL),
            Err(Errno::PIPE)
        );
    }
    Ok(())
}

fn urgent(guest: &Guest) -> Check {
    let ends = pair()?;
    send(&ends[0], b"!", SendFlags::OOB)?;
    guest.hold()?;
    same!(
        "urgent",
        recv(&ends[1], &mut [0; 9][..], RecvFlags::OOB)?.0,
        1
    );
    part(ends)
}

fn fallback(guest: &Guest) -> Check {
    const SO_PROTOCOL: i32 = 38;
    firewall()?;
    let listener = bound(STREAM, MPTCP, own())?;
    listen(&listener, 4)?;
    let client = socket(AddressFamily::INET, STREAM, TCP)?;
    connect(&client, &address(&listener)?)?;
    let server = accept(&listener)?;
    let protocol = crate::inet::get(&server, libc::SOL_SOCKET, SO_PROTOCOL);
    if protocol != Ok(TCP.to_ne_bytes().to_vec()) {
        return Err(Failure::skip("what has fallen back to TCP stays MPTCP"));
    }
    say(&client, b"unread")?;
    guest.hold()?;
    heard("unread", &server)?;
    say(&server, b"answer")?;
    heard("answer", &client)?;
    // It goes on listening.
    let another = socket(AddressFamily::INET, STREAM, TCP)?;
    connect(&another, &address(&listener)?)?;
    let accepted = accept(&listener)?;
    part([client, server, another, accepted])
}
