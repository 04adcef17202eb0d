//! What waits to be read from a socket, looked at without taking it. Section 14.5 of the format.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use gelid_image::messages::{GelidPacketEntry, GelidUcredEntry, ScmEntry, SkPacketEntry};
use gelid_sys::diag::UnixSocket;
use gelid_sys::proc::TaskDir;
use gelid_sys::sockopt::{self, IntOption};
use gelid_sys::unix::{self, Message};
use gelid_sys::{Errno, pidfd};
use rustix::fs::Stat;

use super::super::{Collector, Error, Object, Place, Task};
use super::{DGRAM, STREAM, UnixRefusal};

/// The bit of `sk_shutdown` for receiving.
const RECEIVING: u8 = 1;
/// `SCM_RIGHTS`
const RIGHTS: u32 = 1;

/// Room for a message whose length is not known yet.
const ROOM: usize = 64 << 10;

/// A socket with something to read.
#[derive(Debug)]
pub(super) struct Queue {
    id: u32,
    /// `SO_PEEK_OFF`
    peek_offset: i32,
    kind: u32,
    /// Bytes in it; of datagrams, those of the first.
    expected: u32,
    /// Nothing will come any more: at the end there is an empty message instead of none.
    ended: bool,
}

impl Queue {
    pub(super) fn new(id: u32, seen: &UnixSocket, peek_offset: i32) -> Self {
        Self {
            id,
            peek_offset,
            kind: seen.kind.into(),
            expected: seen.receive_queue,
            ended: u32::from(seen.kind) != DGRAM && seen.shutdown & RECEIVING != 0,
        }
    }
}

/// A queue that is looked at later, and a descriptor of its socket.
#[derive(Debug)]
pub(super) struct Unread {
    queue: Queue,
    file: OwnedFd,
    stat: Stat,
    place: Place,
    link: Vec<u8>,
}

impl Unread {
    fn new(queue: Queue, object: &Object<'_>) -> Result<Self, Error> {
        let file = rustix::io::fcntl_dupfd_cloexec(object.file, 0);
        Ok(Self {
            queue,
            file: file.map_err(object.failed("duplicate"))?,
            stat: *object.stat,
            place: object.place,
            link: object.link.clone(),
        })
    }
}

impl Collector<'_> {
    /// Records what is in a queue, now if that is one message without descriptors. Those in flight come behind the table of
    /// their receiver, which may have them too.
    pub(super) fn queue(&mut self, queue: Queue, object: &Object<'_>) -> Result<(), Error> {
        let mut buffer = std::mem::take(&mut self.sockets.buffer);
        let whole = whole(&queue, object, &mut buffer)?;
        let plain = whole.filter(|message| message.rights.is_empty() && !message.cut);
        match plain {
            Some(message) => self.last_packet(&queue, object, &buffer, message)?,
            None => self.sockets.unread.push(Unread::new(queue, object)?),
        }
        self.sockets.buffer = buffer;
        Ok(())
    }

    /// Records what is in the queues that were left, and the descriptors that are in flight in
    /// them, among which can be further sockets, with such queues of their own.
    pub(in super::super) fn queues(&mut self) -> Result<(), Error> {
        while !self.sockets.unread.is_empty() {
            for unread in std::mem::take(&mut self.sockets.unread) {
                let object = Object {
                    place: unread.place,
                    file: unread.file.as_fd(),
                    stat: &unread.stat,
                    link: unread.link.clone(),
                };
                let mut buffer = Vec::new();
                match whole(&unread.queue, &object, &mut buffer)? {
                    Some(message) => self.last_packet(&unread.queue, &object, &buffer, message)?,
                    None => self.further(&unread.queue, &object, &mut buffer)?,
                }
            }
        }
        Ok(())
    }

    /// Records the only message of a queue.
    fn last_packet(
        &mut self,
        queue: &Queue,
        object: &Object<'_>,
        buffer: &[u8],
        message: Message,
    ) -> Result<(), Error> {
        let sender = self.sender(&message, || unix::sender(object.file));
        self.packet(queue, object, buffer, (message, sender))
    }

    /// Looks at one message after the other.
    fn further(
        &mut self,
        queue: &Queue,
        object: &Object<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let offset = PeekOffset::start(object)?;
        let (mut found, expected) = (0, queue.expected);
        // A stream is not asked for more than it has: it could have an error to tell then.
        while queue.kind != STREAM || found < u64::from(expected) {
            let Some(mut message) = look(object, buffer, rest(queue, found))? else {
                break;
            };
            if message.len > buffer.len() {
                offset.back_to(object, found)?;
                let room = message.len;
                match look(object, buffer, room)? {
                    Some(whole) => message = whole,
                    None => break,
                }
            }
            let at_end = found >= u64::from(expected) && message.len == 0;
            if at_end && queue.ended {
                break;
            }
            let end = found + message.len as u64;
            let number = |(pid, ..): (i32, u32, u32)| self.census.numbers.number(pid);
            let has_ended = message
                .credentials
                .is_some_and(|who| who.0 != 0 && number(who) == 0);
            if has_ended {
                offset.back_to(object, found)?;
            }
            let sender = self.sender(&message, || unix::sender(object.file));
            if has_ended {
                offset.back_to(object, end)?;
            }
            found = end;
            self.packet(queue, object, buffer, (message, sender))?;
        }
        drop(offset);
        match found >= u64::from(expected) {
            true => Ok(()),
            false => Err(object.refused(UnixRefusal::Torn { expected, found })),
        }
    }

    /// Who has sent a message. `again` asks for the number of somebody who has ended, from among the processes of the tree.
    fn sender(
        &self,
        message: &Message,
        again: impl FnOnce() -> Result<i32, Errno> + Send,
    ) -> Option<GelidUcredEntry> {
        let again = || again().map(|pid| [pid]);
        super::who(message.credentials?, &self.census, again)
    }

    /// Records a message.
    fn packet(
        &mut self,
        queue: &Queue,
        object: &Object<'_>,
        buffer: &[u8],
        (message, sender): (Message, Option<GelidUcredEntry>),
    ) -> Result<(), Error> {
        if message.cut {
            return Err(object.refused(UnixRefusal::Crowded));
        }
        let gelid = GelidPacketEntry {
            source: Some(message.source).filter(|it| queue.kind == DGRAM && !it.is_empty()),
            sender,
        };
        let mut rights = Vec::with_capacity(message.rights.len());
        for file in message.rights {
            rights.push(self.in_flight(object.place, file)?);
        }
        let pidfds = rights.iter().filter_map(|id| self.live_pidfds.get(id));
        match pidfds.max() {
            Some(true) => return Err(object.refused(UnixRefusal::Pidfd)),
            Some(false) => drop(self.sockets.with_pidfds.insert(queue.id)),
            None => {}
        }
        if gelid.sender.is_some() {
            self.sockets.with_senders.insert(queue.id);
        }
        let scm = match rights.is_empty() {
            true => Vec::new(),
            false => vec![ScmEntry {
                r#type: RIGHTS,
                rights,
            }],
        };
        let bytes = &buffer[..message.len.min(buffer.len())];
        self.sockets.packets.push(&SkPacketEntry {
            id_for: queue.id,
            length: u32::try_from(bytes.len()).map_err(|_| Error::TooMany)?,
            scm,
            gelid: (gelid != GelidPacketEntry::default()).then_some(gelid),
        })?;
        self.sockets.packets.push_payload(bytes)?;
        Ok(())
    }

    /// The id of the file behind a descriptor in flight, of which the dumper has a duplicate.
    fn in_flight(&mut self, to: Place, file: OwnedFd) -> Result<u32, Error> {
        let pid = rustix::process::getpid();
        let myself = pidfd::open(pid).map_err(|errno| Error::Own {
            operation: "open a descriptor of the dumper itself",
            errno,
        })?;
        let own = Task {
            pid,
            dir: &TaskDir::open(pid)?,
            pidfd: myself.as_fd(),
        };
        let place = match to {
            Place::Descriptor { pid, fd } => Place::InFlight { pid, fd },
            other => other,
        };
        let slot = self.descriptor_at(own, file.as_raw_fd(), place)?;
        self.sockets.in_flight.push(file);
        Ok(slot.id)
    }
}

