//! Packet sockets.
//!
//! `packet`: bound and not, with memberships, a group, rings that are not mapped, options; they still hear.
//! `packet-mapped`: with rings that are mapped, and in use.

use crate::Entry;
use crate::inet::{Facts, set, set_bytes};
use crate::os::{Map, os};
use crate::protocol::{Check, Failure, Guest, ensure, same, until};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub(crate) const GUESTS: &[Entry] = &[Entry("packet", packet), Entry("packet-mapped", mapped)];

/// The loopback interface.
const LO: u32 = 1;
/// IPv4, as the wire has it.
const IP: u16 = 0x0800u16.to_be();

fn socket(kind: SocketType) -> Check<OwnedFd> {
    match socket_with(AddressFamily::PACKET, kind, SocketFlags::CLOEXEC, None) {
        Err(errno @ (Errno::PERM | Errno::AFNOSUPPORT)) => Err(Failure::skip(errno)),
        made => Ok(made?),
    }
}

fn bind(socket: impl AsFd, protocol: u16) -> Check {
    let mut address = [0u8; 20];
    address[..2].copy_from_slice(&17u16.to_ne_bytes());
    address[2..4].copy_from_slice(&protocol.to_ne_bytes());
    address[4..8].copy_from_slice(&LO.to_ne_bytes());
    os!(libc::bind(
        socket.as_fd().as_raw_fd(),
        address.as_ptr().cast(),
        20
    ))?;
    Ok(())
}

fn address(socket: impl AsFd) -> Check<[u8; 8]> {
    let (mut bytes, mut len) = ([0u8; 20], 20u32);
    let fd = socket.as_fd().as_raw_fd();
    os!(libc::getsockname(
        fd,
        bytes.as_mut_ptr().cast(),
        &raw mut len
    ))?;
    Ok(*bytes.first_chunk().ok_or("no address")?)
}

/// `struct packet_mreq` for everything that passes the interface.
fn promiscuous() -> Vec<u8> {
    [&LO.to_ne_bytes()[..], &1u16.to_ne_bytes(), &[0; 10]].concat()
}

fn packet(guest: &Guest) -> Check {
    const ADD: i32 = 1;
    const RX_RING: i32 = 5;
    const TX_RING: i32 = 13;
    const FANOUT: i32 = 18;
    let sockets = [
        socket(SocketType::RAW)?,
        socket(SocketType::DGRAM)?,
        socket(SocketType::RAW)?,
    ];
    bind(&sockets[0], IP)?;
    set_bytes(&sockets[0], libc::SOL_PACKET, ADD, &promiscuous())?;
    set(&sockets[0], libc::SOL_PACKET, 8, 1)?;
    set(&sockets[0], libc::SOL_PACKET, 23, 1)?;
    set(&sockets[0], libc::SOL_PACKET, 23, 0)?;
    set(&sockets[0], libc::SOL_SOCKET, libc::SO_RCVBUF, 99_000)?;
    bind(&sockets[1], IP)?;
    set(&sockets[1], libc::SOL_PACKET, 9, 1)?;
    set(&sockets[1], libc::SOL_PACKET, 20, 1)?;
    let group = std::process::id() & 0xffff;
    set(&sockets[1], libc::SOL_PACKET, FANOUT, group.cast_signed())?;
    set(&sockets[2], libc::SOL_PACKET, 10, 1)?;
    set(&sockets[2], libc::SOL_PACKET, 12, 32)?;
    let ring = [4096u32, 2, 1024, 8].map(u32::to_ne_bytes).concat();
    set_bytes(&sockets[2], libc::SOL_PACKET, RX_RING, &ring)?;
    set_bytes(&sockets[2], libc::SOL_PACKET, TX_RING, &ring)?;
    let facts = sockets.each_ref().map(Facts::of);
    let addresses = sockets.each_ref().map(|it| address(it).ok());
    guest.hold()?;
    for (index, socket) in sockets.iter().enumerate() {
        facts[index].check(&format!("socket {index}"), socket)?;
        same!("address", address(socket).ok(), addresses[index]);
    }
    // A ring that is not mapped can be taken away.
    set_bytes(&sockets[2], libc::SOL_PACKET, RX_RING, &[0; 16])?;
    // Others talk by this interface all the time; if nobody does, this does.
    let talk = std::net::UdpSocket::bind("127.0.0.1:0")?;
    talk.send_to(b"heard", talk.local_addr()?)?;
    let (got, _) = recv(&sockets[0], &mut [0; 2048][..], RecvFlags::DONTWAIT)?;
    ensure!(got > 20, "a packet of {got} bytes");
    Ok(())
}

fn mapped(guest: &Guest) -> Check {
    const RX_RING: i32 = 5;
    const TP_STATUS_USER: u64 = 1;
    let socket = socket(SocketType::RAW)?;
    let ring = [4096u32, 2, 1024, 8].map(u32::to_ne_bytes).concat();
    set_bytes(&socket, libc::SOL_PACKET, RX_RING, &ring)?;
    let map = Map::new(
        8192,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED,
        socket.as_raw_fd(),
        0,
    )?;
    guest.hold()?;
    bind(&socket, IP)?;
    let talk = std::net::UdpSocket::bind("127.0.0.1:0")?;
    until("a packet in the ring", || {
        talk.send_to(b"heard", talk.local_addr()?)?;
        Ok(map.get(0) & TP_STATUS_USER != 0)
    })
}
