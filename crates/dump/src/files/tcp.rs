//! Connections of TCP: looked at in repair mode, once packets are kept away from them. Section 14.3 of the format.
//!
//! A connection is in repair twice, as short as can be: while its queues are read, and when its tree is killed, so that
//! it vanishes without a word to its peer.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_image::ImageKind;
use gelid_image::messages::{InetSkEntry, TcpStreamEntry};
use gelid_netlock::Lock;
use gelid_sys::sockopt::{self, IntOption};
use gelid_sys::tcp::{self, Info, Queue, Repair, negotiated};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::inet::{events, shut};
use super::{Collector, Error, InetRefusal, Name, Object, Place};

/// States in which the end of the own stream is sent.
const ENDED: [u8; 4] = [FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING];
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSED: u8 = 7;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// So often a connection is looked at until it stays the same.
const LOOKS: usize = 10;

/// A connection that was met.
#[derive(Debug)]
pub(super) struct Connection {
    place: Place,
    link: Name,
    socket: OwnedFd,
    own: SocketAddr,
    peer: SocketAddr,
    entry: InetSkEntry,
}

/// What keeps connections as they are recorded, until the end of their tree.
#[derive(Debug, Default)]
pub(crate) struct Network {
    lock: Option<Lock>,
    sockets: Vec<OwnedFd>,
}

impl Collector<'_> {
    /// Takes note of a connection, which is recorded at the end.
    pub(super) fn connection(
        &mut self,
        object: &Object<'_>,
        ends: (SocketAddr, SocketAddr),
        mut entry: InetSkEntry,
    ) -> Result<(), Error> {
        let (own, peer) = ends;
        let closed = entry.state == u32::from(CLOSED);
        if self.options.tcp_close && !closed {
            return self.push_inet(entry);
        }
        if !self.options.tcp_established && !closed {
            return Err(object.refused_inet(InetRefusal::Established { own, peer }));
        }
        let seen = events(object, PollFlags::PRI)?;
        if seen.contains(PollFlags::PRI) {
            return Err(object.refused_inet(InetRefusal::Urgent));
        }
        if seen.contains(PollFlags::ERR) && !closed {
            return Err(object.refused_inet(InetRefusal::Error));
        }
        if seen.contains(PollFlags::ERR) {
            entry.gelid.get_or_insert_default().error = Some(true);
        }
        let socket = rustix::io::fcntl_dupfd_cloexec(object.file, 0);
        self.internet.connections.push(Connection {
            place: object.place,
            link: Name(object.link.clone()),
            socket: socket.map_err(object.failed("duplicate"))?,
            own,
            peer,
            entry,
        });
        Ok(())
    }

    /// Keeps packets away from all connections, and records them.
    pub(super) fn connections(&mut self) -> Result<Network, Error> {
        let connections = std::mem::take(&mut self.internet.connections);
        let open = |it: &&Connection| it.entry.state != u32::from(CLOSED);
        let ends = connections.iter().filter(open);
        let ends: Vec<_> = ends
            .map(|it| gelid_netlock::Connection::new(it.own, it.peer))
            .collect();
        let lock = match ends.is_empty() {
            true => None,
            false => Some(Lock::set(
                self.options.network_lock,
                &self.options.run_id,
                &ends,
            )?),
        };
        let mut sockets = Vec::new();
        for connection in connections {
            let (state, stream) = connection.look()?;
            let mut writer = self
                .staging
                .writer(ImageKind::TcpStream, connection.entry.ino)?;
            let entry = writer.push(&stream.entry)?;
            entry
                .push_payload(&stream.received)?
                .push_payload(&stream.sent)?;
            writer.finish()?;
            let mut entry = connection.entry;
            entry.state = state.into();
            entry.shutdown = shut(stream.shut);
            entry.backlog = stream.entry.outq_len;
            self.push_inet(entry)?;
            if state != CLOSED {
                sockets.push(connection.socket);
            }
        }
        Ok(Network { lock, sockets })
    }
}

/// What there is to know about a connection.
#[derive(Debug, PartialEq, Eq)]
struct Stream {
    entry: TcpStreamEntry,
    received: Vec<u8>,
    sent: Vec<u8>,
    /// Directions that are shut down.
    shut: u8,
}

impl Connection {
    /// Its state and queues, once they stay the same.
    fn look(&self) -> Result<(u8, Stream), Error> {
        let failed = |operation| {
            move |errno| Error::System {
                operation,
                place: self.place,
                name: self.link.clone(),
                errno,
            }
        };
        for _ in 0..LOOKS {
            let repaired = Repaired::start(self.socket.as_fd());
            let repaired = repaired.map_err(failed("repair (TCP_REPAIR)"))?;
            let read = (|| {
                let before = standing(self.socket.as_fd())?;
                let stream = read(self.socket.as_fd(), before)?;
                Ok((before == standing(self.socket.as_fd())?).then_some((before, stream)))
            })();
            let ended = repaired.end().map_err(failed("leave as it was"));
            let read = read.map_err(failed("read the queues of"));
            ended?;
            match read? {
                Some((standing, _)) if standing.info.state == SYN_RECV => break,
                Some((standing, Some(stream))) => return Ok((standing.info.state, stream)),
                _ => {}
            }
        }
        Err(Error::Internet {
            place: self.place,
            name: self.link.clone(),
            why: InetRefusal::Unsteady,
        })
    }
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    info: Info,
    /// Behind what was received, and behind what was written.
    received: u32,
    written: u32,
    /// Bytes in the queues, and those never sent, with the end of the stream as one.
    unread: u32,
    unacknowledged: u32,
    unsent: u32,
}

