//! Conversations with the kernel over netlink: requests, dumps, acknowledgements.
//!
//! Messages are passed on as they are. The packages that decode them know many attributes, and would lose those that
//! they do not know; what a dump takes from one kernel and gives to another has to stay whole.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::message::{HEADER, Message, messages};

/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLM_F_ACK`
const ACK: u16 = 4;
/// `NLM_F_DUMP`
const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: something changed while it was told.
const INTERRUPTED: u16 = 0x10;
/// `NLM_F_REPLACE`: takes the place of what is there.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`: fails if it is there.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`: comes to be if it is not there.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: comes behind what is there.
pub const APPEND: u16 = 0x800;
/// `NLMSG_ERROR`, which an acknowledgement is too.
const ERROR: u16 = 2;
/// `NLMSG_DONE`
const DONE: u16 = 3;
/// Bytes for an answer; the kernel makes none larger for it.
const ROOM: usize = 64 << 10;
/// How often a dump is asked for that something else interferes with.
const ATTEMPTS: usize = 20;

/// A socket over which the kernel is asked and told. It belongs to the network namespace in which it was made,
/// whoever uses it then.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    sequence: AtomicU32,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Channel {
    /// To whom links, addresses, routes and rules belong: `rtnetlink(7)`.
    pub fn route() -> Result<Self> {
        Self::open(None)
    }

    /// To whom the firewall and the table of connections belong.
    ///
    /// # Errors
    ///
    /// `EPROTONOSUPPORT` if the kernel has none.
    pub fn netfilter() -> Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    /// To whom policies and associations of IPsec belong.
    ///
    /// # Errors
    ///
    /// `EPROTONOSUPPORT` if the kernel has none.
    pub fn security() -> Result<Self> {
        Self::open(Some(netlink::XFRM))
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self {
            socket,
            sequence: AtomicU32::new(1),
        })
    }

    /// All objects of a kind, as messages one behind the other, each padded to four bytes. `body` is what follows
    /// the header of the request.
    ///
    /// # Errors
    ///
    /// Those of the request; `EINTR` if something keeps changing meanwhile.
    pub fn dump(&self, kind: u16, body: &[u8]) -> Result<Vec<u8>> {
        for _ in 0..ATTEMPTS {
            if let Some(all) = self.dump_once(kind, body)? {
                return Ok(all);
            }
        }
        Err(Errno::INTR)
    }

    fn dump_once(&self, kind: u16, body: &[u8]) -> Result<Option<Vec<u8>>> {
        let sequence = self.send(kind, DUMP, body)?;
        let mut all = Vec::new();
        let mut whole = true;
        let mut answer = vec![0; ROOM];
        loop {
            let len = self.receive(&mut answer)?;
            for message in messages(&answer[..len]) {
                let message = message.ok_or(Errno::BADMSG)?;
                if message.sequence != sequence {
                    continue;
                }
                whole &= message.flags & INTERRUPTED == 0;
                match message.kind {
                    ERROR => outcome(&message)?,
                    DONE => {
                        end_of_dump(&message)?;
                        return Ok(whole.then_some(all));
                    }
                    _ => {
                        all.extend_from_slice(message.whole);
                        all.resize(all.len().next_multiple_of(4), 0);
                    }
                }
            }
        }
    }

    /// Has the kernel do something.
    ///
    /// # Errors
    ///
    /// Those of the request.
    pub fn tell(&self, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
        let sequence = self.send(kind, flags | ACK, body)?;
        let mut answer = vec![0; ROOM];
        loop {
            let len = self.receive(&mut answer)?;
            for message in messages(&answer[..len]) {
                let message = message.ok_or(Errno::BADMSG)?;
                if message.sequence == sequence && message.kind == ERROR {
                    return outcome(&message);
                }
            }
        }
    }

    /// Asks for one object; returns what follows the header of the answer.
    ///
    /// # Errors
    ///
    /// Those of the request: `ENODEV`, `ENOENT` and the like if there is none.
    pub fn ask(&self, kind: u16, body: &[u8]) -> Result<Vec<u8>> {
        let sequence = self.send(kind, 0, body)?;
        let mut answer = vec![0; ROOM];
        loop {
            let len = self.receive(&mut answer)?;
            for message in messages(&answer[..len]) {
                let message = message.ok_or(Errno::BADMSG)?;
                match message.kind {
                    _ if message.sequence != sequence => {}
                    ERROR => outcome(&message)?,
                    _ => return Ok(message.body.to_vec()),
                }
            }
        }
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> Result<u32> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let len = u32::try_from(HEADER + body.len()).map_err(|_| Errno::MSGSIZE)?;
        let mut request = Vec::with_capacity(HEADER + body.len());
        request.extend_from_slice(&len.to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        request.extend_from_slice(&sequence.to_ne_bytes());
        request.extend_from_slice(&0u32.to_ne_bytes());
        request.extend_from_slice(body);
        rustix::net::send(&self.socket, &request, SendFlags::empty())?;
        Ok(sequence)
    }

    fn receive(&self, answer: &mut [u8]) -> Result<usize> {
        let flags = RecvFlags::TRUNC;
        let (len, whole) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut *answer, flags))?;
        match whole > len || len == 0 {
            true => Err(Errno::MSGSIZE),
            false => Ok(len),
        }
    }
}

/// What an `NLMSG_ERROR` says.
fn outcome(message: &Message<'_>) -> Result<()> {
    match message.word(0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(errno.wrapping_neg())),
        None => Err(Errno::BADMSG),
    }
}

/// What an `NLMSG_DONE` says: some dumps fail only there.
fn end_of_dump(message: &Message<'_>) -> Result<()> {
    match message.word(0).map(u32::cast_signed) {
        Some(errno) if errno < 0 => Err(Errno::from_raw_os_error(errno.wrapping_neg())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::Attributes;

    /// `RTM_GETLINK`
    const GET_LINK: u16 = 18;
    /// `IFLA_IFNAME`
    const NAME: u16 = 3;
    /// Bytes of `struct ifinfomsg`.
    const LINK: usize = 16;

    #[test]
    fn every_machine_has_a_loopback() {
        let channel = Channel::route().unwrap();
        let all = channel.dump(GET_LINK, &[0; LINK]).unwrap();
        let names: Vec<Vec<u8>> = messages(&all)
            .map(|message| {
                let body = message.unwrap().body;
                Attributes(&body[LINK..]).get(NAME).unwrap().to_vec()
            })
            .collect();
        assert!(names.contains(&b"lo\0".to_vec()), "{names:?}");
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let channel = Channel::route().unwrap();
        let mut body = [0; LINK];
        body[4..8].copy_from_slice(&0x7fff_0000i32.to_ne_bytes());
        assert_eq!(channel.ask(GET_LINK, &body), Err(Errno::NODEV));
        let [delete_link, no_such_kind] = [17, 0x7fff];
        assert_eq!(channel.tell(delete_link, 0, &body), Err(Errno::NODEV));
        assert!(channel.tell(no_such_kind, 0, &body).is_err());
        body[4..8].copy_from_slice(&1i32.to_ne_bytes());
        assert!(channel.ask(GET_LINK, &body).is_ok());
    }
}
