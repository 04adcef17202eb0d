//! Unix sockets that are connected, or not, with what is on its way.
//!
//! `unix-pairs`: of all kinds, shared by two tasks that talk. `unix-alone`: never connected. `unix-queues`: streams
//! with much and little in both directions. `unix-borders`: datagrams and packets one by one, empty ones too.
//! `unix-half-closed`: the other end is closed, with and without something left to read. `unix-reset`: the same, with
//! something lost. `unix-reset-unread`: with something to read after the error, which looking would take away.
//! `unix-shutdown`: every direction of every kind. `unix-blocked`: tasks in the middle of calls. `unix-full`: a stream
//! without room, and who waits for some.

use crate::Entry;
use crate::os::word;
use crate::protocol::{Check, Gate, Guest, ensure, same, wait_blocked};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socket_with, socketpair, sockopt,
};
use std::os::fd::{AsFd, OwnedFd};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("unix-pairs", pairs),
    Entry("unix-alone", alone),
    Entry("unix-queues", queues),
    Entry("unix-borders", borders),
    Entry("unix-half-closed", half_closed),
    Entry("unix-reset", reset),
    Entry("unix-reset-unread", reset_unread),
    Entry("unix-shutdown", shut),
    Entry("unix-blocked", blocked),
    Entry("unix-full", full),
];

/// All kinds of Unix sockets.
pub(crate) const KINDS: [SocketType; 3] =
    [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET];

pub(crate) fn pair(kind: SocketType) -> Check<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

pub(crate) fn socket(kind: SocketType) -> Check<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, kind, flags, None)?)
}

/// What can be read at once without waiting, as text.
pub(crate) fn now(socket: impl AsFd) -> Result<String, Errno> {
    let mut buffer = [0; 4096];
    let (got, _) = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
    Ok(String::from_utf8_lossy(&buffer[..got]).into_owned())
}

pub(crate) fn say(socket: impl AsFd, text: &str) -> Result<(), Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    send(socket, text.as_bytes(), flags).map(drop)
}

/// Says something and hears it at the other end.
pub(crate) fn talk(what: &str, from: impl AsFd, to: impl AsFd) -> Check {
    say(from, what)?;
    same!(format!("heard of {what}"), now(to), Ok(what.to_owned()));
    Ok(())
}

fn pairs(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let mut kids = Vec::new();
    let mut ends = Vec::new();
    for (index, kind) in KINDS.into_iter().enumerate() {
        let (own, theirs) = pair(kind)?;
        kids.push(guest.fork(&format!("kid{index}"), |guest| {
            gate.arrive()?;
            guest.wait();
            let mut buffer = [0; 64];
            let (got, _) = recv(&theirs, &mut buffer[..], RecvFlags::empty())?;
            send(&theirs, &buffer[..got], SendFlags::NOSIGNAL)?;
            Ok(())
        })?);
        ends.push(own);
    }
    gate.wait(KINDS.len())?;
    guest.hold()?;
    for (own, kid) in ends.iter().zip(kids) {
        say(own, "across")?;
        let mut buffer = [0; 64];
        let (got, _) = recv(own, &mut buffer[..], RecvFlags::empty())?;
        same!("echo", &buffer[..got], b"across");
        kid.join(guest)?;
    }
    Ok(())
}

fn alone(guest: &Guest) -> Check {
    let sockets = KINDS.map(socket);
    guest.hold()?;
    for (kind, socket) in KINDS.into_iter().zip(sockets) {
        let socket = socket?;
        same!("kind", sockopt::socket_type(&socket)?, kind);
        let expected = match kind {
            SocketType::STREAM => Errno::INVAL,
            SocketType::SEQPACKET => Errno::NOTCONN,
            _ => Errno::AGAIN,
        };
        same!(format!("read of {kind:?}"), now(&socket), Err(expected));
        same!("write", say(&socket, "x"), Err(Errno::NOTCONN));
        let path = guest.path(&format!("late-{}", kind.as_raw()));
        let address = rustix::net::SocketAddrUnix::new(path)?;
        rustix::net::bind(&socket, &address)?;
    }
    Ok(())
}

