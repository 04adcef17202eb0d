//! Files for which this process has no numbers left: somebody has them open, and tasks fetch them from there.
//!
//! Whoever is born to have them has all that is open here, at the same numbers; here they are closed then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use gelid_sys::clone::fork_sleeper;
use gelid_sys::ptrace::{self, Options, Running};
use gelid_sys::row::Row;
use gelid_sys::{Errno, Pid, pidfd};
use rustix::io::DupFlags;
use rustix::process::{Resource, Signal, WaitOptions, getrlimit, kill_process, waitpid};

use super::inet::Role;
use super::opened::Opened;
use super::{FilesPlan, Kind};

/// What others have to know of a tree before some of its files are only to be fetched.
#[derive(Debug)]
pub(crate) struct Spare {
    /// Files that are needed by more than tables.
    pub(crate) needed: BTreeSet<u32>,
    /// Numbers of tasks, which nobody else may have.
    pub(crate) numbers: BTreeSet<i32>,
}

/// Everybody who has files.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// What is to become doors, at numbers that no table needs.
    reserved: Vec<OwnedFd>,
    all: Vec<Holder>,
    /// Files that may be elsewhere.
    movable: BTreeSet<u32>,
    numbers: BTreeSet<i32>,
    /// The holder, and the number there, by file.
    files: BTreeMap<u32, (usize, RawFd)>,
}

/// Somebody.
#[derive(Debug)]
struct Holder {
    process: Running,
    /// What tasks know it by.
    door: OwnedFd,
}

/// An open file, wherever it is.
#[derive(Debug)]
pub(super) enum Reached<'a> {
    Here(BorrowedFd<'a>),
    Elsewhere(OwnedFd),
}

impl AsFd for Reached<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Here(fd) => *fd,
            Self::Elsewhere(fd) => fd.as_fd(),
        }
    }
}

impl Holders {
    /// Looks ahead, while no number of a table is free; `own` is anything that is open.
    pub(super) fn prepare(plan: &FilesPlan, spare: &Spare, own: &OwnedFd) -> Result<Self, Errno> {
        // Each takes at least so many.
        let each = (limit() / 2).max(1);
        let count = plan.descriptions.len() as u64 / each + 1;
        let reserve = |_| rustix::io::fcntl_dupfd_cloexec(own, 0);
        Ok(Self {
            reserved: (0..count).map(reserve).collect::<Result<_, _>>()?,
            movable: movable(plan, &spare.needed),
            numbers: spare.numbers.clone(),
            ..Self::default()
        })
    }

    /// The door to a file, and its number behind that.
    pub(super) fn find(&self, id: u32) -> Option<(RawFd, RawFd)> {
        let (holder, number) = self.files.get(&id)?;
        Some((self.all.get(*holder)?.door.as_raw_fd(), *number))
    }

    /// Such a file, for a moment.
    pub(super) fn fetch(&self, id: u32) -> Option<Result<OwnedFd, Errno>> {
        let (holder, number) = self.files.get(&id)?;
        let door = self.all.get(*holder)?.door.as_fd();
        Some(pidfd::getfd(door, *number))
    }

    /// Gives files away, once a number shows that hardly any is left. If that fails, the first file that cannot be opened
    /// tells.
    pub(super) fn relieve(&mut self, number: RawFd, files: &mut HashMap<u32, Opened>) {
        /// What is opened beside files, at most.
        const ROOM: u64 = 256;
        /// Fewer are not worth it.
        const FEW: usize = 16;
        if self.reserved.is_empty() {
            return;
        }
        let limit = limit();
        let room = ROOM.min(limit / 4);
        if u64::from(number.unsigned_abs()) < limit - room {
            return;
        }
        let ids = files.keys().copied();
        let ids: Vec<u32> = ids.filter(|id| self.movable.contains(id)).collect();
        if ids.len() < FEW {
            return;
        }
        let born = self.reserved.pop().map(|door| self.bear(door));
        match born {
            Some(Ok(holder)) => self.all.push(holder),
            Some(Err(errno)) => return tracing::warn!("nobody can hold files: {errno}"),
            None => return,
        }
        let mut given: Vec<OwnedFd> = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(opened) = files.remove(&id) {
                let place = (self.all.len() - 1, opened.fd.as_raw_fd());
                self.files.insert(id, place);
                given.push(opened.fd);
            }
        }
        tracing::debug!("{} open files are held elsewhere", given.len());
        given.sort_unstable_by_key(AsRawFd::as_raw_fd);
        let mut row = Row::default();
        given.into_iter().for_each(|fd| row.push(fd));
    }

    /// Somebody who has all that is open here, and none of the numbers of the tree.
    fn bear(&self, mut door: OwnedFd) -> Result<Holder, Errno> {
        let mut wrong = Vec::new();
        let process = loop {
            let process = Process(fork_sleeper(None, false)?);
            match self.numbers.contains(&process.0.as_raw_pid()) {
                // It keeps the number until there is another.
                true => wrong.push(process),
                false => break process,
            }
        };
        // It ends when this process does.
        let process = process.traced()?;
        let pidfd = pidfd::open(process.pid());
        let held = pidfd.and_then(|fd| rustix::io::dup3(fd, &mut door, DupFlags::CLOEXEC));
        let holder = Holder { process, door };
        held.map(|()| holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        end(self.process.pid());
    }
}

/// One that is ended if nobody takes it.
struct Process(Pid);

impl Process {
    fn traced(self) -> Result<Running, Errno> {
        let process = ptrace::seize(self.0, Options::EXITKILL)?;
        std::mem::forget(self);
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(self.0);
    }
}

/// Ends a child of this process that does nothing.
fn end(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
    while let Err(Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
}

/// How many descriptors this process may have.
fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Files that nobody looks for once they are open, but for the tasks that have them.
fn movable(plan: &FilesPlan, needed: &BTreeSet<u32>) -> BTreeSet<u32> {
    let watches = plan.watches.values().flatten();
    let fired = watches.filter(|it| it.watch.has_fired()).map(|it| it.file);
    let locked = plan.locks.iter().map(|lock| lock.file);
    let watched = plan.watched_files();
    let others = fired.chain(locked).chain(watched);
    let others: BTreeSet<u32> = others.chain(plan.sockets.in_flight()).collect();
    let files = plan.descriptions.values();
    let files = files.filter(|file| match &file.kind {
        Kind::Regular(regular) => regular.remap.is_none() && regular.process.is_none(),
        Kind::Eventfd(_) | Kind::Signalfd(_) => true,
        Kind::Internet(socket) => !matches!(socket.role, Role::Stream(..)),
        _ => false,
    });
    let files = files.filter(|file| file.owner.is_none() && file.flags.late_status().is_none());
    let ids = files.map(|file| file.id);
    ids.filter(|id| !needed.contains(id) && !others.contains(id))
        .collect()
}
