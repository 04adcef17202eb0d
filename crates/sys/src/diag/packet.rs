//! What the kernel tells of packet sockets.

use std::collections::HashMap;

use rustix::io::{Errno, Result};

use super::{Diag, HEADER, SOCK_DIAG_BY_FAMILY, word};
use crate::packet::{LONGEST_ADDRESS, Membership, Ring};

/// Bytes of `struct packet_diag_msg`.
const MESSAGE: usize = 16;
/// Bytes of `struct packet_diag_mclist`.
const MEMBERSHIP: usize = 12 + LONGEST_ADDRESS;
/// `PACKET_SHOW_INFO`, `..._MCLIST`, `..._RING_CFG`, `..._FANOUT`.
const SHOW: u32 = 15;

/// A packet socket as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PacketSocket {
    /// Its protocol, by the number of the host.
    pub protocol: u16,
    /// Interface it is bound to; 0 is none.
    pub index: u32,
    /// Version of the headers in rings.
    pub version: u32,
    /// Room before them.
    pub reserve: u32,
    /// `PACKET_COPY_THRESH`
    pub copy_threshold: u32,
    /// `PACKET_TIMESTAMP`
    pub timestamp: u32,
    /// `PDI_*`: 2 auxiliary data, 4 original interfaces, 8 virtual headers, 16 losses.
    pub flags: u32,
    /// What it hears; as often as it was asked for.
    pub memberships: Vec<Membership>,
    /// Ring for receiving.
    pub receive_ring: Option<Ring>,
    /// Ring for sending.
    pub send_ring: Option<Ring>,
    /// It shares packets with a group.
    pub has_fanout: bool,
}

impl Diag {
    /// All packet sockets, by inode.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the kernel does not tell about them.
    pub fn packet_sockets(&self) -> Result<HashMap<u32, PacketSocket>> {
        let mut request = [0; HEADER + 20];
        let len = request.len() as u32;
        request[..4].copy_from_slice(&len.to_ne_bytes());
        request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        request[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
        request[HEADER] = libc::AF_PACKET as u8;
        request[HEADER + 8..HEADER + 12].copy_from_slice(&SHOW.to_ne_bytes());
        let mut found = HashMap::new();
        self.each(&request, |message| {
            let inode = word(message, 4).ok_or(Errno::BADMSG)?;
            found.insert(inode, socket(message).ok_or(Errno::BADMSG)?);
            Ok(())
        })?;
        Ok(found)
    }
}

/// Understands `struct packet_diag_msg` and its attributes.
fn socket(message: &[u8]) -> Option<PacketSocket> {
    let mut socket = PacketSocket {
        protocol: half(message, 2)?,
        ..PacketSocket::default()
    };
    let mut rest = message.get(MESSAGE..)?;
    while rest.len() >= 4 {
        let (len, kind) = (usize::from(half(rest, 0)?), half(rest, 2)?);
        let value = rest.get(4..len)?;
        match kind {
            0 => {
                socket.index = word(value, 0)?;
                socket.version = word(value, 4)?;
                socket.reserve = word(value, 8)?;
                socket.copy_threshold = word(value, 12)?;
                socket.timestamp = word(value, 16)?;
                socket.flags = word(value, 20)?;
            }
            1 => {
                for entry in value.chunks_exact(MEMBERSHIP) {
                    let count = word(entry, 4)? as usize;
                    let one = membership(entry)?;
                    // Nobody asks a million times for the same.
                    socket
                        .memberships
                        .extend(std::iter::repeat_n(one, count.min(1 << 20)));
                }
            }
            2 => socket.receive_ring = Some(ring(value)?),
            3 => socket.send_ring = Some(ring(value)?),
            4 => socket.has_fanout = true,
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(socket)
}

fn membership(entry: &[u8]) -> Option<Membership> {
    let len = usize::from(half(entry, 10)?);
    Some(Membership {
        index: word(entry, 0)?,
        kind: half(entry, 8)?,
        address: entry.get(12..12 + len)?.to_vec(),
    })
}

fn ring(value: &[u8]) -> Option<Ring> {
    Some(Ring {
        block_size: word(value, 0)?,
        block_nr: word(value, 4)?,
        frame_size: word(value, 8)?,
        frame_nr: word(value, 12)?,
        retire_tmo: word(value, 16)?,
        sizeof_priv: word(value, 20)?,
        features: word(value, 24)?,
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let half = bytes.get(at..at + 2)?;
    half.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet;
    use rustix::net::{AddressFamily, SocketType};

    #[test]
    fn what_is_set_is_told() {
        let made = rustix::net::socket(AddressFamily::PACKET, SocketType::DGRAM, None);
        let Ok(one) = made else {
            println!("skipped: no packet sockets");
            return;
        };
        packet::bind(&one, 0x0608, 1).unwrap();
        let promiscuous = Membership {
            index: 1,
            kind: 1,
            address: Vec::new(),
        };
        packet::join(&one, &promiscuous).unwrap();
        packet::join(&one, &promiscuous).unwrap();
        let ring = Ring {
            block_size: 4096,
            block_nr: 2,
            frame_size: 1024,
            frame_nr: 8,
            ..Ring::default()
        };
        packet::set_ring(&one, false, ring).unwrap();
        let inode = rustix::fs::fstat(&one).unwrap().st_ino as u32;
        let seen = Diag::new().unwrap().packet_sockets().unwrap();
        let seen = &seen[&inode];
        assert_eq!((seen.protocol, seen.index), (0x0806, 1));
        assert_eq!(seen.memberships, [promiscuous.clone(), promiscuous]);
        assert_eq!((seen.receive_ring, seen.send_ring), (Some(ring), None));
        assert!(!seen.has_fanout);
    }

    #[test]
    fn answers_that_are_cut_off_are_noticed() {
        assert_eq!(socket(&[0; 15]), None);
        let mut message = vec![0; 16];
        message.extend_from_slice(&[8, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(socket(&message), None);
    }
}
