//! What the kernel tells of sockets: `sock_diag(7)`.
//!
//! Sockets are those of the network namespace in which the [`Diag`] was made.

mod inet;
mod packet;

use std::collections::HashMap;
use std::os::fd::OwnedFd;

pub use self::packet::PacketSocket;
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct unix_diag_msg`.
const UNIX_MESSAGE: usize = 16;
/// `UDIAG_SHOW_NAME`, `..._VFS`, `..._PEER`, `..._ICONS`, `..._RQLEN`.
const SHOW: u32 = 0x1f;
/// `UDIAG_SHOW_VFS`
const SHOW_VFS: u32 = 2;

/// The kernel's informant about sockets.
#[derive(Debug)]
pub struct Diag(OwnedFd);

/// A Unix socket as the kernel shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnixSocket {
    /// `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_SEQPACKET`.
    pub kind: u8,
    /// 1 connected, 7 not connected, 10 listening: the states of TCP.
    pub state: u8,
    /// Its inode.
    pub inode: u32,
    /// `sun_path` as it was bound: a path with its zero byte, an abstract name that starts with one, or
    /// nothing.
    pub name: Vec<u8>,
    /// Device, in the kernel's own encoding, and inode of the file that it is bound to.
    pub node: Option<(u32, u32)>,
    /// Inode of its peer; 0 if that has no descriptor: it is closed, or not accepted yet.
    pub peer: Option<u32>,
    /// Inodes of those who wait to be accepted, the first first; 0 for one that is closed already.
    pub pending: Vec<u32>,
    /// Bytes that wait to be read, or connections to be accepted. Of datagrams only the first counts.
    pub receive_queue: u32,
    /// Memory of what was sent and not read yet, or the backlog of one that listens.
    pub send_queue: u32,
    /// 1 receiving is shut down, 2 sending, 3 both.
    pub shutdown: u8,
}

impl UnixSocket {
    /// Whether it is bound to a file with this device and inode.
    #[must_use]
    pub fn is_bound_to(&self, device: u64, inode: u64) -> bool {
        let device = (rustix::fs::major(device) << 20) | rustix::fs::minor(device);
        // The kernel tells half of a large inode.
        self.node == Some((device, inode as u32))
    }
}

impl Diag {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let protocol = Some(netlink::SOCK_DIAG);
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol).map(Self)
    }

    /// The Unix socket with this inode; `None` if there is none.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if more connections wait to be accepted than an answer has room for (some 900).
    pub fn unix(&self, inode: u32) -> Result<Option<UnixSocket>> {
        let request = unix_request(inode, libc::NLM_F_REQUEST, SHOW);
        rustix::net::send(&self.0, &request, SendFlags::empty())?;
        let mut answer = [0; 2 * crate::PAGE_SIZE];
        let (len, whole) = rustix::net::recv(&self.0, &mut answer[..], RecvFlags::TRUNC)?;
        if whole > len {
            return Err(Errno::MSGSIZE);
        }
        match body(&answer[..len]) {
            Err(Errno::NOENT) => Ok(None),
            body => unix_socket(body?).map(Some).ok_or(Errno::BADMSG),
        }
    }

    /// All Unix sockets, by their inodes. Those that come and go meanwhile may be missing, and others with them.
    pub fn all_unix(&self) -> Result<HashMap<u32, UnixSocket>> {
        let request = unix_request(0, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, SHOW);
        let mut all = HashMap::new();
        self.each(&request, |body| {
            let socket = unix_socket(body).ok_or(Errno::BADMSG)?;
            all.insert(socket.inode, socket);
            Ok(())
        })?;
        Ok(all)
    }

    /// Whether a Unix socket is bound to a file with this device and inode.
    pub fn is_unix_node(&self, device: u64, inode: u64) -> Result<bool> {
        let request = unix_request(0, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, SHOW_VFS);
        let mut found = false;
        self.each(&request, |body| {
            let socket = unix_socket(body).ok_or(Errno::BADMSG)?;
            found |= socket.is_bound_to(device, inode);
            Ok(())
        })?;
        Ok(found)
    }

    /// Asks for all sockets of a kind, and shows what follows the header of each answer.
    fn each(&self, request: &[u8], mut see: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        rustix::net::send(&self.0, request, SendFlags::empty())?;
        let mut answer = vec![0; 32 << 10];
        loop {
            let (len, _) = rustix::net::recv(&self.0, &mut answer[..], RecvFlags::empty())?;
            let mut rest = &answer[..len];
            while let Some(size) = word(rest, 0) {
                if rest.get(4..6) == Some(&(libc::NLMSG_DONE as u16).to_ne_bytes()) {
                    return Ok(());
                }
                see(body(rest)?)?;
                let size = (size as usize).next_multiple_of(4);
                rest = rest.get(size.max(HEADER)..).unwrap_or_default();
            }
        }
    }
}

/// `struct nlmsghdr` and `struct unix_diag_req` for one socket, whatever its cookie, or for all.
fn unix_request(inode: u32, flags: i32, show: u32) -> [u8; HEADER + 24] {
    let mut request = [0; HEADER + 24];
    let len = request.len() as u32;
    request[..4].copy_from_slice(&len.to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
    request[HEADER] = libc::AF_UNIX as u8;
    request[HEADER + 4..HEADER + 8].fill(0xff);
    request[HEADER + 8..HEADER + 12].copy_from_slice(&inode.to_ne_bytes());
    request[HEADER + 12..HEADER + 16].copy_from_slice(&show.to_ne_bytes());
    request[HEADER + 16..].fill(0xff);
    request
}

/// What follows the header of an answer, or the error that it is.
fn body(answer: &[u8]) -> Result<&[u8]> {
    let len = word(answer, 0).ok_or(Errno::BADMSG)? as usize;
    let kind = answer.get(4..6).ok_or(Errno::BADMSG)?;
    let body = answer.get(HEADER..len).ok_or(Errno::BADMSG)?;
    if kind != (libc::NLMSG_ERROR as u16).to_ne_bytes() {
        return Ok(body);
    }
    let errno = word(body, 0).map_or(0, u32::cast_signed);
    Err(match errno {
        0 => Errno::BADMSG,
        errno => Errno::from_raw_os_error(errno.wrapping_neg()),
    })
}

/// Understands `struct unix_diag_msg` and its attributes.
fn unix_socket(message: &[u8]) -> Option<UnixSocket> {
    let mut socket = UnixSocket {
        kind: *message.get(1)?,
        state: *message.get(2)?,
        inode: word(message, 4)?,
        ..UnixSocket::default()
    };
    let mut rest = message.get(UNIX_MESSAGE..)?;
    while rest.len() >= 4 {
        let number = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
        let (len, kind) = (usize::from(number(0)), number(2));
        let value = rest.get(4..len)?;
        match kind {
            0 => socket.name = value.to_vec(),
            1 => socket.node = Some((word(value, 4)?, word(value, 0)?)),
            2 => socket.peer = word(value, 0),
            3 => socket.pending = value.chunks_exact(4).filter_map(|w| word(w, 0)).collect(),
            4 => (socket.receive_queue, socket.send_queue) = (word(value, 0)?, word(value, 4)?),
            6 => socket.shutdown = *value.first()?,
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(socket)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    word.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    fn inode(socket: impl AsFd) -> u32 {
        rustix::fs::fstat(socket).unwrap().st_ino as u32
    }

    #[test]
    fn a_pair_tells_of_each_other() {
        let diag = Diag::new().unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut &one, b"hello").unwrap();
        let seen = diag.unix(inode(&other)).unwrap().unwrap();
        assert_eq!((seen.kind, seen.state, seen.shutdown), (1, 1, 0));
        assert_eq!((seen.peer, seen.receive_queue), (Some(inode(&one)), 5));
        assert_eq!((seen.inode, seen.name), (inode(&other), Vec::new()));
        drop(other);
        let seen = diag.unix(inode(&one)).unwrap().unwrap();
        assert_eq!((seen.peer, seen.shutdown), (Some(0), 3));
    }

    #[test]
    fn one_that_listens_tells_who_waits() {
        let diag = Diag::new().unwrap();
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let clients: Vec<_> = (0..3)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        let seen = diag.unix(inode(&listener)).unwrap().unwrap();
        let waiting: Vec<u32> = clients.iter().map(inode).collect();
        assert_eq!((seen.state, seen.pending), (10, waiting));
        let mut name = path.into_os_string().into_encoded_bytes();
        name.push(0);
        assert_eq!(seen.name, name);
        let client = diag.unix(inode(&clients[0])).unwrap().unwrap();
        assert_eq!((client.state, client.peer), (1, Some(0)));
    }

    #[test]
    fn a_file_is_that_of_a_living_socket() {
        let diag = Diag::new().unwrap();
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        let stat = rustix::fs::lstat(&path).unwrap();
        assert_eq!(diag.is_unix_node(stat.st_dev, stat.st_ino), Ok(true));
        drop(socket);
        assert_eq!(diag.is_unix_node(stat.st_dev, stat.st_ino), Ok(false));
    }

    #[test]
    fn what_is_not_there_is_none() {
        let diag = Diag::new().unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        let inode = inode(&socket);
        assert_eq!(diag.unix(inode).unwrap().unwrap().state, 7);
        drop(socket);
        assert_eq!(diag.unix(inode), Ok(None));
    }

    #[test]
    fn answers_that_are_cut_off_are_noticed() {
        assert_eq!(body(&[0; 8]), Err(Errno::BADMSG));
        let mut answer = vec![20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        answer.extend_from_slice(&(-13i32).to_ne_bytes());
        assert_eq!(body(&answer), Err(Errno::ACCESS));
        assert_eq!(unix_socket(&[0; 15]), None);
        let mut message = vec![0; 16];
        message.extend_from_slice(&[9, 0, 0, 0, b'x']);
        assert_eq!(unix_socket(&message), None);
    }
}
