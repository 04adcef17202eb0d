//! Making connections, in repair mode: numbers, queues, windows, and the ends that have come or gone.

use std::cell::Cell;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use gelid_image::messages::TcpStreamEntry;
use gelid_image::{Dir, ImageKind};
use gelid_sys::sockopt::{self, IntOption, SocketOption};
use gelid_sys::tcp::{self, Queue, Repair};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, bind, connect, send, shutdown};

use super::super::Error;
use super::forge::{self, ACK, FIN, RST, Segment};
use super::{State, Stream};

/// Room for the queues while they are filled.
const ROOM: i32 = 1 << 29;
/// Bytes that are written at once.
const PIECE: usize = 256 << 10;
/// So long a segment on its way within the machine is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection in the making.
pub(in super::super) struct Making<'a> {
    pub(super) fd: BorrowedFd<'a>,
    pub(super) object: &'a str,
    pub(super) stream: &'a Stream,
    pub(super) own: SocketAddr,
    pub(super) peer: SocketAddr,
    /// With whom it is connected instead.
    elsewhere: Cell<Option<SocketAddr>>,
}

impl<'a> Making<'a> {
    pub(in super::super) fn new(
        fd: BorrowedFd<'a>,
        object: &'a str,
        stream: &'a Stream,
        (own, peer): (SocketAddr, SocketAddr),
    ) -> Self {
        Self {
            fd,
            object,
            stream,
            own,
            peer,
            elsewhere: Cell::new(None),
        }
    }

    /// Connects a new socket and fills its queues from the image. It stays in repair, unless it is closed or not
    /// connected yet.
    pub(in super::super) fn make(&self, dir: &Dir, inode: u32) -> Result<(), Error> {
        self.call("repair (TCP_REPAIR)", tcp::repair(self.fd, Repair::On))?;
        self.number()?;
        match bind(self.fd, &self.own) {
            Err(Errno::ADDRINUSE) => return Err(self.occupied()),
            bound => self.call("bind", bound)?,
        }
        if self.stream.state == State::SynSent {
            return self.call(
                "leave the repair of",
                tcp::repair(self.fd, Repair::OffSilently),
            );
        }
        self.connect()?;
        let stream = self.stream;
        if let Some(time) = stream.timestamp {
            self.call("set the time of", tcp::set_timestamp(self.fd, time))?;
        }
        self.make_room()?;
        let mut reader = dir.reader(ImageKind::TcpStream, inode)?;
        let _: TcpStreamEntry = reader.read_one()?;
        self.call("fill", tcp::choose(self.fd, Queue::Receive))?;
        self.pour(
            &mut reader.payload(stream.received.into())?,
            stream.received,
        )?;
        self.call("fill", tcp::choose(self.fd, Queue::Send))?;
        let sent = match stream.state {
            State::Closed => 0,
            _ => stream.sent - stream.unsent,
        };
        self.pour(&mut reader.payload(sent.into())?, sent)?;
        self.end()
    }

    /// Connects by word alone, with segments as large as they were: the kernel works that out once, when it connects.
    fn connect(&self) -> Result<(), Error> {
        /// The largest that `TCP_MAXSEG` takes.
        const LARGEST: u32 = 32_767;
        let set = |mss: u32| SocketOption::TCP_MAXSEG.set(self.fd, &mss.to_ne_bytes());
        let mss = self.stream.negotiated.mss;
        // What is too small is left to the kernel.
        let sized = set(mss.min(LARGEST)).is_ok();
        let connected = match (connect(self.fd, &self.peer), self.stream.state) {
            // Its last segments, or another connection. Nobody asks with whom one that is over was.
            (Err(Errno::ADDRNOTAVAIL), State::Closed) => self.connect_anywhere(),
            (connected, _) => connected,
        };
        match connected {
            Err(Errno::ADDRNOTAVAIL) => return Err(self.occupied()),
            connected => self.call("connect", connected)?,
        }
        if sized {
            self.call("size the segments of", set(0))?;
        }
        self.call("negotiate", tcp::negotiate(self.fd, self.stream.negotiated))?;
        if mss > LARGEST {
            // To set no options makes the kernel work it out once more, for IPv4.
            let _ = SocketOption::IP_OPTIONS.set(self.fd, &[]);
        }
        Ok(())
    }

    /// Connects with another port of the peer.
    fn connect_anywhere(&self) -> Result<(), Errno> {
        /// So many ports are tried.
        const PORTS: u16 = 64;
        for away in 1..PORTS {
            let mut peer = self.peer;
            peer.set_port(peer.port().wrapping_add(away).max(1));
            match connect(self.fd, &peer) {
                Err(Errno::ADDRNOTAVAIL) => {}
                connected => {
                    self.elsewhere.set(Some(peer));
                    return connected;
                }
            }
        }
        Err(Errno::ADDRNOTAVAIL)
    }

