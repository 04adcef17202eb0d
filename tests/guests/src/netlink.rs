//! Netlink sockets.
//!
//! `netlink`: bound and not, connected, in groups, with options; they still ask and hear. `netlink-unread`: with
//! something to be read.

use crate::Entry;
use crate::inet::{Facts, set};
use crate::os::os;
use crate::protocol::{Check, Guest, ensure, same};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub(crate) const GUESTS: &[Entry] = &[Entry("netlink", netlink), Entry("netlink-unread", unread)];

/// `NETLINK_ROUTE` is number 0.
const ROUTE: Option<rustix::net::Protocol> = None;

fn socket(kind: SocketType, protocol: Option<rustix::net::Protocol>) -> Check<OwnedFd> {
    Ok(socket_with(
        AddressFamily::NETLINK,
        kind,
        SocketFlags::CLOEXEC,
        protocol,
    )?)
}

/// Family, port and first groups.
fn address(socket: impl AsFd) -> Check<[u32; 3]> {
    let (mut words, mut len) = ([0u32; 3], 12u32);
    let fd = socket.as_fd().as_raw_fd();
    os!(libc::getsockname(
        fd,
        words.as_mut_ptr().cast(),
        &raw mut len
    ))?;
    Ok(words)
}

fn bind(socket: impl AsFd, port: u32, groups: u32) -> Check {
    let words = [16, port, groups];
    os!(libc::bind(
        socket.as_fd().as_raw_fd(),
        words.as_ptr().cast(),
        12
    ))?;
    Ok(())
}

/// Asks for the loopback interface.
fn ask(socket: impl AsFd) -> Check {
    const RTM_GETLINK: u16 = 18;
    let mut message = vec![0u8; 32];
    message[0] = 32;
    message[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    message[6] = 1;
    message[20] = 1;
    send(socket, &message, SendFlags::empty())?;
    Ok(())
}

fn answer(socket: impl AsFd) -> Check {
    let mut buffer = [0; 8192];
    let (got, _) = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
    ensure!(got > 40, "an answer of {got} bytes");
    same!("interface", buffer[20], 1);
    Ok(())
}

fn netlink(guest: &Guest) -> Check {
    let sockets = [
        socket(SocketType::RAW, ROUTE)?,
        socket(SocketType::DGRAM, ROUTE)?,
        socket(SocketType::RAW, Some(rustix::net::netlink::GENERIC))?,
        socket(SocketType::RAW, Some(rustix::net::netlink::KOBJECT_UEVENT))?,
    ];
    // Groups in which nobody says anything: what was of DECnet, and that of udev.
    bind(&sockets[0], 0, 1 << 12 | 1 << 14)?;
    set(&sockets[0], libc::SOL_NETLINK, 1, 33)?;
    for (name, value) in [(3, 1), (5, 1), (10, 1), (11, 1), (12, 1)] {
        set(&sockets[1], libc::SOL_NETLINK, name, value)?;
    }
    set(&sockets[1], libc::SOL_SOCKET, libc::SO_RCVBUF, 99_000)?;
    bind(&sockets[2], std::process::id() | 1 << 30, 0)?;
    bind(&sockets[3], 0, 2)?;
    ask(&sockets[1])?;
    answer(&sockets[1])?;
    let facts = sockets.each_ref().map(Facts::of);
    let addresses = sockets.each_ref().map(|it| address(it).ok());
    guest.hold()?;
    for (index, socket) in sockets.iter().enumerate() {
        facts[index].check(&format!("socket {index}"), socket)?;
        same!("address", address(socket).ok(), addresses[index]);
    }
    ask(&sockets[0])?;
    answer(&sockets[0])?;
    ask(&sockets[1])?;
    answer(&sockets[1])
}

fn unread(guest: &Guest) -> Check {
    let socket = socket(SocketType::RAW, ROUTE)?;
    ask(&socket)?;
    guest.hold()?;
    answer(&socket)
}
