//! Addresses, memberships and rings of packet sockets, `packet(7)`.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use crate::sockopt::{self, SocketOption};
use crate::syscall::call;

const ADD_MEMBERSHIP: i32 = 1;
const RX_RING: i32 = 5;
const TX_RING: i32 = 13;
const FANOUT: i32 = 18;

/// Longest address of a link.
pub const LONGEST_ADDRESS: usize = 32;

/// Geometry of a ring, `struct tpacket_req3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub struct Ring {
    pub block_size: u32,
    pub block_nr: u32,
    pub frame_size: u32,
    pub frame_nr: u32,
    pub retire_tmo: u32,
    pub sizeof_priv: u32,
    pub features: u32,
}

/// What a packet socket hears beyond what comes anyhow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// Interface.
    pub index: u32,
    /// Multicast, promiscuous, all of multicast, or unicast: 0 to 3.
    pub kind: u16,
    /// Address, up to [`LONGEST_ADDRESS`] bytes.
    pub address: Vec<u8>,
}

/// Binds a socket to a protocol, as the wire has it, and to an interface; 0 is all of them.
///
/// # Errors
///
/// `ENODEV` if there is no such interface.
pub fn bind(socket: impl AsFd, protocol: u16, index: u32) -> Result<()> {
    // `struct sockaddr_ll`
    let mut address = [0u8; 20];
    address[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&protocol.to_ne_bytes());
    address[4..8].copy_from_slice(&index.to_ne_bytes());
    bind_to(socket, &address)
}

/// Binds a socket of the kind `SOCK_PACKET` to an interface.
///
/// # Errors
///
/// As [`bind`].
pub fn bind_by_name(socket: impl AsFd, name: &str) -> Result<()> {
    // `struct sockaddr`
    let mut address = [0u8; 16];
    address[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
    let len = name.len().min(13);
    address[2..2 + len].copy_from_slice(&name.as_bytes()[..len]);
    bind_to(socket, &address)
}

fn bind_to(socket: impl AsFd, address: &[u8]) -> Result<()> {
    let fd = socket.as_fd().as_raw_fd() as usize;
    let args = [fd, address.as_ptr() as usize, address.len(), 0, 0, 0];
    // SAFETY: the kernel reads the address.
    unsafe { call(libc::SYS_bind as usize, args) }.map(drop)
}

/// Makes a ring for receiving or sending.
///
/// # Errors
///
/// `EINVAL` for a geometry that does not add up, `EBUSY` if it is mapped.
pub fn set_ring(socket: impl AsFd, sends: bool, ring: Ring) -> Result<()> {
    let Ring {
        block_size,
        block_nr,
        frame_size,
        frame_nr,
        retire_tmo,
        sizeof_priv,
        features,
    } = ring;
    let words = [
        block_size,
        block_nr,
        frame_size,
        frame_nr,
        retire_tmo,
        sizeof_priv,
        features,
    ];
    let name = if sends { TX_RING } else { RX_RING };
    let bytes = words.map(u32::to_ne_bytes);
    sockopt::set(socket, libc::SOL_PACKET, name, bytes.as_flattened())
}

/// Makes a socket hear more.
///
/// # Errors
///
/// `ENODEV` if there is no such interface, `EINVAL` for an address of another length.
pub fn join(socket: impl AsFd, membership: &Membership) -> Result<()> {
    // `struct packet_mreq_max`
    let mut request = [0u8; 8 + LONGEST_ADDRESS];
    let len = membership.address.len().min(LONGEST_ADDRESS);
    request[..4].copy_from_slice(&membership.index.to_ne_bytes());
    request[4..6].copy_from_slice(&membership.kind.to_ne_bytes());
    request[6..8].copy_from_slice(&(len as u16).to_ne_bytes());
    request[8..8 + len].copy_from_slice(&membership.address[..len]);
    sockopt::set(socket, libc::SOL_PACKET, ADD_MEMBERSHIP, &request)
}

/// The group that shares packets with a socket, with kind and flags of it; 0 without one, and for one of that number.
pub fn fanout(socket: impl AsFd) -> Result<u32> {
    SocketOption::PACKET_FANOUT
        .int(socket)
        .map(i32::cast_unsigned)
}

/// Shares packets with a group.
///
/// # Errors
///
/// `EINVAL` if the socket is bound to no protocol.
pub fn set_fanout(socket: impl AsFd, fanout: u32) -> Result<()> {
    sockopt::set(socket, libc::SOL_PACKET, FANOUT, &fanout.to_ne_bytes())
}
