//! What is set of Unix sockets.
//!
//! `unix-options`: by `setsockopt(2)`. `unix-late-options`: those that came later, or mean nothing here. `unix-flags`: of
//! the description, and its owner. `unix-peeking`: an offset of `SO_PEEK_OFF`.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Guest, same};
use crate::unix::{KINDS, now, pair, say, socket, talk};
use rustix::net::{RecvFlags, SocketType, recv, sockopt};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("unix-options", options),
    Entry("unix-late-options", late_options),
    Entry("unix-flags", flags),
    Entry("unix-peeking", peeking),
];

/// Sets an option of the socket layer.
fn set(socket: BorrowedFd<'_>, option: i32, value: i32) -> Check {
    let (fd, value) = (socket.as_raw_fd(), &raw const value);
    os!(libc::setsockopt(
        fd,
        libc::SOL_SOCKET,
        option,
        value.cast(),
        4
    ))?;
    Ok(())
}

fn get(socket: BorrowedFd<'_>, option: i32) -> Check<i32> {
    let (mut value, mut len) = (0_i32, 4);
    let (fd, to) = (socket.as_raw_fd(), &raw mut value);
    os!(libc::getsockopt(
        fd,
        libc::SOL_SOCKET,
        option,
        to.cast(),
        &raw mut len
    ))?;
    Ok(value)
}

fn options(guest: &Guest) -> Check {
    const SO_BUF_LOCK: i32 = 72;
    let asked = [
        libc::SO_BROADCAST,
        libc::SO_KEEPALIVE,
        libc::SO_OOBINLINE,
        libc::SO_PRIORITY,
        libc::SO_RCVLOWAT,
        libc::SO_PASSCRED,
        libc::SO_PASSSEC,
        libc::SO_DONTROUTE,
        libc::SO_MARK,
        libc::SO_SNDBUF,
        libc::SO_RCVBUF,
        libc::SO_TYPE,
        libc::SO_ERROR,
        libc::SO_PEEK_OFF,
        libc::SO_ACCEPTCONN,
        SO_BUF_LOCK,
    ];
    let (plain, set_up) = pair(SocketType::STREAM)?;
    let datagrams = socket(SocketType::DGRAM)?;
    let socket = set_up.as_fd();
    for option in [libc::SO_BROADCAST, libc::SO_KEEPALIVE] {
        set(socket, option, 1)?;
    }
    set(socket, libc::SO_PRIORITY, 3)?;
    set(socket, libc::SO_RCVLOWAT, 17)?;
    set(socket, libc::SO_PASSCRED, 1)?;
    set(socket, libc::SO_MARK, 0x2a)?;
    set(socket, libc::SO_SNDBUF, 100_000)?;
    set(datagrams.as_fd(), libc::SO_RCVBUF, 50_000)?;
    set(datagrams.as_fd(), libc::SO_OOBINLINE, 1)?;
    sockopt::set_socket_linger(socket, Some(Duration::from_secs(9)))?;
    let (send, receive) = (Duration::from_millis(2500), Duration::from_secs(70));
    sockopt::set_socket_timeout(socket, sockopt::Timeout::Send, Some(send))?;
    sockopt::set_socket_timeout(socket, sockopt::Timeout::Recv, Some(receive))?;
    let all = || -> Check<Vec<i32>> {
        let sockets = [plain.as_fd(), socket, datagrams.as_fd()].into_iter();
        let all = sockets.flat_map(|socket| asked.map(|option| get(socket, option)));
        all.collect()
    };
    let before = all()?;
    guest.hold()?;
    same!("options", all()?, before);
    same!(
        "linger",
        sockopt::socket_linger(socket)?,
        Some(Duration::from_secs(9))
    );
    for (which, want) in [
        (sockopt::Timeout::Send, send),
        (sockopt::Timeout::Recv, receive),
    ] {
        same!(
            "timeout",
            sockopt::socket_timeout(socket, which)?,
            Some(want)
        );
    }
    Ok(())
}

fn late_options(guest: &Guest) -> Check {
    const SO_PASSPIDFD: i32 = 76;
    let (one, other) = pair(SocketType::DGRAM)?;
    set(other.as_fd(), SO_PASSPIDFD, 1)?;
    set(other.as_fd(), libc::SO_REUSEADDR, 1)?;
    say(&one, "with a pidfd")?;
    guest.hold()?;
    for option in [SO_PASSPIDFD, libc::SO_REUSEADDR] {
        same!("option", get(other.as_fd(), option)?, 1);
    }
    same!("message", now(&other), Ok("with a pidfd".to_owned()));
    Ok(())
}

fn flags(guest: &Guest) -> Check {
    let (one, other) = pair(SocketType::STREAM)?;
    let copy = one.try_clone()?;
    let me = std::process::id() as i32;
    os!(libc::fcntl(
        one.as_raw_fd(),
        libc::F_SETFL,
        libc::O_NONBLOCK
    ))?;
    os!(libc::fcntl(other.as_raw_fd(), libc::F_SETOWN, me))?;
    os!(libc::fcntl(other.as_raw_fd(), 10, libc::SIGUSR2))?; // F_SETSIG
    let ignored: libc::sighandler_t = libc::SIG_IGN;
    os!(libc::signal(libc::SIGUSR2, ignored) as isize)?;
    os!(libc::fcntl(other.as_raw_fd(), libc::F_SETFL, libc::O_ASYNC))?;
    let view = || -> Check<Vec<i32>> {
        let mut seen = Vec::new();
        for fd in [&one, &other, &copy] {
            for command in [libc::F_GETFL, libc::F_GETFD, libc::F_GETOWN, 11] {
                seen.push(os!(libc::fcntl(fd.as_raw_fd(), command))?);
            }
        }
        Ok(seen)
    };
    let before = view()?;
    guest.hold()?;
    same!("flags and owners", view()?, before);
    os!(libc::fcntl(copy.as_raw_fd(), libc::F_SETFL, 0))?; // one description behind both
    let status = os!(libc::fcntl(one.as_raw_fd(), libc::F_GETFL))?;
    same!("flags through the other", status & libc::O_NONBLOCK, 0);
    talk("afterwards", &one, &other)
}

fn peeking(guest: &Guest) -> Check {
    let peek = |socket: &OwnedFd| {
        let mut buffer = [0; 64];
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let got = recv(socket, &mut buffer[..], flags).map(|(got, _)| got);
        got.map(|got| String::from_utf8_lossy(&buffer[..got]).into_owned())
    };
    let mut pairs = Vec::new();
    for kind in KINDS {
        let (one, other) = pair(kind)?;
        for text in ["abcd", "efgh"] {
            say(&one, text)?;
        }
        set(other.as_fd(), libc::SO_PEEK_OFF, 2)?;
        pairs.push((kind, one, other));
    }
    let plain = pair(SocketType::DGRAM)?;
    say(&plain.0, "head")?;
    say(&plain.0, "tail")?;
    guest.hold()?;
    for (kind, one, other) in &pairs {
        let first = if *kind == SocketType::STREAM {
            "cdefgh"
        } else {
            "cd"
        };
        same!(
            format!("peek at {kind:?}"),
            peek(other),
            Ok(first.to_owned())
        );
        drop(now(other));
        say(one, "x")?;
    }
    for _ in 0..2 {
        same!("peek at the head", peek(&plain.1), Ok("head".to_owned()));
    }
    Ok(())
}
