//! What the kernel tells of internet sockets.

use std::collections::HashMap;

use rustix::io::{Errno, Result};

use super::{Diag, HEADER, SOCK_DIAG_BY_FAMILY, word};

/// Bytes of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Bytes of `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// `INET_DIAG_SHUTDOWN`
const SHUTDOWN: u8 = 8;

impl Diag {
    /// Directions that datagram sockets of a family and protocol have shut down, by inode: 1 receiving, 2
    /// sending, 3 both. Sockets that are not bound are missing.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the kernel does not tell about the protocol.
    pub fn shutdowns(&self, family: u8, protocol: u8) -> Result<HashMap<u32, u8>> {
        let mut request = [0; HEADER + REQUEST];
        let len = request.len() as u32;
        request[..4].copy_from_slice(&len.to_ne_bytes());
        request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        request[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
        request[HEADER] = family;
        request[HEADER + 1] = protocol;
        request[HEADER + 2] = 1 << (SHUTDOWN - 1);
        // Every state.
        request[HEADER + 4..HEADER + 8].fill(0xff);
        let mut found = HashMap::new();
        self.each(&request, |message| {
            let inode = word(message, MESSAGE - 4).ok_or(Errno::BADMSG)?;
            found.insert(inode, shutdown(message).unwrap_or_default());
            Ok(())
        })?;
        Ok(found)
    }
}

/// The attribute of a `struct inet_diag_msg` that tells what is shut down.
fn shutdown(message: &[u8]) -> Option<u8> {
    let mut rest = message.get(MESSAGE..)?;
    while rest.len() >= 4 {
        let number = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let (len, kind) = (usize::from(number(0)), number(2));
        if kind == SHUTDOWN.into() {
            return rest.get(4).copied();
        }
        rest = rest.get(len.max(4).next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, UdpSocket};

    const UDP: u8 = 17;

    #[test]
    fn what_is_shut_down_is_told() {
        let diag = Diag::new().unwrap();
        let sockets = [0, 1, 2, 3].map(|how| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let own: SocketAddr = socket.local_addr().unwrap();
            socket.connect(own).unwrap();
            if how & 1 != 0 {
                rustix::net::shutdown(&socket, rustix::net::Shutdown::Read).unwrap();
            }
            if how & 2 != 0 {
                rustix::net::shutdown(&socket, rustix::net::Shutdown::Write).unwrap();
            }
            socket
        });
        let seen = diag.shutdowns(libc::AF_INET as u8, UDP).unwrap();
        let told = sockets.map(|socket| {
            let inode = rustix::fs::fstat(&socket).unwrap().st_ino as u32;
            seen.get(&inode).copied()
        });
        assert_eq!(told, [Some(0), Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn answers_that_are_cut_off_are_noticed() {
        assert_eq!(shutdown(&[0; 71]), None);
        let mut message = vec![0; 72];
        message.extend_from_slice(&[0, 0, 0, 0, 1, 0]);
        assert_eq!(shutdown(&message), None);
    }
}
