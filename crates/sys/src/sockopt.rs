//! Options of sockets that rustix does not have: `getsockopt(2)`, `setsockopt(2)`; at the level `SOL_SOCKET` where
//! nothing else is said.

mod inet;

use std::mem::{offset_of, size_of_val};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};

use crate::syscall::call;

pub use self::inet::{OPTIONS, SocketOption};

/// An option whose value is an `int`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IntOption(i32);

#[expect(missing_docs, reason = "the names are those of socket(7)")]
impl IntOption {
    pub const REUSEADDR: Self = Self(2);
    pub const TYPE: Self = Self(3);
    /// Asking takes it away.
    pub const ERROR: Self = Self(4);
    pub const DONTROUTE: Self = Self(5);
    pub const BROADCAST: Self = Self(6);
    pub const SNDBUF: Self = Self(7);
    pub const RCVBUF: Self = Self(8);
    pub const KEEPALIVE: Self = Self(9);
    pub const OOBINLINE: Self = Self(10);
    pub const NO_CHECK: Self = Self(11);
    pub const PRIORITY: Self = Self(12);
    pub const REUSEPORT: Self = Self(15);
    pub const PASSCRED: Self = Self(16);
    pub const RCVLOWAT: Self = Self(18);
    /// Whether it listens.
    pub const ACCEPTCONN: Self = Self(30);
    pub const SNDBUFFORCE: Self = Self(32);
    pub const RCVBUFFORCE: Self = Self(33);
    pub const PASSSEC: Self = Self(34);
    pub const MARK: Self = Self(36);
    pub const DOMAIN: Self = Self(39);
    pub const PEEK_OFF: Self = Self(42);
    pub const BUF_LOCK: Self = Self(72);
    pub const PASSPIDFD: Self = Self(76);
}

/// `SO_GET_FILTER` to ask, `SO_ATTACH_FILTER` to set.
const FILTER: i32 = 26;

/// Instructions that a filter may have, `BPF_MAXINSNS`.
const LONGEST_FILTER: usize = 4096;

/// The value of an option.
///
/// # Errors
///
/// `ENOPROTOOPT` if the kernel or the kind of socket does not know it, `ENOTSOCK` for anything else.
pub fn int(socket: impl AsFd, option: IntOption) -> Result<i32> {
    let mut value = 0i32;
    let mut len = size_of_val(&value) as u32;
    let args = arguments(
        &socket,
        option.0,
        &raw mut value as usize,
        &raw mut len as usize,
    );
    // SAFETY: the kernel writes at most the `int` that the length allows, and the length.
    unsafe { call(libc::SYS_getsockopt as usize, args) }?;
    Ok(value)
}

/// Process, user and group that a socket is connected with, or that listen: `SO_PEERCRED`. Without any the pid
/// is 0 and the others are -1.
pub fn peer(socket: impl AsFd) -> Result<(i32, u32, u32)> {
    const PEERCRED: i32 = 17;
    let mut words = [0u32; 3];
    let mut len = size_of_val(&words) as u32;
    let (value, room) = (words.as_mut_ptr() as usize, &raw mut len as usize);
    let args = arguments(&socket, PEERCRED, value, room);
    // SAFETY: the kernel writes at most the three words that the length allows, and the length.
    unsafe { call(libc::SYS_getsockopt as usize, args) }?;
    Ok((words[0].cast_signed(), words[1], words[2]))
}

/// Sets an option.
///
/// # Errors
///
/// As [`int`]; `EPERM` for what takes `CAP_NET_ADMIN`.
pub fn set_int(socket: impl AsFd, option: IntOption, value: i32) -> Result<()> {
    let args = arguments(
        &socket,
        option.0,
        &raw const value as usize,
        size_of_val(&value),
    );
    // SAFETY: the kernel reads one `int`.
    unsafe { call(libc::SYS_setsockopt as usize, args) }.map(drop)
}

/// One instruction of a classic filter, `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// `struct sock_fprog`
#[repr(C)]
struct Program {
    len: u16,
    filter: usize,
}

const _: () = {
    assert!(size_of::<Instruction>() == 8);
    assert!(size_of::<Program>() == 16);
    assert!(offset_of!(Program, filter) == 8);
};

