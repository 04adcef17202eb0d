//! Connections of TCP: looked at in repair mode, once packets are kept away from them. Section 14.3 of the format.
//!
//! A connection is in repair twice, as short as can be: while its queues are read, and when its tree is killed, so that
//! it vanishes without a word to its peer. A guardian sees to it that none stays so if this process is killed meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_image::ImageKind;
use gelid_image::messages::{InetSkEntry, TcpStreamEntry};
use gelid_netlock::Lock;
use gelid_sys::guardian::Guardian;
use gelid_sys::pidfd;
use gelid_sys::sockopt::{self, IntOption};
use gelid_sys::tcp::{self, Info, Queue, Repair, Window, negotiated};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
    guardian: Option<Guardian>,
    locks: Vec<Lock>,
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
        // One that is over has nothing to lose but unread bytes.
        if self.options.tcp_close && (!closed || is_over_and_forbidden(object)?) {
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
        let locks = self.keep_away(&connections)?;
        let guardian = self.guard(&connections)?;
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
        Ok(Network {
            guardian,
            locks,
            sockets,
        })
    }

    /// Has somebody bring connections out of repair if this process is killed.
    fn guard(&self, connections: &[Connection]) -> Result<Option<Guardian>, Error> {
        let Some(root) = self.tree.first().filter(|_| !connections.is_empty()) else {
            return Ok(None);
        };
        let sockets = connections
            .iter()
            .map(|connection| connection.socket.as_fd());
        let sockets: Vec<BorrowedFd<'_>> = sockets.collect();
        let posted = pidfd::open(*root).and_then(|root| Guardian::post(&sockets, root.as_fd()));
        posted.map(Some).map_err(|errno| Error::Own {
            operation: "start a process that looks after connections",
            errno,
        })
    }

    /// Keeps packets away from connections, in the network namespace of each.
    fn keep_away(&mut self, connections: &[Connection]) -> Result<Vec<Lock>, Error> {
        let mut by_network: BTreeMap<Option<u32>, Vec<&Connection>> = BTreeMap::new();
        for connection in connections {
            if connection.entry.state != u32::from(CLOSED) {
                let network = connection.entry.ns_id;
                by_network.entry(network).or_default().push(connection);
            }
        }
        let mut locks = Vec::new();
        for these in by_network.into_values() {
            if let Some(first) = these.first() {
                let entered = self.enter_network_of(&first.socket);
                entered.map_err(|errno| Error::System {
                    operation: "join the network namespace of",
                    place: first.place,
                    name: first.link.clone(),
                    errno,
                })?;
            }
            let ends = these.iter();
            let ends: Vec<_> = ends
                .map(|it| gelid_netlock::Connection::new(it.own, it.peer))
                .collect();
            let (method, run) = (self.options.network_lock, &self.options.run_id);
            locks.push(Lock::set(method, run, &ends)?);
        }
        Ok(locks)
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
        let socket = self.socket.as_fd();
        for _ in 0..LOOKS {
            let before = standing(socket).map_err(failed("ask for the state of"))?;
            if before.info.state == SYN_RECV {
                break;
            }
            let repaired =
                repaired(socket, before.sent()).map_err(failed("look, in TCP_REPAIR, at"))?;
            let received = peek(socket, vec![0; before.unread as usize])
                .map_err(failed("read the queues of"))?;
            let timestamp = tcp::timestamp(socket).map_err(failed("ask for the time of"))?;
            let read_shut = is_read_shut(socket).map_err(failed("poll"))?;
            if standing(socket).map_err(failed("ask for the state of"))? != before {
                continue;
            }
            let entry = entry(before, &repaired, timestamp);
            if let (Some(received), Some(sent)) = (received, repaired.sent) {
                let ended = ENDED.contains(&before.info.state);
                let stream = Stream {
                    entry,
                    received,
                    sent,
                    shut: u8::from(read_shut) | if ended { 2 } else { 0 },
                };
                return Ok((before.info.state, stream));
            }
        }
        Err(Error::Internet {
            place: self.place,
            name: self.link.clone(),
            why: InetRefusal::Unsteady,
        })
    }
}

/// Where a connection stands, as it tells everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    info: Info,
    /// Bytes in the queues, and those never sent, with the end of the stream as one.
    unread: u32,
    unacknowledged: u32,
    unsent: u32,
}

impl Standing {
    /// Bytes in the queue for sending without the end of the stream.
    fn sent(&self) -> u32 {
        match self.info.state {
            // What was not acknowledged then never will be.
            CLOSED | SYN_SENT => 0,
            _ => self.unacknowledged - self.end(),
        }
    }

    /// Those of them that were never sent.
    fn unsent(&self) -> u32 {
        match self.info.state {
            CLOSED | SYN_SENT => 0,
            _ => self.unsent.saturating_sub(self.end()),
        }
    }

