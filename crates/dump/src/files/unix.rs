//! Unix sockets: pairs, names, those that listen, what is on its way. Section 14.4 of the format.
//!
//! Each socket is looked at when it is met. Who is whose peer can only be told when all were seen, so the
//! records are written at the end.

mod name;
mod peers;
mod queue;
mod refusal;
mod told;

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

use gelid_image::messages::{FdTypes, GelidUcredEntry, GelidUnixSkEntry, SkShutdown, UnixSkEntry};
use gelid_image::{ImageKind, ImageWriter, Staging};
use gelid_sys::Errno;
use gelid_sys::diag::{Diag, UnixSocket};
use gelid_sys::sockopt;
use rustix::event::PollFlags;

use self::queue::{Queue, Unread};
pub use self::refusal::UnixRefusal;
pub(super) use self::told::Told;
use super::regfile::Opening;
use super::{Collector, Error, Name, Object, Place, Task, sk_opts};
use crate::namespace::Census;

/// `SOCK_STREAM`
const STREAM: u32 = 1;
/// `SOCK_DGRAM`
const DGRAM: u32 = 2;
/// `TCP_ESTABLISHED`
const CONNECTED: u32 = 1;
/// Sockets that are asked for one by one.
const FEW: u32 = 16;
/// `TCP_LISTEN`
const LISTENING: u32 = 10;

/// Unix sockets met so far.
#[derive(Debug)]
pub(super) struct Sockets {
    diag: Option<Diag>,
    /// How often it was asked for one socket.
    asked: u32,
    /// All that there were when so many had been asked for that this was less work.
    all: HashMap<u32, UnixSocket>,
    met: Vec<Socket>,
    by_inode: HashMap<u32, usize>,
    /// Sockets with something to read that is recorded later.
    unread: Vec<Unread>,
    /// What was last looked at in one.
    buffer: Vec<u8>,
    /// Those who have a pidfd of somebody who lives in their queue, by id; of others, that messages have a sender's name.
    with_pidfds: HashSet<u32>,
    with_senders: HashSet<u32>,
    /// Descriptors that were in flight, which stay comparable as long as they are open.
    in_flight: Vec<OwnedFd>,
    packets: ImageWriter,
}

/// A socket, and what its record does not say.
#[derive(Debug)]
pub(super) struct Socket {
    place: Place,
    link: Name,
    entry: UnixSkEntry,
    /// As the kernel has it: 0 for one that is closed or not accepted yet.
    peer: u32,
    /// Who waits to be accepted.
    pending: Vec<u32>,
}

impl Sockets {
    pub(super) fn new(staging: &Staging) -> Result<Self, Error> {
        Ok(Self {
            diag: None,
            asked: 0,
            all: HashMap::new(),
            met: Vec::new(),
            by_inode: HashMap::new(),
            unread: Vec::new(),
            buffer: Vec::new(),
            with_pidfds: HashSet::new(),
            with_senders: HashSet::new(),
            in_flight: Vec::new(),
            packets: staging.writer(ImageKind::SkQueues, ())?,
        })
    }

    /// Closes the image of their queues, and gives what was needed for their records.
    pub(super) fn finish(self) -> Result<Vec<Socket>, Error> {
        self.packets.finish()?;
        Ok(self.met)
    }

    /// Many may be met. The next one is a reason to ask for all.
    pub(super) fn expect_many(&mut self) {
        self.asked = self.asked.max(FEW - 1);
    }

    /// Forgets what is true in one network namespace only.
    pub(super) fn leave_network(&mut self) {
        self.diag = None;
        self.asked = 0;
        self.all.clear();
    }

    /// What the kernel tells about a socket; nothing of those in other network namespaces.
    fn ask(&mut self, object: &Object<'_>) -> Result<Option<UnixSocket>, Error> {
        let diag = match &self.diag {
            Some(diag) => diag,
            None => {
                let diag = Diag::new().map_err(|errno| Error::Own {
                    operation: "make a socket to ask about sockets",
                    errno,
                })?;
                self.diag.get_or_insert(diag)
            }
        };
        let Ok(inode) = u32::try_from(object.stat.st_ino) else {
            return Ok(None);
        };
        // The kernel goes through all of them for each that is asked for.
        self.asked += 1;
        if self.asked == FEW {
            let all = diag.all_unix();
            self.all = all.map_err(object.failed("ask for the state of"))?;
        }
        match self.all.remove(&inode) {
            Some(seen) => Ok(Some(seen)),
            None => diag
                .unix(inode)
                .map_err(object.failed("ask for the state of")),
        }
    }
}