/// So many bytes that differ by place and seed.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    (0..len).map(|index| word(seed, index) as u8).collect()
}

fn queues(guest: &Guest) -> Check {
    let mut pairs = Vec::new();
    for (index, len) in [0, 1, 4096, 30_000, 150_000].into_iter().enumerate() {
        let (one, other) = pair(SocketType::STREAM)?;
        let seed = index as u64;
        let (there, back) = (bytes(len, seed), bytes(len / 3, seed + 100));
        for (from, bytes) in [(&one, &there), (&other, &back)] {
            for piece in bytes.chunks(20_000) {
                let sent = send(from, piece, SendFlags::DONTWAIT)?;
                same!("sent", sent, piece.len());
            }
        }
        pairs.push((one, other, there, back));
    }
    guest.hold()?;
    for (one, other, there, back) in pairs {
        for (to, want) in [(&other, &there), (&one, &back)] {
            same!(
                "bytes waiting",
                rustix::io::ioctl_fionread(to)?,
                want.len() as u64
            );
            let mut got = vec![0; want.len()];
            let mut read = 0;
            while read < want.len() {
                read += recv(to, &mut got[read..], RecvFlags::DONTWAIT)?.0;
            }
            ensure!(&got == want, "{} bytes differ", want.len());
        }
        talk("afterwards", &one, &other)?;
        talk("and back", &other, &one)?;
    }
    Ok(())
}

fn borders(guest: &Guest) -> Check {
    let messages = ["first", "", "second one", "3", ""];
    let long = "long ".repeat(800);
    let mut pairs = Vec::new();
    for kind in [SocketType::DGRAM, SocketType::SEQPACKET] {
        let (one, other) = pair(kind)?;
        for message in messages.iter().copied().chain([long.as_str()]) {
            say(&one, message)?;
        }
        say(&other, "the other way")?;
        pairs.push((one, other));
    }
    // One that is longer than any buffer would be at first.
    let (one, other) = pair(SocketType::SEQPACKET)?;
    let huge = bytes(150_000, 7);
    same!("sent", send(&one, &huge, SendFlags::DONTWAIT)?, huge.len());
    guest.hold()?;
    for (one, other) in &pairs {
        for message in messages.iter().copied().chain([long.as_str()]) {
            same!("message", now(other), Ok(message.to_owned()));
        }
        same!("end of the queue", now(other), Err(Errno::AGAIN));
        same!("message", now(one), Ok("the other way".to_owned()));
        talk("afterwards", one, other)?;
    }
    let mut got = vec![0; huge.len() + 1];
    let (len, _) = recv(&other, &mut got[..], RecvFlags::DONTWAIT)?;
    ensure!(got[..len] == huge, "the huge message differs");
    Ok(())
}

fn half_closed(guest: &Guest) -> Check {
    let mut left = Vec::new();
    for kind in KINDS {
        for text in ["", "last words"] {
            let (one, other) = pair(kind)?;
            if !text.is_empty() {
                say(&one, text)?;
            }
            left.push((kind, text, other));
        }
    }
    guest.hold()?;
    for (kind, text, end) in left {
        if !text.is_empty() {
            same!("rest", now(&end), Ok(text.to_owned()));
        }
        let (read, write) = match kind {
            SocketType::DGRAM => (Err(Errno::AGAIN), Err(Errno::CONNREFUSED)),
            _ => (Ok(String::new()), Err(Errno::PIPE)),
        };
        same!(format!("read from {kind:?} at the end"), now(&end), read);
        same!(
            format!("write to {kind:?} at the end"),
            say(&end, "x"),
            write
        );
        if kind == SocketType::DGRAM {
            same!("second write", say(&end, "x"), Err(Errno::NOTCONN));
        }
    }
    Ok(())
}

