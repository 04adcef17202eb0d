//! What the kernel tells of the descriptors of a large table, asked for by a second thread ahead of the one that
//! records them.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use gelid_image::messages::FownEntry;
use gelid_sys::proc::fdinfo::{self, FdInfo, Slot};
use gelid_sys::{Errno, pidfd, sched};
use rustix::fs::{FileType, OFlags, Stat};

use super::descriptions::Class;
use super::plain::{self, Plain};
use super::socket::Answers;
use super::{Error, Task, fown, kind};
use crate::namespace::Census;

/// Tables with fewer descriptors are looked at sooner than a thread is started.
pub(super) const MANY: u64 = 256;
/// Numbers that are looked at in one go.
const CHUNK: RawFd = 64;
/// Chunks that may be ready before they are wanted; each of their descriptors is open meanwhile.
const AHEAD: RawFd = 4;

/// What there is to be known of a descriptor.
pub(super) struct Seen {
    pub(super) info: FdInfo,
    /// Whether it is closed on `execve(2)` is still to be told.
    pub(super) is_plain: bool,
    /// Of one whose description may be new, if it could be had.
    pub(super) file: Option<Duplicate>,
}

/// A descriptor of the dumper's own for the same description.
pub(super) struct Duplicate {
    pub(super) file: OwnedFd,
    pub(super) stat: Stat,
    /// Who gets signals about it.
    pub(super) owner: Result<FownEntry, Errno>,
    /// What else it was asked for in advance.
    pub(super) more: More,
}

/// What takes long and can be asked for before other descriptors are recorded.
#[derive(Default)]
pub(super) struct More {
    /// What a socket has answered.
    pub(super) answers: Option<Answers>,
    /// What the kernel calls it, where nothing else tells.
    pub(super) link: Option<Vec<u8>>,
}

impl More {
    fn ask((file, stat): (&OwnedFd, &Stat), info: &FdInfo, slot: &mut Slot) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            _ if info.flags & OFlags::PATH.bits() != 0 => Self::default(),
            FileType::Socket => Self {
                answers: Some(Answers::of(file.as_fd())),
                link: None,
            },
            FileType::RegularFile | FileType::Directory => Self {
                answers: None,
                // If it cannot be had, that is told when it is recorded.
                link: slot.link(file).ok().map(CString::into_bytes),
            },
            _ => Self::default(),
        }
    }
}

impl Duplicate {
    /// Makes it; what has failed is told with the error.
    pub(super) fn make(
        task: Task<'_>,
        fd: RawFd,
        info: &FdInfo,
        census: &Census,
    ) -> Result<Self, (&'static str, Errno)> {
        let file = pidfd::getfd(task.pidfd, fd).map_err(|errno| ("duplicate", errno))?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| ("look at", errno))?;
        Ok(Self::of((file, stat), info, census, More::default()))
    }

    fn of((file, stat): (OwnedFd, Stat), info: &FdInfo, census: &Census, more: More) -> Self {
        let owner = match info.flags & OFlags::PATH.bits() {
            0 => fown::entry(&file, census),
            _ => Ok(fown::nobody()),
        };
        Self {
            stat: census.users.of_file(stat),
            file,
            owner,
            more,
        }
    }
}

/// A table that is being looked at.
pub(super) struct Table<'t> {
    task: Task<'t>,
    /// Numbers of all slots.
    slots: Range<RawFd>,
    /// Open descriptors.
    count: u64,
    /// Descriptors of these classes may be known already.
    known: HashSet<Class>,
    /// If their owner tells the rest.
    plain: Option<Plain<'t>>,
    census: &'t Census,
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// What a thread that looks at descriptors keeps from one to the next.
#[derive(Default)]
struct Eye {
    slot: Slot,
    /// The last descriptor of a file of no type: the next one may be its twin.
    last: Option<(RawFd, FdInfo)>,
}

/// Descriptors of a chunk, ascending.
type Chunk = Vec<(RawFd, Seen)>;

#[derive(Default)]
struct Progress {
    /// The chunk that nobody has taken yet, by its first number.
    next: RawFd,
    /// The one that is to be recorded next.
    wanted: RawFd,
    ready: BTreeMap<RawFd, Result<Chunk, Error>>,
    over: bool,
}

