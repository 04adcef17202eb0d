//! Probes of what the kernel tells and does about sockets.

use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use rustix::io::{Errno, Result};

use super::{Reason, Support};
use crate::syscall::call;

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// `SIOCGSKNS` of `linux/sockios.h`: a descriptor of the network namespace of a socket or a tun device.
pub(super) fn namespace_of(socket: impl AsFd) -> Result<OwnedFd> {
    const SIOCGSKNS: usize = 0x894c;
    descriptor_from(socket, SIOCGSKNS)
}

/// An ioctl that takes nothing and returns a new descriptor.
fn descriptor_from(socket: impl AsFd, request: usize) -> Result<OwnedFd> {
    let args = [socket.as_fd().as_raw_fd() as usize, request, 0, 0, 0, 0];
    // SAFETY: the requests used here take no address.
    let fd = unsafe { call(libc::SYS_ioctl as usize, args) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn set_option(socket: impl AsFd, level: i32, name: i32, value: i32) -> Result<()> {
    let fd = socket.as_fd().as_raw_fd() as usize;
    let value = &raw const value as usize;
    let args = [
        fd,
        level as usize,
        name as usize,
        value,
        size_of::<i32>(),
        0,
    ];
    // SAFETY: the kernel reads one `int`.
    unsafe { call(libc::SYS_setsockopt as usize, args) }.map(drop)
}

pub(super) fn sk_ns() -> Support {
    UnixDatagram::unbound()
        .map_err(errno)
        .and_then(namespace_of)
        .into()
}

/// A socket that has no file gives `ENOENT`.
pub(super) fn sk_unix_file() -> Support {
    const SIOCUNIXFILE: usize = 0x89e0;
    let ask = UnixDatagram::unbound().map_err(errno);
    match ask.and_then(|socket| descriptor_from(socket, SIOCUNIXFILE)) {
        Ok(_) | Err(Errno::NOENT) => Support::Yes,
        Err(errno) => Support::No(Reason::Errno(errno)),
    }
}

pub(super) fn buf_lock() -> Support {
    const SO_BUF_LOCK: i32 = 72;
    let socket = UnixDatagram::unbound().map_err(errno);
    socket
        .and_then(|socket| set_option(socket, libc::SOL_SOCKET, SO_BUF_LOCK, 0))
        .into()
}

pub(super) fn ipv6_freebind() -> Support {
    const IPV6_FREEBIND: i32 = 78;
    let socket = UdpSocket::bind("[::1]:0").map_err(errno);
    socket
        .and_then(|socket| set_option(socket, libc::SOL_IPV6, IPV6_FREEBIND, 1))
        .into()
}

const TCP_REPAIR: i32 = 19;

fn set_repair(socket: impl AsFd, on: bool) -> Result<()> {
    set_option(socket, libc::SOL_TCP, TCP_REPAIR, i32::from(on))
}

/// A connection of the caller to itself, both ends.
fn connection() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(errno)?;
    let address = listener.local_addr().map_err(errno)?;
    let client = TcpStream::connect(address).map_err(errno)?;
    let (server, _) = listener.accept().map_err(errno)?;
    Ok((client, server))
}

pub(super) fn tcp_repair() -> Support {
    connection()
        .and_then(|(client, _server)| set_repair(&client, true).and(set_repair(&client, false)))
        .into()
}

pub(super) fn tcp_half_closed() -> Support {
    let repair = || {
        let (client, _server) = connection()?;
        client.shutdown(Shutdown::Write).map_err(errno)?;
        set_repair(&client, true)?;
        set_repair(&client, false)
    };
    repair().into()
}

/// Sends one netlink message and returns the type of the first answer and, if that is an error, its errno.
fn netlink(protocol: i32, message: &[u8]) -> Result<()> {
    let kind = (libc::SOCK_RAW | libc::SOCK_CLOEXEC) as usize;
    let args = [libc::AF_NETLINK as usize, kind, protocol as usize, 0, 0, 0];
    // SAFETY: socket takes three numbers.
    let fd = unsafe { call(libc::SYS_socket as usize, args) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    rustix::io::write(&fd, message)?;
    let mut answer = [0u8; 4096];
    let len = rustix::io::read(&fd, &mut answer)?;
    let word = |at: usize| {
        answer[..len]
            .get(at..at + 4)
            .and_then(|word| word.try_into().ok())
    };
    let kind = word(4).map(|word: [u8; 4]| u16::from_ne_bytes([word[0], word[1]]));
    match (kind, word(16).map(i32::from_ne_bytes)) {
        (Some(kind), Some(error)) if i32::from(kind) == libc::NLMSG_ERROR && error < 0 => {
            Err(Errno::from_raw_os_error(-error))
        }
        (Some(_), _) => Ok(()),
        _ => Err(Errno::BADMSG),
    }
}

/// `struct nlmsghdr` and `body`.
fn message(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(flags as u16).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

/// Lists the raw sockets of both families, as `struct inet_diag_req_v2` asks.
pub(super) fn diag_raw() -> Support {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    let list = |family: i32| {
        let mut request = [0u8; 56];
        request[0] = family as u8;
        request[1] = libc::IPPROTO_RAW as u8;
        request[4..8].fill(0xff);
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        netlink(
            libc::NETLINK_SOCK_DIAG,
            &message(SOCK_DIAG_BY_FAMILY, flags, &request),
        )
    };
    list(libc::AF_INET).and(list(libc::AF_INET6)).into()
}

/// Asks for the id of the caller's own network namespace, by pid.
pub(super) fn nsid() -> Support {
    const RTM_GETNSID: u16 = 90;
    const NETNSA_PID: u16 = 2;
    let mut request = vec![0u8; 4];
    request.extend_from_slice(&8u16.to_ne_bytes());
    request.extend_from_slice(&NETNSA_PID.to_ne_bytes());
    request.extend_from_slice(&rustix::process::getpid().as_raw_pid().to_ne_bytes());
    netlink(
        libc::NETLINK_ROUTE,
        &message(RTM_GETNSID, libc::NLM_F_REQUEST, &request),
    )
    .into()
}

/// Both came with Linux 4.0; making a pair of links to look at one would be no mere probe.
pub(super) fn link_nsid() -> Support {
    nsid()
}

/// It came with Linux 5.14; no kernel says so before a link is moved.
pub(super) fn new_index() -> Support {
    nsid()
}

/// Needs nothing of the kernel but network namespaces.
pub(super) fn external_net_ns() -> Support {
    Support::when(
        std::path::Path::new("/proc/self/ns/net").exists(),
        "no network namespaces",
    )
}