    /// Sets the numbers of the first bytes of both queues.
    fn number(&self) -> Result<(), Error> {
        let stream = self.stream;
        let (own_end, their_end) = self.ends();
        // A connection that is asked for has used up one.
        let asked = u32::from(stream.state == State::SynSent);
        let sent = stream.sent_end.wrapping_sub(stream.sent);
        let received = stream.received_end.wrapping_sub(stream.received);
        for (queue, number) in [
            (Queue::Send, sent.wrapping_sub(own_end + asked)),
            (Queue::Receive, received.wrapping_sub(their_end)),
        ] {
            let set = tcp::choose(self.fd, queue).and_then(|()| tcp::set_sequence(self.fd, number));
            self.call("number the bytes of", set)?;
        }
        Ok(())
    }

    /// The ends of both streams as far as they are there, as the bytes that they count as.
    fn ends(&self) -> (u32, u32) {
        let state = self.stream.state;
        (u32::from(state.has_ended()), u32::from(state.is_ended()))
    }

    /// Brings the ends about that need no packet of one's own.
    fn end(&self) -> Result<(), Error> {
        let stream = self.stream;
        let (own_end, their_end) = self.ends();
        let segment = Segment {
            from: self.elsewhere.get().unwrap_or(self.peer),
            to: self.own,
            seq: stream.received_end.wrapping_sub(their_end),
            ack: stream
                .sent_end
                .wrapping_sub(stream.sent)
                .wrapping_sub(own_end),
            flags: ACK,
        };
        match stream.state {
            State::CloseWait | State::LastAck => {
                let end = Segment {
                    flags: FIN | ACK,
                    ..segment
                };
                self.receive(end, State::CloseWait)?;
            }
            State::FinWait2 => {
                self.call("shut down", shutdown(self.fd, Shutdown::Write))?;
                let acknowledged = Segment {
                    ack: stream.sent_end,
                    ..segment
                };
                self.receive(acknowledged, State::FinWait2)?;
            }
            State::Closed => {
                let broken = Segment {
                    flags: RST | ACK,
                    ..segment
                };
                self.receive(broken, State::Closed)?;
                if !stream.error {
                    // It is told to the one who asks first.
                    let _ = sockopt::int(self.fd, IntOption::ERROR);
                }
                let _ = tcp::choose(self.fd, Queue::None);
                return self.call(
                    "leave the repair of",
                    tcp::repair(self.fd, Repair::OffSilently),
                );
            }
            _ => {}
        }
        if let Some(mut window) = stream.window {
            if stream.state == State::Closing {
                // The end of the peer's stream is still to come.
                window.rcv_wup = window.rcv_wup.wrapping_sub(1);
                window.snd_wl1 = window.snd_wl1.wrapping_sub(1);
            }
            self.call("set the windows of", tcp::set_window(self.fd, window))?;
        }
        self.call("leave the queues of", tcp::choose(self.fd, Queue::None))
    }

    /// Sends a segment in the name of the peer and waits for what it brings about.
    pub(super) fn receive(&self, segment: Segment, state: State) -> Result<(), Error> {
        self.call("send in the name of the peer of", forge::send(segment))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let info = self.call("ask for the state of", tcp::info(self.fd))?;
            if State::numbered(info.state.into()) == Some(state) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Unmoved {
                    object: self.object.to_owned(),
                });
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn make_room(&self) -> Result<(), Error> {
        for option in [IntOption::SNDBUFFORCE, IntOption::RCVBUFFORCE] {
            let made = sockopt::set_int(self.fd, option, ROOM);
            self.call("make room in the queues of", made)?;
        }
        Ok(())
    }

    /// Writes so many bytes to the socket, or to its chosen queue.
    pub(super) fn pour(&self, from: &mut impl Read, len: u32) -> Result<(), Error> {
        let mut left = len as usize;
        let mut buffer = vec![0; PIECE.min(left)];
        while left > 0 {
            let piece = buffer.len().min(left);
            let read = from.read_exact(&mut buffer[..piece]);
            read.map_err(|source| Error::Contents {
                object: self.object.to_owned(),
                source,
            })?;
            let mut rest = &buffer[..piece];
            while !rest.is_empty() {
                let sent = send(self.fd, rest, SendFlags::NOSIGNAL);
                rest = &rest[self.call("fill the queues of", sent)?..];
            }
            left -= piece;
        }
        Ok(())
    }

    fn occupied(&self) -> Error {
        Error::Occupied {
            object: format!("{} to {}", self.object, self.peer),
        }
    }

    pub(super) fn call<T>(
        &self,
        operation: &'static str,
        result: Result<T, Errno>,
    ) -> Result<T, Error> {
        result.map_err(Error::system(operation, self.object))
    }
}
