//! Options of internet sockets, and of netlink, packet and vsock sockets, that can be asked for and set again, at every level.

use std::os::fd::AsFd;

use rustix::io::Result;

/// An option of an internet socket. A value is as many bytes as the kernel tells of it, an `int` mostly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketOption {
    level: i32,
    name: i32,
    room: usize,
}

/// An option whose value is an `int`.
const fn int(level: i32, name: i32) -> SocketOption {
    bytes(level, name, size_of::<i32>())
}

/// An option whose value has up to so many bytes.
const fn bytes(level: i32, name: i32, room: usize) -> SocketOption {
    SocketOption { level, name, room }
}

const SOCKET: i32 = libc::SOL_SOCKET;
const IP: i32 = libc::SOL_IP;
const TCP: i32 = libc::SOL_TCP;
const UDP: i32 = libc::SOL_UDP;
const IPV6: i32 = libc::SOL_IPV6;
const ICMPV6: i32 = 58;
const UDPLITE: i32 = 136;
const RAW: i32 = 255;
const PACKET: i32 = libc::SOL_PACKET;
const NETLINK: i32 = libc::SOL_NETLINK;
const VSOCK: i32 = libc::AF_VSOCK;

#[expect(
    missing_docs,
    reason = "the names are those of ip(7), ipv6(7) and tcp(7)"
)]
impl SocketOption {
    pub const IP_TOS: Self = int(IP, 1);
    pub const IP_TTL: Self = int(IP, 2);
    pub const IP_HDRINCL: Self = int(IP, 3);
    pub const IP_OPTIONS: Self = bytes(IP, 4, 40);
    pub const IP_PKTINFO: Self = int(IP, 8);
    pub const IP_FREEBIND: Self = int(IP, 15);
    pub const IP_NODEFRAG: Self = int(IP, 22);
    pub const IP_CHECKSUM: Self = int(IP, 23);
    pub const IPV6_V6ONLY: Self = int(IPV6, 26);
    pub const IPV6_RECVPKTINFO: Self = int(IPV6, 49);
    pub const IPV6_TCLASS: Self = int(IPV6, 67);
    pub const IPV6_UNICAST_HOPS: Self = int(IPV6, 16);
    pub const IPV6_FREEBIND: Self = int(IPV6, 78);
    pub const ICMP_FILTER: Self = int(RAW, 1);
    pub const ICMPV6_FILTER: Self = bytes(ICMPV6, 1, 32);
    pub const TCP_NODELAY: Self = int(TCP, 1);
    pub const TCP_MAXSEG: Self = int(TCP, 2);
    pub const TCP_CORK: Self = int(TCP, 3);
    pub const TCP_KEEPIDLE: Self = int(TCP, 4);
    pub const TCP_KEEPINTVL: Self = int(TCP, 5);
    pub const TCP_KEEPCNT: Self = int(TCP, 6);
    pub const TCP_WINDOW_CLAMP: Self = int(TCP, 10);
    pub const PACKET_COPY_THRESH: Self = int(PACKET, 7);
    pub const PACKET_AUXDATA: Self = int(PACKET, 8);
    pub const PACKET_ORIGDEV: Self = int(PACKET, 9);
    pub const PACKET_VERSION: Self = int(PACKET, 10);
    pub const PACKET_RESERVE: Self = int(PACKET, 12);
    pub const PACKET_LOSS: Self = int(PACKET, 14);
    pub const PACKET_VNET_HDR: Self = int(PACKET, 15);
    pub const PACKET_TIMESTAMP: Self = int(PACKET, 17);
    pub const PACKET_FANOUT: Self = int(PACKET, 18);
    pub const UDP_CORK: Self = int(UDP, 1);
    /// A name that ends at the first zero byte.
    pub const TCP_ULP: Self = bytes(TCP, 31, 16);
}