impl<'t> Table<'t> {
    /// One with so many descriptors in so many slots.
    pub(super) fn new(
        task: Task<'t>,
        (count, slots): (u64, RawFd),
        (known, plain): (HashSet<Class>, Option<Plain<'t>>),
        census: &'t Census,
    ) -> Self {
        Self {
            task,
            slots: 0..slots,
            count,
            known,
            plain,
            census,
            progress: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Shows all descriptors in ascending order.
    pub(super) fn each(
        &self,
        mut take: impl FnMut(RawFd, Seen) -> Result<(), Error>,
    ) -> Result<(), Error> {
        std::thread::scope(|scope| {
            // Without one, all is done here.
            let _helper = sched::beside(scope, "descriptors", || self.help());
            let _over = Over(self);
            let (mut eye, mut left) = (Eye::default(), self.count);
            for first in self.slots.clone().step_by(CHUNK as usize) {
                for (fd, seen) in self.chunk(first, &mut eye)? {
                    take(fd, seen)?;
                    left = left.saturating_sub(1);
                }
                if left == 0 {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Looks at chunks that will be wanted, until there are no more.
    fn help(&self) {
        let (mut eye, mut progress) = (Eye::default(), self.progress());
        while !progress.over && progress.next < self.slots.end {
            if progress.next >= progress.wanted + AHEAD * CHUNK {
                progress = self.wait(progress);
                continue;
            }
            progress = self.look_at_next(progress, &mut eye);
        }
    }

    /// A chunk, whoever looks at it.
    fn chunk(&self, first: RawFd, eye: &mut Eye) -> Result<Chunk, Error> {
        let mut progress = self.progress();
        progress.wanted = first;
        self.changed.notify_all();
        loop {
            if let Some(chunk) = progress.ready.remove(&first) {
                return chunk;
            }
            let more = progress.next < self.slots.end.min(first + AHEAD * CHUNK);
            progress = match more {
                true => self.look_at_next(progress, eye),
                false => self.wait(progress),
            };
        }
    }

    fn look_at_next<'p>(
        &'p self,
        mut progress: MutexGuard<'p, Progress>,
        eye: &mut Eye,
    ) -> MutexGuard<'p, Progress> {
        let first = progress.next;
        progress.next += CHUNK;
        drop(progress);
        let chunk = first..(first + CHUNK).min(self.slots.end);
        let look = |fd| Some(self.look(fd, eye).transpose()?.map(|seen| (fd, seen)));
        let chunk = chunk.filter_map(look).collect();
        let mut progress = self.progress();
        progress.ready.insert(first, chunk);
        self.changed.notify_all();
        progress
    }

    /// Looks at a slot; there may be no descriptor.
    fn look(&self, fd: RawFd, eye: &mut Eye) -> Result<Option<Seen>, Error> {
        let mut duplicate = None;
        if let Some(plain) = self.plain.as_ref().filter(|plain| plain.is_possible()) {
            let file = match pidfd::getfd(self.task.pidfd, fd) {
                Err(Errno::BADF) => return Ok(None),
                file => file.ok(),
            };
            duplicate = file.and_then(|file| {
                let stat = rustix::fs::fstat(&file).ok()?;
                Some((file, stat))
            });
            if let Some((file, stat)) = &duplicate
                && let Some((info, is_twin)) = self.told(plain, fd, (file, stat), eye)
            {
                return Ok(Some(match is_twin {
                    // That one is recorded before this one, whose record it is.
                    true => Seen {
                        info,
                        is_plain: true,
                        file: None,
                    },
                    false => self.seen(fd, (info, true), duplicate, &mut eye.slot),
                }));
            }
        }
        let info = match fdinfo::read(self.task.dir, fd) {
            Err(error) if error.errno() == Errno::NOENT => return Ok(None),
            info => info?,
        };
        if matches!(&duplicate, Some((_, stat)) if kind::has_no_type(stat)) {
            eye.last = Some((fd, info.clone()));
        }
        Ok(Some(self.seen(fd, (info, false), duplicate, &mut eye.slot)))
    }

    /// What is told of a plain descriptor, and whether it is a twin of the one before it.
    fn told(
        &self,
        plain: &Plain<'_>,
        fd: RawFd,
        (file, stat): (&OwnedFd, &Stat),
        eye: &mut Eye,
    ) -> Option<(FdInfo, bool)> {
        if !kind::has_no_type(stat) {
            return Some((plain.look(file, stat, &mut eye.slot)?, false));
        }
        let pid = self.task.pid;
        let twin = eye
            .last
            .take()
            .filter(|(last, _)| plain::is_twin(pid, *last, fd));
        let (info, is_twin) = match twin {
            Some((_, info)) => (info, true),
            None => (plain.look(file, stat, &mut eye.slot)?, false),
        };
        eye.last = Some((fd, info.clone()));
        Some((info, is_twin))
    }

    fn seen(
        &self,
        fd: RawFd,
        (info, is_plain): (FdInfo, bool),
        duplicate: Option<(OwnedFd, Stat)>,
        slot: &mut Slot,
    ) -> Seen {
        let file = match (self.known.contains(&Class::of(&info)), duplicate) {
            (true, _) => None,
            (false, Some((file, stat))) => {
                let more = More::ask((&file, &stat), &info, slot);
                Some(Duplicate::of((file, stat), &info, self.census, more))
            }
            (false, None) => Duplicate::make(self.task, fd, &info, self.census).ok(),
        };
        Seen {
            info,
            is_plain,
            file,
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'p>(&'p self, progress: MutexGuard<'p, Progress>) -> MutexGuard<'p, Progress> {
        let woken = self.changed.wait(progress);
        woken.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the helper that nothing more is wanted, when it is dropped.
struct Over<'a, 't>(&'a Table<'t>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.progress().over = true;
        self.0.changed.notify_all();
    }
}
