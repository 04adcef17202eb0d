//! The same of a large table, by two threads, which ask of duplicates what names in procfs would tell: those cost most.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use gelid_sys::proc::fdinfo::Slot;
use gelid_sys::proc::{TaskDir, fd, status};
use gelid_sys::{lock, pidfd, sched};
use rustix::fs::{FileType, Stat};

use super::super::gather::MANY;
use super::super::plain::{self, Devices};
use super::{Error, kind, look, unlocked};
use crate::Options;

/// Numbers that a thread takes in one go.
const CHUNK: RawFd = 128;
/// Files that are asked for locks. Those of the others are found when the tree stands still.
const ASKED: u64 = 256;

/// What a thread has found nothing wrong with.
#[derive(Default)]
struct Passed {
    /// Devices of which it is known that their files have paths.
    paths: HashSet<u64>,
    /// The last descriptor of a file of no type: the next one may be its twin.
    last: Option<RawFd>,
    slot: Slot,
}

/// A table that is large, and not much larger than it has to be.
pub(super) struct Table<'t> {
    options: &'t Options,
    task: &'t TaskDir,
    pidfd: OwnedFd,
    slots: RawFd,
    /// The first slot that nobody has taken yet.
    next: AtomicI32,
    /// Descriptors that have not been found yet.
    left: AtomicU64,
    /// Files that may still be asked for locks.
    askable: AtomicU64,
    devices: Devices,
    /// What has been found wrong, by the number of the descriptor.
    wrong: Mutex<BTreeMap<RawFd, Error>>,
}

impl<'t> Table<'t> {
    /// That of a task, if it is one.
    pub(super) fn of(options: &'t Options, task: &'t TaskDir) -> Option<Self> {
        let count = fd::count(task).ok().filter(|count| *count >= MANY)?;
        let slots = status::read(task).ok()?.fd_size;
        if u64::from(slots) > 4 * count {
            return None;
        }
        Some(Self {
            options,
            task,
            pidfd: pidfd::open(task.pid()).ok()?,
            slots: RawFd::try_from(slots).ok()?,
            next: AtomicI32::new(0),
            left: AtomicU64::new(count),
            askable: AtomicU64::new(ASKED),
            devices: Devices::default(),
            wrong: Mutex::default(),
        })
    }

    /// Refuses the first descriptor that would be refused.
    pub(super) fn check(self) -> Result<(), Error> {
        std::thread::scope(|scope| {
            // Without one, all is done here.
            let _helper = sched::beside(scope, "check", || self.help());
            self.help();
        });
        let wrong = self.wrong.into_inner();
        let mut wrong = wrong.unwrap_or_else(PoisonError::into_inner);
        wrong.pop_first().map_or(Ok(()), |(_, error)| Err(error))
    }

    fn help(&self) {
        let mut passed = Passed::default();
        while self.left.load(Ordering::Relaxed) > 0 {
            let first = self.next.fetch_add(CHUNK, Ordering::Relaxed);
            if first >= self.slots {
                return;
            }
            for fd in first..(first + CHUNK).min(self.slots) {
                if let Err(error) = self.look(fd, &mut passed) {
                    let wrong = self.wrong.lock();
                    let mut wrong = wrong.unwrap_or_else(PoisonError::into_inner);
                    wrong.insert(fd, error);
                    // Nothing behind it will be told.
                    self.left.store(0, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// Looks at a slot.
    fn look(&self, fd: RawFd, passed: &mut Passed) -> Result<(), Error> {
        let Ok(file) = pidfd::getfd(&self.pidfd, fd) else {
            return Ok(());
        };
        less(&self.left);
        let Ok(stat) = rustix::fs::fstat(&file) else {
            return Ok(());
        };
        let is_fifo = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
        let lockable = super::is_lockable(&stat);
        let is_asked = lockable && !self.options.file_locks && less(&self.askable);
        if is_asked && self.may_be_locked((&file, &stat), passed) {
            unlocked(self.task, fd, || fd::link(self.task, fd).ok())?;
        }
        if lockable && passed.paths.contains(&stat.st_dev) || is_fifo {
            return Ok(());
        }
        let pid = self.task.pid();
        let is_twin = |last| plain::is_twin(pid, last, fd);
        let has_no_type = kind::has_no_type(&stat);
        if has_no_type && passed.last.is_some_and(is_twin) {
            return Ok(());
        }
        let Some(link) = link((&file, &stat), passed) else {
            return Ok(());
        };
        if lockable && link.starts_with(b"/") {
            passed.paths.insert(stat.st_dev);
        }
        look(self.options, self.task, fd, link, &stat, || Some(file))?;
        if has_no_type {
            passed.last = Some(fd);
        }
        Ok(())
    }

    /// Whether a lock or a lease is seen of a file, or nothing is told without asking the task.
    fn may_be_locked(&self, (file, stat): (&OwnedFd, &Stat), passed: &mut Passed) -> bool {
        if !self.devices.have_same_numbers(file, stat) {
            return true;
        }
        // Locks of the description, and then those of whatever process.
        let info = passed.slot.info(file);
        let released = passed.slot.release();
        match (info, released) {
            (Ok(info), Ok(())) if info.value("lock").is_none() => {}
            _ => return true,
        }
        lock::is_locked(file).unwrap_or(true)
    }
}

/// What the kernel calls a file.
fn link((file, stat): (&OwnedFd, &Stat), passed: &mut Passed) -> Option<Vec<u8>> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => Some(format!("socket:[{}]", stat.st_ino).into_bytes()),
        _ => {
            let link = passed.slot.link(file);
            // The task may close its own any moment.
            passed.slot.release().ok()?;
            Some(link.ok()?.into_bytes())
        }
    }
}

/// Takes one off; false if there is none.
fn less(count: &AtomicU64) -> bool {
    let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
    let one_less = |left: u64| left.checked_sub(1);
    count.fetch_update(set, fetch, one_less).is_ok()
}
