//! What guests with internet sockets have in common: addresses of their own, and every option that can be asked for.

use crate::os::errno;
use crate::protocol::{Check, Failure, same};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, getsockname, socket_with,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub(crate) const TCP: u32 = 6;
pub(crate) const UDP: u32 = 17;
pub(crate) const UDPLITE: u32 = 136;
pub(crate) const MPTCP: u32 = 262;

/// An address of the loopback network that no other guest uses, with any port.
pub(crate) fn own() -> SocketAddr {
    let pid = std::process::id();
    let [_, a, b, c] = (pid & 0x7f_ffff).to_be_bytes();
    (Ipv4Addr::new(127, a | 0x40, b, c.max(2)), 0).into()
}

/// A socket.
pub(crate) fn socket(family: AddressFamily, kind: SocketType, protocol: u32) -> Check<OwnedFd> {
    let protocol = NonZeroU32::new(protocol).map(Protocol::from_raw);
    match socket_with(family, kind, SocketFlags::CLOEXEC, protocol) {
        Err(errno @ (Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT)) => {
            Err(Failure::skip(format!("{family:?} {protocol:?}: {errno}")))
        }
        made => Ok(made?),
    }
}

/// The same of a family that an address has, bound to it.
pub(crate) fn bound(kind: SocketType, protocol: u32, address: SocketAddr) -> Check<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket(family, kind, protocol)?;
    bind(&socket, &address)?;
    Ok(socket)
}

/// Where a socket is bound.
pub(crate) fn address(socket: impl AsFd) -> Check<SocketAddr> {
    Ok(getsockname(socket)?.try_into()?)
}

pub(crate) fn set(socket: impl AsFd, level: i32, name: i32, value: i32) -> Check {
    set_bytes(socket, level, name, &value.to_ne_bytes())
}

pub(crate) fn set_bytes(socket: impl AsFd, level: i32, name: i32, value: &[u8]) -> Check {
    let fd = socket.as_fd().as_raw_fd();
    let (at, len) = (value.as_ptr(), value.len() as u32);
    // SAFETY: the kernel reads the bytes of the value.
    let set = unsafe { libc::setsockopt(fd, level, name, at.cast(), len) };
    match set {
        0 => Ok(()),
        _ => Err(Failure::new(format!(
            "setsockopt {level}/{name}: errno {}",
            errno()
        ))),
    }
}

/// The value of an option, or the errno instead.
pub(crate) fn get(socket: impl AsFd, level: i32, name: i32) -> Answer {
    let (mut value, mut len) = ([0u8; 128], 128u32);
    let (fd, at) = (socket.as_fd().as_raw_fd(), value.as_mut_ptr());
    // SAFETY: the kernel writes up to as many bytes as the length says.
    match unsafe { libc::getsockopt(fd, level, name, at.cast(), &raw mut len) } {
        0 => Ok(value[..len as usize].to_vec()),
        _ => Err(errno()),
    }
}

/// Everything that can be asked about a socket and does not change by itself.
pub(crate) struct Facts(Vec<((i32, i32), Answer)>);

/// The value of an option, or an errno.
type Answer = Result<Vec<u8>, i32>;

impl Facts {
    pub(crate) fn of(socket: impl AsFd) -> Self {
        /// Levels, and the last option of each.
        const LEVELS: [(i32, i32); 11] = [
            (libc::SOL_SOCKET, 85),
            (libc::SOL_IP, 55),
            (libc::SOL_TCP, 48),
            (libc::SOL_UDP, 105),
            (libc::SOL_IPV6, 82),
            (58, 1),
            (136, 12),
            (255, 1),
            (libc::SOL_PACKET, 24),
            (libc::SOL_NETLINK, 12),
            (libc::AF_VSOCK, 8),
        ];
        let all = LEVELS
            .into_iter()
            .flat_map(|(level, last)| (1..=last).map(move |name| (level, name)));
        let asked = all.filter(|(level, name)| !changes(*level, *name));
        Self(
            asked
                .map(|(level, name)| ((level, name), get(&socket, level, name)))
                .collect(),
        )
    }

    /// Without an option.
    pub(crate) fn without(mut self, level: i32, name: i32) -> Self {
        self.0.retain(|(option, _)| *option != (level, name));
        self
    }

    /// Compares them with those of now.
    pub(crate) fn check(&self, what: &str, socket: impl AsFd) -> Check {
        for ((level, name), value) in &self.0 {
            let now = get(&socket, *level, *name);
            same!(format!("{what}: option {level}/{name}"), now, *value);
        }
        Ok(())
    }
}

/// Options that tell of an object, of time, of the processor, or of the last moments of a connection.
fn changes(level: i32, name: i32) -> bool {
    const OF_SOCKET: [i32; 7] = [4, 17, 49, 55, 56, 57, 77];
    const OF_TCP: [i32; 5] = [11, 12, 24, 26, 33];
    match level {
        libc::SOL_SOCKET => OF_SOCKET.contains(&name),
        libc::SOL_TCP => OF_TCP.contains(&name),
        // What is in the way of a packet.
        libc::SOL_IP => name == 14,
        libc::SOL_IPV6 => name == 24,
        // Statistics, which a look resets.
        libc::SOL_PACKET => [6, 21].contains(&name),
        _ => false,
    }
}

/// Sends something to an address and hears it there.
pub(crate) fn hear(what: &str, from: impl AsFd, to: impl AsFd, at: SocketAddr) -> Check {
    rustix::net::sendto(from, what.as_bytes(), rustix::net::SendFlags::empty(), &at)?;
    heard(what, to)
}

/// Waits a moment for something to come.
#[track_caller]
pub(crate) fn heard(what: &str, at: impl AsFd) -> Check {
    let mut buffer = [0; 256];
    let timeout = rustix::event::Timespec {
        tv_sec: 3,
        tv_nsec: 0,
    };
    let mut fds = [rustix::event::PollFd::new(
        &at,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, Some(&timeout))?;
    let heard = rustix::net::recv(&at, &mut buffer[..], RecvFlags::DONTWAIT);
    let (got, _) = heard.map_err(|errno| Failure::new(format!("hearing {what:?}: {errno}")))?;
    same!("heard", String::from_utf8_lossy(&buffer[..got]), what);
    Ok(())
}