impl Collector<'_> {
    /// Takes note of a socket, which is recorded at the end, and records what is in its queue if that can be done at once.
    pub(super) fn unix(
        &mut self,
        task: Task<'_>,
        object: &Object<'_>,
        opening: Opening,
        told: Told,
    ) -> Result<(FdTypes, u32), Error> {
        let network = self.network_if_many(object)?;
        let (Some(network), Some(seen)) = (network, self.sockets.ask(object)?) else {
            return Err(object.refused(UnixRefusal::Namespace));
        };
        let events = told.events.map_err(object.failed("poll"))?;
        if events.contains(PollFlags::PRI) {
            return Err(object.refused(UnixRefusal::Urgent));
        }
        let id = self.new_id()?;
        let bound = self.bound(task, object, &seen)?;
        if is_readable(&seen, events) {
            if events.contains(PollFlags::ERR) && u32::from(seen.kind) != STREAM {
                return Err(object.refused(UnixRefusal::ErrorFirst));
            }
            let peek_offset = told.peek_offset.map_err(asked(object))?;
            self.queue(Queue::new(id, &seen, peek_offset), object)?;
        }
        let gelid = beyond(object, &seen, (events, &told), &self.census)?;
        let entry = UnixSkEntry {
            id,
            ino: seen.inode,
            r#type: seen.kind.into(),
            state: seen.state.into(),
            flags: opening.flags,
            backlog: seen.send_queue,
            fown: opening.fown,
            opts: told.options.map_err(asked(object))?,
            name: seen.name.clone(),
            shutdown: match seen.shutdown {
                0 => None,
                1 => Some(SkShutdown::Read.into()),
                2 => Some(SkShutdown::Write.into()),
                _ => Some(SkShutdown::Both.into()),
            },
            file_perms: bound.permissions,
            name_dir: bound.directory,
            deleted: bound.deleted.then_some(true),
            mnt_id: bound.mount,
            ns_id: Some(network),
            gelid,
            ..UnixSkEntry::default()
        };
        let sockets = &mut self.sockets;
        sockets.by_inode.insert(entry.ino, sockets.met.len());
        sockets.met.push(Socket {
            place: object.place,
            link: Name(object.link.clone()),
            entry,
            peer: seen.peer.unwrap_or_default(),
            pending: seen.pending,
        });
        Ok((FdTypes::Unixsk, id))
    }
}

/// Whether something may be in the queue of a socket.
fn is_readable(seen: &UnixSocket, events: PollFlags) -> bool {
    let ready = events.contains(PollFlags::IN);
    match (u32::from(seen.kind), u32::from(seen.state)) {
        (_, LISTENING) => false,
        (STREAM, _) => seen.receive_queue > 0,
        // It is ready to tell an error as well, and that nothing will come any more.
        (DGRAM, _) => seen.receive_queue > 0 || ready && !events.contains(PollFlags::ERR),
        _ if events.contains(PollFlags::ERR) => seen.receive_queue > 0,
        (_, state) => ready && state == CONNECTED,
    }
}

/// What the published format cannot tell; `None` if there is nothing of that.
fn beyond(
    object: &Object<'_>,
    seen: &UnixSocket,
    (events, told): (PollFlags, &Told),
    census: &Census,
) -> Result<Option<GelidUnixSkEntry>, Error> {
    let datagrams = u32::from(seen.kind) == DGRAM;
    let gone = seen.peer == Some(0) && (datagrams || seen.shutdown == 3);
    let reset = events.contains(PollFlags::ERR);
    if reset && !gone {
        return Err(object.refused(UnixRefusal::Error));
    }
    let entry = GelidUnixSkEntry {
        peer_gone: (gone && datagrams).then_some(true),
        reset: reset.then_some(true),
        // -1 is none.
        peek_off: u32::try_from(told.peek_offset.map_err(asked(object))?).ok(),
        passpidfd: (told.pass_pidfd.map_err(asked(object))? != 0).then_some(true),
        peer: who(
            told.peer.map_err(object.failed("ask for the peer of"))?,
            census,
            || sockopt::peer(object.file).map(|(pid, ..)| [pid]),
        ),
    };
    Ok((entry != GelidUnixSkEntry::default()).then_some(entry))
}

/// The record of somebody; `None` for nobody, and for those whose pid has no number here. `again` asks for it from among
/// the processes of the tree.
fn who(
    (pid, uid, gid): (i32, u32, u32),
    census: &Census,
    again: impl FnOnce() -> Result<[i32; 1], Errno> + Send,
) -> Option<GelidUcredEntry> {
    let pid = match census.numbers.number(pid) {
        // Somebody who has ended.
        0 if pid != 0 => census.ask_inside(again).map_or(0, |[pid]| pid),
        number => number,
    };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
    Some(GelidUcredEntry {
        pid,
        uid: census.users.uid(uid),
        gid: census.users.gid(gid),
    })
}

fn asked(object: &Object<'_>) -> impl Fn(Errno) -> Error {
    object.failed("ask for the options of")
}

impl Object<'_> {
    fn refused(&self, why: UnixRefusal) -> Error {
        Error::Unix {
            place: self.place,
            name: Name(self.link.clone()),
            why,
        }
    }
}

impl Socket {
    fn refused(&self, why: UnixRefusal) -> Error {
        Error::Unix {
            place: self.place,
            name: self.link.clone(),
            why,
        }
    }
}