/// All of them, in an order in which they can be set: the class of service before the priority, which is an
/// option of every socket and none of these.
pub static OPTIONS: &[SocketOption] = &[
    // Of the socket layer: time stamps, errors, busy polling.
    int(SOCKET, 29),
    int(SOCKET, 35),
    bytes(SOCKET, 37, 8),
    int(SOCKET, 40),
    int(SOCKET, 41),
    int(SOCKET, 42),
    int(SOCKET, 43),
    int(SOCKET, 45),
    int(SOCKET, 46),
    bytes(SOCKET, 47, 8),
    int(SOCKET, 60),
    bytes(SOCKET, 61, 8),
    int(SOCKET, 63),
    int(SOCKET, 64),
    bytes(SOCKET, 65, 8),
    int(SOCKET, 69),
    int(SOCKET, 70),
    int(SOCKET, 75),
    int(SOCKET, 82),
    // ip(7)
    SocketOption::IP_TOS,
    SocketOption::IP_TTL,
    SocketOption::IP_HDRINCL,
    SocketOption::IP_OPTIONS,
    int(IP, 6),
    int(IP, 7),
    SocketOption::IP_PKTINFO,
    int(IP, 10),
    int(IP, 11),
    int(IP, 12),
    int(IP, 13),
    SocketOption::IP_FREEBIND,
    int(IP, 18),
    int(IP, 19),
    int(IP, 20),
    int(IP, 21),
    SocketOption::IP_NODEFRAG,
    SocketOption::IP_CHECKSUM,
    int(IP, 24),
    int(IP, 25),
    int(IP, 26),
    int(IP, 32),
    int(IP, 33),
    int(IP, 34),
    int(IP, 49),
    int(IP, 50),
    int(IP, 51),
    // ipv6(7)
    int(IPV6, 7),
    SocketOption::IPV6_UNICAST_HOPS,
    int(IPV6, 17),
    int(IPV6, 18),
    int(IPV6, 19),
    int(IPV6, 23),
    int(IPV6, 25),
    SocketOption::IPV6_V6ONLY,
    int(IPV6, 29),
    int(IPV6, 33),
    SocketOption::IPV6_RECVPKTINFO,
    int(IPV6, 51),
    int(IPV6, 53),
    int(IPV6, 56),
    int(IPV6, 58),
    int(IPV6, 60),
    int(IPV6, 62),
    int(IPV6, 66),
    SocketOption::IPV6_TCLASS,
    int(IPV6, 70),
    int(IPV6, 72),
    int(IPV6, 73),
    int(IPV6, 74),
    int(IPV6, 75),
    int(IPV6, 76),
    int(IPV6, 77),
    SocketOption::IPV6_FREEBIND,
    SocketOption::ICMP_FILTER,
    SocketOption::ICMPV6_FILTER,
    // udp(7) and udplite(7)
    SocketOption::UDP_CORK,
    int(UDP, 100),
    int(UDP, 101),
    int(UDP, 102),
    int(UDP, 103),
    int(UDP, 104),
    int(UDPLITE, 10),
    int(UDPLITE, 11),
    // tcp(7)
    SocketOption::TCP_NODELAY,
    SocketOption::TCP_MAXSEG,
    SocketOption::TCP_CORK,
    SocketOption::TCP_KEEPIDLE,
    SocketOption::TCP_KEEPINTVL,
    SocketOption::TCP_KEEPCNT,
    int(TCP, 7),
    int(TCP, 8),
    int(TCP, 9),
    SocketOption::TCP_WINDOW_CLAMP,
    bytes(TCP, 13, 16),
    int(TCP, 16),
    int(TCP, 17),
    int(TCP, 18),
    int(TCP, 23),
    int(TCP, 25),
    int(TCP, 27),
    int(TCP, 30),
    int(TCP, 34),
    int(TCP, 36),
    int(TCP, 37),
    int(TCP, 44),
    int(TCP, 45),
    int(TCP, 46),
    // packet(7), before rings are made
    SocketOption::PACKET_COPY_THRESH,
    SocketOption::PACKET_AUXDATA,
    SocketOption::PACKET_ORIGDEV,
    SocketOption::PACKET_VERSION,
    SocketOption::PACKET_RESERVE,
    SocketOption::PACKET_LOSS,
    SocketOption::PACKET_VNET_HDR,
    SocketOption::PACKET_TIMESTAMP,
    int(PACKET, 19),
    int(PACKET, 20),
    int(PACKET, 23),
    int(PACKET, 24),
    // netlink(7)
    int(NETLINK, 3),
    int(NETLINK, 4),
    int(NETLINK, 5),
    int(NETLINK, 8),
    int(NETLINK, 10),
    int(NETLINK, 11),
    int(NETLINK, 12),
    // vsock(7): the limits of a buffer before its size
    bytes(VSOCK, 2, 8),
    bytes(VSOCK, 1, 8),
    bytes(VSOCK, 0, 8),
    bytes(VSOCK, 8, 16),
];