/// The classic filter attached to a socket; empty if it has none.
///
/// # Errors
///
/// `EACCES` if it is not a classic one.
pub fn filter(socket: impl AsFd) -> Result<Vec<Instruction>> {
    // Without room for any the kernel tells how many there are.
    let count = filter_into(&socket, &mut [])?;
    let mut filter = vec![Instruction::default(); count.min(LONGEST_FILTER)];
    if !filter.is_empty() {
        let count = filter_into(&socket, &mut filter)?;
        filter.truncate(count);
    }
    Ok(filter)
}

/// Asks for a filter; returns its length.
fn filter_into(socket: impl AsFd, filter: &mut [Instruction]) -> Result<usize> {
    // It is counted in instructions.
    let mut len = filter.len() as u32;
    let args = arguments(
        &socket,
        FILTER,
        filter.as_mut_ptr() as usize,
        &raw mut len as usize,
    );
    // SAFETY: the kernel writes at most as many instructions as it is told to have room for.
    unsafe { call(libc::SYS_getsockopt as usize, args) }.map(|_| len as usize)
}

/// Attaches a classic filter.
///
/// # Errors
///
/// `EINVAL` for a program that the kernel does not take.
pub fn attach_filter(socket: impl AsFd, filter: &[Instruction]) -> Result<()> {
    let program = Program {
        len: u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?,
        filter: filter.as_ptr() as usize,
    };
    let (value, len) = (&raw const program as usize, size_of_val(&program));
    let args = arguments(&socket, FILTER, value, len);
    // SAFETY: the kernel reads the program, and the instructions that it points to.
    unsafe { call(libc::SYS_setsockopt as usize, args) }.map(drop)
}

/// The value of an option that is no number, as far as `room` allows.
pub(crate) fn get(socket: impl AsFd, level: i32, name: i32, room: usize) -> Result<Vec<u8>> {
    let mut value = vec![0; room];
    let mut len = room as u32;
    let fd = socket.as_fd().as_raw_fd() as usize;
    let (at, size) = (value.as_mut_ptr() as usize, &raw mut len as usize);
    let args = [fd, level as usize, name as usize, at, size, 0];
    // SAFETY: the kernel writes at most as many bytes as the length allows, and the length.
    unsafe { call(libc::SYS_getsockopt as usize, args) }?;
    value.truncate(len as usize);
    Ok(value)
}

/// The same of one that is asked for with a value, which is replaced by the answer.
pub(crate) fn ask(socket: impl AsFd, level: i32, name: i32, value: &mut [u8]) -> Result<()> {
    let mut len = value.len() as u32;
    let fd = socket.as_fd().as_raw_fd() as usize;
    let (at, size) = (value.as_mut_ptr() as usize, &raw mut len as usize);
    let args = [fd, level as usize, name as usize, at, size, 0];
    // SAFETY: the kernel reads and writes at most as many bytes as the length says, and the length.
    unsafe { call(libc::SYS_getsockopt as usize, args) }.map(drop)
}

/// Sets such an option.
pub(crate) fn set(socket: impl AsFd, level: i32, name: i32, value: &[u8]) -> Result<()> {
    let fd = socket.as_fd().as_raw_fd() as usize;
    let (at, len) = (value.as_ptr() as usize, value.len());
    let args = [fd, level as usize, name as usize, at, len, 0];
    // SAFETY: the kernel reads the bytes of the value; no option that is set this way holds an address.
    unsafe { call(libc::SYS_setsockopt as usize, args) }.map(drop)
}

/// `SO_BINDTODEVICE`: name of the network interface that a socket is bound to; empty if it is bound to none.
pub fn device(socket: impl AsFd) -> Result<Vec<u8>> {
    const LONGEST: usize = 16;
    let mut name = get(socket, libc::SOL_SOCKET, BINDTODEVICE, LONGEST)?;
    name.truncate(
        name.iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len()),
    );
    Ok(name)
}