    /// An end that was sent counts as a byte as long as it is not acknowledged.
    fn end(&self) -> u32 {
        u32::from(ENDED.contains(&self.info.state) && self.unacknowledged > 0)
    }
}

fn standing(socket: BorrowedFd<'_>) -> Result<Standing, Errno> {
    Ok(Standing {
        info: tcp::info(socket)?,
        unread: tcp::unread(socket)?,
        unacknowledged: tcp::unacknowledged(socket)?,
        unsent: tcp::unsent(socket)?,
    })
}

fn is_read_shut(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec::default()))?;
    Ok(polled[0].revents().contains(PollFlags::RDHUP))
}

/// What is only told in repair.
struct InRepair {
    /// Sequence numbers behind what was received, and behind what was written.
    received_end: u32,
    sent_end: u32,
    mss: u32,
    window: Option<Window>,
    /// The queue for sending, if it is as long as announced.
    sent: Option<Vec<u8>>,
}

/// Asks for it, in as few calls as can be: nobody must die meanwhile.
fn repaired(socket: BorrowedFd<'_>, sent: u32) -> Result<InRepair, Errno> {
    // Not zeros, so that the memory is there when it is needed.
    let room = vec![1; sent as usize];
    let repaired = Repaired::start(socket)?;
    let told = (|| {
        tcp::choose(socket, Queue::Receive)?;
        let received_end = tcp::sequence(socket)?;
        tcp::choose(socket, Queue::Send)?;
        Ok(InRepair {
            received_end,
            sent_end: tcp::sequence(socket)?,
            mss: tcp::max_segment(socket)?,
            window: match tcp::window(socket) {
                Err(Errno::NOPROTOOPT) => None,
                window => Some(window?),
            },
            sent: peek(socket, room)?,
        })
    })();
    repaired.end()?;
    told
}

/// Whether a closed connection cannot be looked at without the rights that it takes, and nothing was left to see.
fn is_over_and_forbidden(object: &Object<'_>) -> Result<bool, Error> {
    let socket = object.file.as_fd();
    match Repaired::start(socket) {
        Err(Errno::PERM) => {}
        repaired => {
            let ended = repaired.and_then(Repaired::end);
            ended.map_err(object.failed("look, in TCP_REPAIR, at"))?;
            return Ok(false);
        }
    }
    let standing = standing(socket).map_err(object.failed("ask for the state of"))?;
    Ok(standing.unread == 0)
}

/// The record of a stream.
fn entry(at: Standing, told: &InRepair, timestamp: u32) -> TcpStreamEntry {
    let has = |bit| at.info.options & bit != 0;
    let (scaled, window) = (has(negotiated::WSCALE), told.window);
    TcpStreamEntry {
        inq_len: at.unread,
        inq_seq: told.received_end,
        outq_len: at.sent(),
        outq_seq: told.sent_end,
        unsq_len: Some(at.unsent()),
        opt_mask: at.info.options,
        snd_wscale: if scaled { at.info.snd_wscale.into() } else { 0 },
        rcv_wscale: scaled.then_some(at.info.rcv_wscale.into()),
        mss_clamp: told.mss,
        timestamp: has(negotiated::TIMESTAMPS).then_some(timestamp),
        snd_wl1: window.map(|window| window.snd_wl1),
        snd_wnd: window.map(|window| window.snd_wnd),
        max_window: window.map(|window| window.max_window),
        rcv_wnd: window.map(|window| window.rcv_wnd),
        rcv_wup: window.map(|window| window.rcv_wup),
        ..TcpStreamEntry::default()
    }
}

/// What is in the chosen queue, if it fills the room that was made for it.
fn peek(socket: BorrowedFd<'_>, mut bytes: Vec<u8>) -> Result<Option<Vec<u8>>, Errno> {
    if bytes.is_empty() {
        return Ok(Some(bytes));
    }
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    // A look begins where the program has set that, and moves it.
    let offset = sockopt::int(socket, IntOption::PEEK_OFF).unwrap_or(-1);
    if offset >= 0 {
        sockopt::set_int(socket, IntOption::PEEK_OFF, -1)?;
    }
    let peeked = recv(socket, &mut bytes[..], flags);
    if offset >= 0 {
        sockopt::set_int(socket, IntOption::PEEK_OFF, offset)?;
    }
    match peeked {
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
        // Nothing but calls from here to its end.
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
        if let Some(guardian) = &self.guardian {
            guardian.note_end();
        }
        end()?;
        repaired.into_iter().for_each(Repaired::forget);
        let kept = self.locks.into_iter().try_for_each(Lock::keep);
        Ok(kept.map_err(Error::from)?)
    }
}