impl SocketOption {
    /// The option of [`OPTIONS`] with these numbers.
    #[must_use]
    pub fn find(level: i32, name: i32) -> Option<Self> {
        let mut all = OPTIONS.iter().copied();
        all.find(|option| (option.level, option.name) == (level, name))
    }

    /// Its level and its number there.
    #[must_use]
    pub fn numbers(self) -> (i32, i32) {
        (self.level, self.name)
    }

    /// The most bytes that a value has.
    #[must_use]
    pub fn room(self) -> usize {
        self.room
    }

    /// Its value.
    ///
    /// # Errors
    ///
    /// `ENOPROTOOPT` or `EOPNOTSUPP` if a socket of the kind does not have it.
    pub fn get(self, socket: impl AsFd) -> Result<Vec<u8>> {
        super::get(socket, self.level, self.name, self.room)
    }

    /// The same of one that is an `int`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn int(self, socket: impl AsFd) -> Result<i32> {
        let value = super::get(socket, self.level, self.name, size_of::<i32>())?;
        Ok(number(&value))
    }

    /// Sets it.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and `EINVAL` or `EPERM` for values that cannot be.
    pub fn set(self, socket: impl AsFd, value: &[u8]) -> Result<()> {
        super::set(socket, self.level, self.name, value)
    }
}

/// Up to four bytes as a number.
fn number(value: &[u8]) -> i32 {
    let mut word = [0; 4];
    let len = value.len().min(4);
    word[..len].copy_from_slice(&value[..len]);
    i32::from_ne_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn every_option_is_there_once() {
        let all: BTreeSet<_> = OPTIONS.iter().map(|option| option.numbers()).collect();
        assert_eq!(all.len(), OPTIONS.len());
        for option in OPTIONS {
            let (level, name) = option.numbers();
            assert_eq!(SocketOption::find(level, name), Some(*option));
        }
        assert_eq!(SocketOption::find(IP, 35), None);
    }

    #[test]
    fn what_is_told_can_be_set_again() {
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        for option in OPTIONS {
            // What a bound socket is for is settled.
            if *option == SocketOption::IPV6_V6ONLY {
                continue;
            }
            for socket in [udp.as_fd(), tcp.as_fd()] {
                let Ok(value) = option.get(socket) else {
                    continue;
                };
                assert!(value.len() <= option.room());
                let set = option.set(socket, &value);
                let usual = set.is_err() && option.get(socket) == Ok(value);
                assert!(set.is_ok() || usual, "{option:?}: {set:?}");
            }
        }
    }

    #[test]
    fn numbers_may_be_short() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        SocketOption::IP_TOS.set(&udp, &[8]).unwrap();
        assert_eq!(SocketOption::IP_TOS.int(&udp), Ok(8));
        assert_eq!((number(&[]), number(&[1, 1])), (0, 257));
    }
}
