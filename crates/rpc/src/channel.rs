//! One end of a connection: a packet is a message.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::Message;
use rustix::io::Errno;
use rustix::net::sockopt::{socket_peercred, socket_type};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, recv, sendmsg,
};
use rustix::process::{Pid, Uid};

use crate::messages::{Request, Response};

/// Why nothing was received or sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptor is no socket of packets.
    #[error("the descriptor is no connected socket of packets: {errno}")]
    NoSocket {
        /// What the kernel said.
        errno: Errno,
    },
    /// A packet could not be received.
    #[error("cannot receive a request: {errno}")]
    Receive {
        /// What the kernel said.
        errno: Errno,
    },
    /// A packet is too large.
    #[error(
        "a request of {length} bytes is more than {} are taken",
        Channel::LIMIT
    )]
    TooLarge {
        /// Bytes.
        length: usize,
    },
    /// A packet is not a request.
    #[error("a packet of {length} bytes is no request: {source}")]
    Garbage {
        /// Bytes.
        length: usize,
        /// What is wrong.
        source: prost::DecodeError,
    },
    /// An answer could not be sent.
    #[error("cannot send an answer: {errno}")]
    Send {
        /// What the kernel said.
        errno: Errno,
    },
}

/// Who has made the connection, or the pair of sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The process, if it can be seen from here.
    pub pid: Option<Pid>,
    /// Its user.
    pub uid: Uid,
}

/// A connection.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    peer: Peer,
}

impl Channel {
    /// No request is larger. Clients send some kilobytes.
    pub const LIMIT: usize = 16 << 20;

    /// A connection from its descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::NoSocket`] if it is none.
    pub fn new(socket: OwnedFd) -> Result<Self, Error> {
        let no_socket = |errno| Error::NoSocket { errno };
        if socket_type(&socket).map_err(no_socket)? != SocketType::SEQPACKET {
            return Err(no_socket(Errno::PROTOTYPE));
        }
        let credentials = socket_peercred(&socket);
        let peer = match credentials {
            // A process that cannot be seen from here has the number 0, which is none.
            Ok(credentials) => Peer {
                pid: Pid::from_raw(credentials.pid.as_raw_pid()),
                uid: credentials.uid,
            },
            Err(errno) => return Err(no_socket(errno)),
        };
        Ok(Self { socket, peer })
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Inode of this end, by which the other one is known in a tree that it belongs to.
    #[must_use]
    pub fn inode(&self) -> Option<u32> {
        let stat = rustix::fs::fstat(&self.socket).ok()?;
        u32::try_from(stat.st_ino).ok()
    }

    /// The next request; `None` if the client has gone.
    ///
    /// # Errors
    ///
    /// What is received is no request.
    pub fn receive(&self) -> Result<Option<Request>, Error> {
        let Some(packet) = self.packet()? else {
            return Ok(None);
        };
        let request = Request::parse(&packet).map_err(|source| Error::Garbage {
            length: packet.len(),
            source,
        })?;
        Ok(Some(request))
    }

    /// The next packet. An empty one is the end of the connection, as for CRIU. Descriptors that come with it are
    /// dropped by the kernel, since nothing asks for them.
    fn packet(&self) -> Result<Option<Vec<u8>>, Error> {
        let failed = |errno| Error::Receive { errno };
        let mut nothing: [MaybeUninit<u8>; 0] = [];
        let peek = RecvFlags::PEEK | RecvFlags::TRUNC;
        let length = loop {
            match recv(&self.socket, &mut nothing, peek) {
                Ok((_, length)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                Err(errno) => return Err(failed(errno)),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        if length > Self::LIMIT {
            return Err(Error::TooLarge { length });
        }
        let mut packet = vec![0; length];
        let (_, received) = rustix::io::retry_on_intr(|| {
            recv(&self.socket, packet.as_mut_slice(), RecvFlags::TRUNC)
        })
        .map_err(failed)?;
        packet.truncate(received);
        Ok(Some(packet))
    }

    /// Sends an answer or a notification.
    ///
    /// # Errors
    ///
    /// [`Error::Send`] above all if the client has gone.
    pub fn send(&self, response: &Response) -> Result<(), Error> {
        self.send_with(response, None)
    }

    /// The same, with a descriptor for the client.
    ///
    /// # Errors
    ///
    /// As of [`send`](Self::send).
    pub fn send_with(
        &self,
        response: &Response,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        let packet = response.encode_to_vec();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let descriptor = descriptor.as_slice();
        let sent = rustix::io::retry_on_intr(|| {
            let mut control = SendAncillaryBuffer::new(&mut room);
            if !descriptor.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptor));
            }
            sendmsg(
                &self.socket,
                &[IoSlice::new(&packet)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        });
        sent.map(drop).map_err(|errno| Error::Send { errno })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::RequestKind;
    use rustix::net::{AddressFamily, SocketFlags, send, socketpair};

    fn pair() -> (Channel, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        (Channel::new(ours).unwrap(), theirs)
    }

    #[test]
    fn a_packet_is_a_request() {
        let (channel, client) = pair();
        send(&client, &[0x08, 0x0a], SendFlags::empty()).unwrap();
        let request = channel.receive().unwrap().unwrap();
        assert_eq!(request.kind(), Some(RequestKind::Version));
        assert_eq!(channel.peer().pid, Some(rustix::process::getpid()));
        drop(client);
        assert!(channel.receive().unwrap().is_none());
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        let (channel, client) = pair();
        for packet in [&[0xff][..], &[0x08], &[0x12, 0x7f, 0x08]] {
            send(&client, packet, SendFlags::empty()).unwrap();
            assert!(
                matches!(channel.receive(), Err(Error::Garbage { .. })),
                "{packet:?}"
            );
        }
    }

    #[test]
    fn only_sockets_of_packets_are_taken() {
        let (ours, _theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        assert!(matches!(Channel::new(ours), Err(Error::NoSocket { .. })));
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(
            Channel::new(null.into()),
            Err(Error::NoSocket { .. })
        ));
    }
}