fn standing(socket: BorrowedFd<'_>) -> Result<Standing, Errno> {
    tcp::choose(socket, Queue::Receive)?;
    let received = tcp::sequence(socket)?;
    tcp::choose(socket, Queue::Send)?;
    let written = tcp::sequence(socket)?;
    Ok(Standing {
        info: tcp::info(socket)?,
        received,
        written,
        unread: tcp::unread(socket)?,
        unacknowledged: tcp::unacknowledged(socket)?,
        unsent: tcp::unsent(socket)?,
    })
}

/// Reads the queues of a socket in repair; `None` if they are not what was announced.
fn read(socket: BorrowedFd<'_>, at: Standing) -> Result<Option<Stream>, Errno> {
    let info = at.info;
    let ended = ENDED.contains(&info.state);
    // An end that was sent counts as a byte as long as it is not acknowledged.
    let end = u32::from(ended && at.unacknowledged > 0);
    let (unacknowledged, unsent) = match info.state {
        // What was not acknowledged then never will be.
        CLOSED | SYN_SENT => (0, 0),
        _ => (at.unacknowledged - end, at.unsent.saturating_sub(end)),
    };
    tcp::choose(socket, Queue::Receive)?;
    let received = peek(socket, at.unread)?;
    tcp::choose(socket, Queue::Send)?;
    let sent = peek(socket, unacknowledged)?;
    let (Some(received), Some(sent)) = (received, sent) else {
        return Ok(None);
    };
    let has = |bit| info.options & bit != 0;
    let window = match tcp::window(socket) {
        Err(Errno::NOPROTOOPT) => None,
        window => Some(window?),
    };
    let scaled = has(negotiated::WSCALE);
    let mut polled = [rustix::event::PollFd::new(&socket, PollFlags::RDHUP)];
    rustix::event::poll(&mut polled, Some(&rustix::event::Timespec::default()))?;
    let read_shut = polled[0].revents().contains(PollFlags::RDHUP);
    Ok(Some(Stream {
        entry: TcpStreamEntry {
            inq_len: at.unread,
            inq_seq: at.received,
            outq_len: unacknowledged,
            outq_seq: at.written,
            unsq_len: Some(unsent),
            opt_mask: info.options,
            snd_wscale: if scaled { info.snd_wscale.into() } else { 0 },
            rcv_wscale: scaled.then_some(info.rcv_wscale.into()),
            mss_clamp: tcp::max_segment(socket)?,
            timestamp: match has(negotiated::TIMESTAMPS) {
                true => Some(tcp::timestamp(socket)?),
                false => None,
            },
            snd_wl1: window.map(|window| window.snd_wl1),
            snd_wnd: window.map(|window| window.snd_wnd),
            max_window: window.map(|window| window.max_window),
            rcv_wnd: window.map(|window| window.rcv_wnd),
            rcv_wup: window.map(|window| window.rcv_wup),
            ..TcpStreamEntry::default()
        },
        received,
        sent,
        shut: u8::from(read_shut) | if ended { 2 } else { 0 },
    }))
}

/// What is in the chosen queue, if it is as much as announced.
fn peek(socket: BorrowedFd<'_>, len: u32) -> Result<Option<Vec<u8>>, Errno> {
    let mut bytes = vec![0; len as usize];
    if len == 0 {
        return Ok(Some(bytes));
    }
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match recv(socket, &mut bytes[..], flags) {
        Ok((got, _)) if got == bytes.len() => Ok(Some(bytes)),
        Ok(_) | Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A socket in repair, which comes out of it again without a packet.
struct Repaired<'s> {
    socket: BorrowedFd<'s>,
    /// `SO_REUSEADDR`, which repair takes away.
    reuse: i32,
}

impl<'s> Repaired<'s> {
    fn start(socket: BorrowedFd<'s>) -> Result<Self, Errno> {
        let reuse = sockopt::int(socket, IntOption::REUSEADDR)?;
        tcp::repair(socket, Repair::On)?;
        Ok(Self { socket, reuse })
    }

    fn end(self) -> Result<(), Errno> {
        let ended = self.undo();
        self.forget();
        ended
    }

    fn undo(&self) -> Result<(), Errno> {
        let _ = tcp::choose(self.socket, Queue::None);
        tcp::repair(self.socket, Repair::OffSilently)?;
        sockopt::set_int(self.socket, IntOption::REUSEADDR, self.reuse)
    }

    /// Leaves it in repair.
    fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Repaired<'_> {
    fn drop(&mut self) {
        let _ = self.undo();
    }
}

impl Network {
    /// Ends the tree: its connections vanish silently, and packets are kept away until it is restored. If the end
    /// fails, they are as they were.
    pub(crate) fn part<E: From<Error>>(self, end: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut repaired = Vec::with_capacity(self.sockets.len());
        for socket in &self.sockets {
            let one = Repaired::start(socket.as_fd()).map_err(|errno| Error::Own {
                operation: "bring a connection into repair (TCP_REPAIR)",
                errno,
            });
            repaired.push(one?);
        }
        end()?;
        repaired.into_iter().for_each(Repaired::forget);
        match self.lock {
            Some(lock) => Ok(lock.keep().map_err(Error::from)?),
            None => Ok(()),
        }
    }
}
