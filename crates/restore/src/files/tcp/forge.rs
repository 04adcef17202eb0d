//! Segments in the name of a peer, which the kernel takes as if they had come from there.

use std::net::{IpAddr, SocketAddr};

use gelid_netlock::MARK;
use gelid_sys::sockopt::{self, IntOption};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, bind, sendto, socket_with,
};

/// The end of the stream.
pub(super) const FIN: u8 = 1;
/// The connection is broken.
pub(super) const RST: u8 = 4;
/// Something is acknowledged.
pub(super) const ACK: u8 = 16;

/// A segment without data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
}

/// Sends a segment to an address of this machine, past the rules that keep others away.
pub(super) fn send(segment: Segment) -> Result<(), Errno> {
    let family = match segment.to.ip().to_canonical() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    // Whatever is written to it has a header.
    let protocol = Some(Protocol::from_raw(RAW));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::RAW, flags, protocol)?;
    sockopt::set_int(&socket, IntOption::MARK, MARK.cast_signed())?;
    let mut to = segment.to;
    to.set_ip(to.ip().to_canonical());
    to.set_port(0);
    // It fails for what is no address of this machine, where nothing forged may go.
    bind(&socket, &to)?;
    sendto(&socket, &segment.packet(), SendFlags::empty(), &to).map(drop)
}

/// `IPPROTO_RAW`
const RAW: std::num::NonZeroU32 = std::num::NonZeroU32::MIN.saturating_add(254);
const TCP: u8 = 6;
/// Bytes of a header of TCP without options.
const HEADER: usize = 20;
/// The window that it names.
const WINDOW: u16 = 8192;

impl Segment {
    /// The segment with the header of its packet.
    fn packet(&self) -> Vec<u8> {
        let (from, to) = (self.from.ip().to_canonical(), self.to.ip().to_canonical());
        let segment = self.segment(from, to);
        let mut packet = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let len = (20 + segment.len()) as u16;
                let mut header = vec![0x45, 0];
                header.extend(len.to_be_bytes());
                // The kernel fills in the number and the sum.
                header.extend([0, 0, 0, 0, 64, TCP, 0, 0]);
                header.extend(from.octets());
                header.extend(to.octets());
                header
            }
            _ => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((segment.len() as u16).to_be_bytes());
                header.extend([TCP, 64]);
                header.extend(octets(from));
                header.extend(octets(to));
                header
            }
        };
        packet.extend(segment);
        packet
    }

    fn segment(&self, from: IpAddr, to: IpAddr) -> Vec<u8> {
        let mut segment = Vec::with_capacity(HEADER);
        segment.extend(self.from.port().to_be_bytes());
        segment.extend(self.to.port().to_be_bytes());
        segment.extend(self.seq.to_be_bytes());
        segment.extend(self.ack.to_be_bytes());
        segment.extend([(HEADER as u8 / 4) << 4, self.flags]);
        segment.extend(WINDOW.to_be_bytes());
        segment.extend([0; 4]);
        let mut summed = [octets(from), octets(to)].concat();
        summed.extend([0, TCP]);
        summed.extend((HEADER as u16).to_be_bytes());
        summed.extend(&segment);
        segment[16..18].copy_from_slice(&checksum(&summed).to_be_bytes());
        segment
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The sum of RFC 1071 over an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_standard() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }

    #[test]
    fn nothing_forged_leaves_the_machine() {
        let segment = Segment {
            from: "127.0.0.1:9".parse().unwrap(),
            to: "192.0.2.1:9".parse().unwrap(),
            seq: 0,
            ack: 0,
            flags: ACK,
        };
        let sent = send(segment);
        assert!(
            matches!(sent, Err(Errno::ADDRNOTAVAIL | Errno::PERM)),
            "{sent:?}"
        );
    }

    #[test]
    fn packets_have_their_headers() {
        let segment = |from: &str, to: &str| Segment {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            seq: 0x0102_0304,
            ack: 5,
            flags: FIN | ACK,
        };
        let four = segment("[::ffff:10.0.0.1]:80", "10.0.0.2:9").packet();
        assert_eq!((four.len(), four[0], four[9]), (40, 0x45, TCP));
        assert_eq!(&four[12..24], [10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 0, 9]);
        assert_eq!((&four[24..28], four[33]), (&[1, 2, 3, 4][..], 17));
        let six = segment("[::1]:80", "[::2]:9").packet();
        assert_eq!((six.len(), six[0], six[6]), (60, 0x60, TCP));
        // A sum over everything, its own included, is nothing.
        let mut summed = [
            octets("::1".parse().unwrap()),
            octets("::2".parse().unwrap()),
        ]
        .concat();
        summed.extend([0, TCP, 0, 20]);
        summed.extend(&six[40..]);
        assert_eq!(checksum(&summed), 0);
    }
}
