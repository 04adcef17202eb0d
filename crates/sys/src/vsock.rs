//! Sockets between virtual machines and their hosts: `vsock(7)`.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

use crate::syscall::call;

/// `AF_VSOCK`
pub const FAMILY: u16 = libc::AF_VSOCK as u16;
/// Any machine, or any port.
pub const ANY: u32 = u32::MAX;

/// Where a socket is bound, `struct sockaddr_vm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The machine; [`ANY`] of its own.
    pub cid: u32,
    /// The port; [`ANY`] if it is not bound.
    pub port: u32,
}

/// Bytes of `struct sockaddr_vm`.
const SIZE: usize = size_of::<libc::sockaddr_vm>();

/// Where a socket is bound.
///
/// # Errors
///
/// `ENOTSOCK` for anything else.
pub fn address(socket: impl AsFd) -> Result<Address> {
    ask(socket, libc::SYS_getsockname)
}

/// Whether a socket has a connection.
///
/// # Errors
///
/// As [`address`].
pub fn is_connected(socket: impl AsFd) -> Result<bool> {
    match ask(socket, libc::SYS_getpeername) {
        Err(Errno::NOTCONN) => Ok(false),
        peer => peer.map(|_| true),
    }
}

fn ask(socket: impl AsFd, number: libc::c_long) -> Result<Address> {
    let (mut bytes, mut len) = ([0u8; SIZE], SIZE as u32);
    let fd = socket.as_fd().as_raw_fd() as usize;
    let (at, room) = (bytes.as_mut_ptr() as usize, &raw mut len as usize);
    // SAFETY: the kernel writes at most as many bytes as the length allows, and the length.
    unsafe { call(number as usize, [fd, at, room, 0, 0, 0]) }?;
    let word = |at: usize| {
        let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(ANY, |bytes| u32::from_ne_bytes(*bytes))
    };
    Ok(Address {
        cid: word(8),
        port: word(4),
    })
}

/// Binds a socket.
///
/// # Errors
///
/// `EADDRINUSE`; `EADDRNOTAVAIL` if the machine is another one.
pub fn bind(socket: impl AsFd, address: Address) -> Result<()> {
    let mut bytes = [0u8; SIZE];
    bytes[..2].copy_from_slice(&FAMILY.to_ne_bytes());
    bytes[4..8].copy_from_slice(&address.port.to_ne_bytes());
    bytes[8..12].copy_from_slice(&address.cid.to_ne_bytes());
    let fd = socket.as_fd().as_raw_fd() as usize;
    let args = [fd, bytes.as_ptr() as usize, SIZE, 0, 0, 0];
    // SAFETY: the kernel reads the address.
    unsafe { call(libc::SYS_bind as usize, args) }.map(drop)
}

const _: () = {
    assert!(SIZE == 16);
    assert!(std::mem::offset_of!(libc::sockaddr_vm, svm_port) == 4);
    assert!(std::mem::offset_of!(libc::sockaddr_vm, svm_cid) == 8);
};

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

    #[test]
    fn addresses_are_set_and_told() {
        let family = AddressFamily::from_raw(FAMILY);
        let made = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let Ok(socket) = made else {
            // The kernel does not have them.
            return;
        };
        assert_eq!(address(&socket).unwrap().port, ANY);
        assert_eq!(is_connected(&socket), Ok(false));
        let (cid, port) = (ANY, 0x1234_0000 | std::process::id() & 0xffff);
        bind(&socket, Address { cid, port }).unwrap();
        assert_eq!(address(&socket), Ok(Address { cid, port }));
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(address(&reader), Err(Errno::NOTSOCK));
    }
}
