//! Addresses and groups of netlink sockets, and what is said over them, `netlink(7)`.

pub mod channel;
pub mod message;
pub mod route;

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

use crate::sockopt;
use crate::syscall::call;

const ADD_MEMBERSHIP: i32 = 1;
const LIST_MEMBERSHIPS: i32 = 9;
/// Bytes of `struct sockaddr_nl`.
const ADDRESS: usize = 12;

/// Who a netlink socket is, or to whom it sends: `struct sockaddr_nl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Address {
    /// Its port; 0 is none, or the kernel's.
    pub port: u32,
    /// Groups 1 to 32, as bits.
    pub groups: u32,
}

/// The socket's own address.
///
/// # Errors
///
/// `EINVAL` if it is no netlink socket.
pub fn address(socket: impl AsFd) -> Result<Address> {
    ask(socket, libc::SYS_getsockname)
}

/// To whom it sends.
///
/// # Errors
///
/// As [`address`].
pub fn peer(socket: impl AsFd) -> Result<Address> {
    ask(socket, libc::SYS_getpeername)
}

/// Gives it a port.
///
/// # Errors
///
/// `EADDRINUSE` if another socket has it.
pub fn bind(socket: impl AsFd, address: Address) -> Result<()> {
    tell(socket, libc::SYS_bind, address)
}

/// Sets to whom it sends.
pub fn connect(socket: impl AsFd, address: Address) -> Result<()> {
    tell(socket, libc::SYS_connect, address)
}

/// Groups that it hears: bit n of word m is group 32m + n + 1.
pub fn groups(socket: impl AsFd) -> Result<Vec<u32>> {
    /// No protocol has more.
    const ROOM: usize = 1024;
    let bytes = sockopt::get(socket, libc::SOL_NETLINK, LIST_MEMBERSHIPS, ROOM)?;
    let words = bytes.chunks_exact(4);
    Ok(words
        .filter_map(|word| word.try_into().ok().map(u32::from_ne_bytes))
        .collect())
}

/// Makes it hear a group.
///
/// # Errors
///
/// `EPERM` for groups that take a right, `EINVAL` for one that is not there.
pub fn join(socket: impl AsFd, group: u32) -> Result<()> {
    sockopt::set(
        socket,
        libc::SOL_NETLINK,
        ADD_MEMBERSHIP,
        &group.to_ne_bytes(),
    )
}

fn ask(socket: impl AsFd, nr: libc::c_long) -> Result<Address> {
    let mut words = [0u32; ADDRESS / 4];
    let mut len = ADDRESS as u32;
    let fd = socket.as_fd().as_raw_fd() as usize;
    let (at, size) = (words.as_mut_ptr() as usize, &raw mut len as usize);
    // SAFETY: the kernel writes at most as many bytes as the length allows, and the length.
    unsafe { call(nr as usize, [fd, at, size, 0, 0, 0]) }?;
    let family = (words[0] & 0xffff) as i32;
    match family == libc::AF_NETLINK && len as usize >= ADDRESS {
        true => Ok(Address {
            port: words[1],
            groups: words[2],
        }),
        false => Err(Errno::INVAL),
    }
}

fn tell(socket: impl AsFd, nr: libc::c_long, address: Address) -> Result<()> {
    let words = [libc::AF_NETLINK as u32, address.port, address.groups];
    let fd = socket.as_fd().as_raw_fd() as usize;
    // SAFETY: the kernel reads the address.
    unsafe { call(nr as usize, [fd, words.as_ptr() as usize, ADDRESS, 0, 0, 0]) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

    #[test]
    fn addresses_and_groups_come_back() {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let make = || socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        let socket = make();
        assert_eq!(address(&socket), Ok(Address::default()));
        let mine = Address {
            port: 0x7fff_0000 | std::process::id() & 0xffff,
            groups: 0,
        };
        bind(&socket, mine).unwrap();
        join(&socket, 1).unwrap();
        join(&socket, 33).unwrap();
        let seen = address(&socket).unwrap();
        assert_eq!((seen.port, seen.groups), (mine.port, 1));
        let groups = groups(&socket).unwrap();
        assert_eq!((groups[0], groups[1] & 1), (1, 1));
        assert_eq!(bind(make(), mine), Err(Errno::ADDRINUSE));
        let to = Address { port: 5, groups: 0 };
        connect(&socket, to).unwrap();
        assert_eq!(peer(&socket), Ok(to));
        let other = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert_eq!(address(&other), Err(Errno::INVAL));
    }
}