/// The first message of a queue if it is all that there is. All bytes of a stream are one, unless descriptors are in flight
/// between them, and the first look leaves no trace.
fn whole(
    queue: &Queue,
    object: &Object<'_>,
    buffer: &mut Vec<u8>,
) -> Result<Option<Message>, Error> {
    if queue.kind != STREAM || queue.peek_offset != -1 {
        return Ok(None);
    }
    let first = look(object, buffer, queue.expected as usize)?;
    Ok(first.filter(|first| first.len as u64 >= u64::from(queue.expected)))
}

/// Bytes that can still come.
fn rest(queue: &Queue, read: u64) -> usize {
    match queue.kind {
        STREAM => usize::try_from(u64::from(queue.expected).saturating_sub(read)).unwrap_or(ROOM),
        _ => ROOM,
    }
}

/// The next message of a queue, with a buffer that is large enough for it; `None` at the end.
fn look(object: &Object<'_>, buffer: &mut Vec<u8>, room: usize) -> Result<Option<Message>, Error> {
    buffer.resize(room.max(1), 0);
    let message = match unix::peek(object.file, buffer) {
        Err(Errno::AGAIN) => return Ok(None),
        message => message.map_err(object.failed("look into"))?,
    };
    Ok(Some(message))
}

/// A socket whose looks into its queue go on from one message to the next.
struct PeekOffset<'f> {
    file: BorrowedFd<'f>,
    before: i32,
}

impl<'f> PeekOffset<'f> {
    fn start(object: &Object<'f>) -> Result<Self, Error> {
        let failed = || object.failed("look further into");
        let before = sockopt::int(object.file, IntOption::PEEK_OFF).map_err(failed())?;
        sockopt::set_int(object.file, IntOption::PEEK_OFF, 0).map_err(failed())?;
        Ok(Self {
            file: object.file,
            before,
        })
    }

    /// Looks again at what begins behind so many bytes.
    fn back_to(&self, object: &Object<'_>, bytes: u64) -> Result<(), Error> {
        let bytes = i32::try_from(bytes).map_err(|_| Error::TooMany)?;
        let set = sockopt::set_int(self.file, IntOption::PEEK_OFF, bytes);
        set.map_err(object.failed("look again into"))
    }
}

impl Drop for PeekOffset<'_> {
    fn drop(&mut self) {
        // It was set a moment ago, so it can be set again.
        let _ = sockopt::set_int(self.file, IntOption::PEEK_OFF, self.before);
    }
}