fn reset(guest: &Guest) -> Check {
    let mut left = Vec::new();
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        if kind == SocketType::STREAM {
            say(&one, "heard")?;
        }
        say(&other, "never read")?;
        if kind == SocketType::DGRAM {
            rustix::net::connect_unspec(&one)?;
        }
        left.push((kind, other));
    }
    guest.hold()?;
    for (kind, end) in left {
        if kind == SocketType::STREAM {
            same!("rest", now(&end), Ok("heard".to_owned()));
        }
        same!(
            format!("error of {kind:?}"),
            now(&end),
            Err(Errno::CONNRESET)
        );
        let last = match kind {
            SocketType::DGRAM => Err(Errno::AGAIN),
            _ => Ok(String::new()),
        };
        same!(format!("end of {kind:?}"), now(&end), last);
    }
    Ok(())
}

fn reset_unread(guest: &Guest) -> Check {
    let (one, other) = pair(SocketType::SEQPACKET)?;
    say(&one, "heard")?;
    say(&other, "never read")?;
    drop(one);
    guest.hold()?;
    same!("error", now(&other), Err(Errno::CONNRESET));
    same!("rest", now(&other), Ok("heard".to_owned()));
    Ok(())
}

fn shut(guest: &Guest) -> Check {
    let mut pairs = Vec::new();
    for kind in KINDS {
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            let (one, other) = pair(kind)?;
            say(&one, "before")?;
            say(&other, "before")?;
            shutdown(&one, how)?;
            pairs.push((kind, how, one, other));
        }
    }
    let lonely = socket(SocketType::STREAM)?;
    shutdown(&lonely, Shutdown::Both)?;
    let view = |(kind, how, one, other): &(SocketType, Shutdown, OwnedFd, OwnedFd)| {
        let mut seen = vec![format!("{kind:?} {how:?}")];
        for (name, end) in [("one", one), ("other", other)] {
            for _ in 0..2 {
                seen.push(format!("{name} reads {:?}", now(end)));
            }
        }
        for (name, end) in [("one", one), ("other", other)] {
            seen.push(format!("{name} writes {:?}", say(end, "x")));
        }
        seen
    };
    // The same, without a dump.
    let mut expected = Vec::new();
    for kind in KINDS {
        for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
            let (one, other) = pair(kind)?;
            say(&one, "before")?;
            say(&other, "before")?;
            shutdown(&one, how)?;
            expected.push(view(&(kind, how, one, other)));
        }
    }
    guest.hold()?;
    let seen: Vec<_> = pairs.iter().map(view).collect();
    same!("after shutting down", seen, expected);
    same!("read of the lonely one", now(&lonely), Err(Errno::INVAL));
    Ok(())
}

fn blocked(guest: &Guest) -> Check {
    let mut kids = Vec::new();
    let mut ends = Vec::new();
    for (index, kind) in KINDS.into_iter().enumerate() {
        let (own, theirs) = pair(kind)?;
        let kid = guest.fork(&format!("reader{index}"), |_| {
            let mut buffer = [0; 64];
            let (got, _) = recv(&theirs, &mut buffer[..], RecvFlags::empty())?;
            same!("what came", &buffer[..got], b"at last");
            Ok(())
        })?;
        wait_blocked(kid.pid, libc::SYS_recvfrom)?;
        kids.push(kid);
        ends.push(own);
    }
    guest.hold()?;
    for (own, kid) in ends.iter().zip(kids) {
        say(own, "at last")?;
        kid.join(guest)?;
    }
    Ok(())
}

fn full(guest: &Guest) -> Check {
    let (own, theirs) = pair(SocketType::STREAM)?;
    let mut sent = 0;
    while let Ok(more) = send(&theirs, &[7; 4096], SendFlags::DONTWAIT) {
        sent += more;
    }
    let writer = guest.fork("writer", |_| {
        same!("sent", send(&theirs, b"and more", SendFlags::NOSIGNAL)?, 8);
        Ok(())
    })?;
    wait_blocked(writer.pid, libc::SYS_sendto)?;
    guest.hold()?;
    let mut buffer = vec![0; 65_536];
    let mut got = 0;
    while got < sent + 8 {
        got += recv(&own, &mut buffer[..], RecvFlags::empty())?.0;
    }
    writer.join(guest)
}
