//! Sockets between virtual machines.
//!
//! `vsock`: new, bound, listening, of both kinds, with options.
//! `refused-vsock`: one that is about to be connected, or refused.

use crate::Entry;
use crate::inet::{Facts, get, set_bytes};
use crate::os::{errno, os};
use crate::protocol::{Check, Failure, Guest, ensure, same};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, listen, socket_with};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub(crate) const GUESTS: &[Entry] = &[Entry("vsock", vsock), Entry("refused-vsock", connecting)];

const LEVEL: i32 = libc::AF_VSOCK;

fn socket(kind: SocketType) -> Check<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = AddressFamily::from_raw(libc::AF_VSOCK as u16);
    match socket_with(family, kind, flags, None) {
        Err(errno @ (Errno::AFNOSUPPORT | Errno::NODEV)) => Err(Failure::skip(errno)),
        made => Ok(made?),
    }
}

fn words(cid: u32, port: u32) -> [u32; 4] {
    [libc::AF_VSOCK as u32, port, cid, 0]
}

fn bind(socket: impl AsFd, port: u32) -> Check {
    let address = words(u32::MAX, port);
    let fd = socket.as_fd().as_raw_fd();
    os!(libc::bind(fd, address.as_ptr().cast(), 16))?;
    Ok(())
}

/// The errno that it ends with.
fn connect(socket: impl AsFd, cid: u32) -> i32 {
    let address = words(cid, 7);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads the address.
    match unsafe { libc::connect(fd, address.as_ptr().cast(), 16) } {
        0 => 0,
        _ => errno(),
    }
}

fn address(socket: impl AsFd) -> Check<[u32; 4]> {
    let (mut words, mut len) = ([0u32; 4], 16u32);
    let fd = socket.as_fd().as_raw_fd();
    os!(libc::getsockname(
        fd,
        words.as_mut_ptr().cast(),
        &raw mut len
    ))?;
    Ok(words)
}

fn ready(socket: impl AsFd) -> Check<PollFlags> {
    let mut fds = [PollFd::new(&socket, PollFlags::IN | PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec::default()))?;
    Ok(fds[0].revents())
}

fn vsock(guest: &Guest) -> Check {
    let sockets = [
        socket(SocketType::STREAM)?,
        socket(SocketType::STREAM)?,
        socket(SocketType::STREAM)?,
        socket(SocketType::SEQPACKET)?,
    ];
    let port = 0x1000_0000 | std::process::id() << 2;
    bind(&sockets[1], port)?;
    set_bytes(&sockets[1], LEVEL, 2, &900_000u64.to_ne_bytes())?;
    set_bytes(&sockets[1], LEVEL, 1, &300_000u64.to_ne_bytes())?;
    set_bytes(&sockets[1], LEVEL, 0, &500_000u64.to_ne_bytes())?;
    let timeout = [[7i64.to_ne_bytes(), 500_000i64.to_ne_bytes()]].concat();
    set_bytes(&sockets[1], LEVEL, 8, timeout.as_flattened())?;
    bind(&sockets[2], port + 1)?;
    listen(&sockets[2], 5)?;
    bind(&sockets[3], port + 2)?;
    listen(&sockets[3], 5)?;
    let facts = sockets.each_ref().map(Facts::of);
    let sizes = sockets.each_ref().map(|it| get(it, LEVEL, 0));
    let addresses = [0, 1, 2, 3].map(|index| address(&sockets[index]).ok());
    let before = [0, 1, 2, 3].map(|index| ready(&sockets[index]).ok());
    guest.hold()?;
    for (index, socket) in sockets.iter().enumerate() {
        facts[index].check(&format!("socket {index}"), socket)?;
        same!("size", get(socket, LEVEL, 0), sizes[index]);
        same!("address", address(socket).ok(), addresses[index]);
        same!("ready", ready(socket).ok(), before[index]);
    }
    let other = socket(SocketType::STREAM)?;
    ensure!(bind(other, port + 1).is_err(), "the port is free");
    listen(&sockets[1], 5)?;
    Ok(())
}

fn connecting(guest: &Guest) -> Check {
    let socket = socket(SocketType::STREAM)?;
    // Where there is a host, it is asked; what comes of it is never asked for.
    if connect(&socket, 2) != libc::EINPROGRESS {
        return Err(Failure::skip("no host to connect with"));
    }
    let own = address(&socket)?;
    guest.hold()?;
    same!("address", address(&socket)?, own);
    Ok(())
}