/// Whom an internet socket is connected with, or was, or is about to be: `SO_PEERNAME`, which tells more than
/// `getpeername(2)`.
///
/// # Errors
///
/// `ENOTCONN` if there was never anybody.
pub fn peer_name(socket: impl AsFd) -> Result<Option<SocketAddr>> {
    const PEERNAME: i32 = 28;
    // Bytes of `struct sockaddr_in6` and `struct sockaddr_in`: the kernel wants no more room than it needs.
    let bytes = match get(&socket, libc::SOL_SOCKET, PEERNAME, 28) {
        Err(Errno::INVAL) => get(&socket, libc::SOL_SOCKET, PEERNAME, 16),
        bytes => bytes,
    };
    Ok(address(&bytes?))
}

/// Understands `struct sockaddr_in` and `struct sockaddr_in6`.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(bytes.first_chunk().copied()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    if family == libc::AF_INET {
        let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
        return Some(SocketAddrV4::new(ip.into(), port).into());
    }
    let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
    let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
    (family == libc::AF_INET6).then(|| SocketAddrV6::new(ip.into(), port, 0, scope).into())
}

/// The network namespace of a socket, as a descriptor of its file: `SIOCGSKNS`.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` there.
pub fn network(socket: impl AsFd) -> Result<OwnedFd> {
    const SIOCGSKNS: usize = 0x894c;
    let fd = socket.as_fd().as_raw_fd() as usize;
    // SAFETY: the request takes no address.
    let network = unsafe { call(libc::SYS_ioctl as usize, [fd, SIOCGSKNS, 0, 0, 0, 0]) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(network as RawFd) })
}

/// Binds a socket to a network interface.
///
/// # Errors
///
/// `ENODEV` if there is none of that name.
pub fn bind_to_device(socket: impl AsFd, name: &[u8]) -> Result<()> {
    set(socket, libc::SOL_SOCKET, BINDTODEVICE, name)
}

const BINDTODEVICE: i32 = 25;

/// The protocol of a socket: `SO_PROTOCOL`.
pub fn protocol(socket: impl AsFd) -> Result<i32> {
    int(socket, IntOption(38))
}

fn arguments(socket: &impl AsFd, option: i32, value: usize, len: usize) -> [usize; 6] {
    let fd = socket.as_fd().as_raw_fd() as usize;
    [
        fd,
        libc::SOL_SOCKET as usize,
        option as usize,
        value,
        len,
        0,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn options_are_set_and_told() {
        let socket = UnixDatagram::unbound().unwrap();
        assert_eq!(int(&socket, IntOption::DOMAIN), Ok(libc::AF_UNIX));
        assert_eq!(int(&socket, IntOption::PEEK_OFF), Ok(-1));
        set_int(&socket, IntOption::PEEK_OFF, 7).unwrap();
        assert_eq!(int(&socket, IntOption::PEEK_OFF), Ok(7));
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(int(&reader, IntOption::DOMAIN), Err(Errno::NOTSOCK));
    }

    #[test]
    fn a_peer_is_known_before_it_answers() {
        use std::net::UdpSocket;
        let peers = ["127.0.0.1:9", "[::1]:9"].map(|peer| peer.parse::<SocketAddr>().unwrap());
        for (own, peer) in ["127.0.0.1:0", "[::1]:0"].into_iter().zip(peers) {
            let socket = UdpSocket::bind(own).unwrap();
            assert_eq!(peer_name(&socket), Err(Errno::NOTCONN));
            socket.connect(peer).unwrap();
            assert_eq!(peer_name(&socket), Ok(Some(peer)));
        }
        assert_eq!(address(&[2, 0, 1, 0, 127]), None);
    }

    #[test]
    fn a_device_is_told() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(device(&socket), Ok(Vec::new()));
        if bind_to_device(&socket, b"lo") != Err(Errno::PERM) {
            assert_eq!(device(&socket).as_deref(), Ok(&b"lo"[..]));
        }
    }

    #[test]
    fn a_filter_comes_back_as_it_was() {
        let socket = UnixDatagram::unbound().unwrap();
        assert_eq!(filter(&socket), Ok(Vec::new()));
        let accept = Instruction {
            code: 6,
            k: 0xffff,
            ..Instruction::default()
        };
        attach_filter(&socket, &[accept]).unwrap();
        assert_eq!(filter(&socket), Ok(vec![accept]));
        assert_eq!(attach_filter(&socket, &[]), Err(Errno::INVAL));
    }
}
