//! Locks of files, and leases: `fcntl(2)`, `flock(2)`. Section 18.2 of the format.
//!
//! A POSIX lock belongs to a descriptor table, every other one to an open file description. The kernel tells of
//! a lock at each descriptor that has part in it, so all but one of those are left out: best the one of the
//! process that took it. Requests that wait are no state: who waits issues its call once more.

use std::collections::{HashMap, HashSet};
use std::os::fd::RawFd;

use gelid_image::messages::FileLockEntry;
use gelid_image::{ImageKind, Staging};
use gelid_sys::kcmp::{self, Kind};
use gelid_sys::proc::fdinfo::{self, FdInfo, Lock, LockKind, LockType};
use gelid_sys::proc::{TaskDir, fd, stat};
use gelid_sys::{Errno, Pid};
use rustix::fs::{AtFlags, Mode, OFlags, statat};

use super::descriptions::Inode;
use super::{Collector, Error, LockRefusal, Name, Place};
use crate::namespace::Numbers;

/// Added to the type of a lease that is being broken.
const BREAKING: u32 = 4;

/// All locks found so far.
#[derive(Debug, Default)]
pub(super) struct Locks {
    found: Vec<Found>,
    known: HashMap<Key, usize>,
    /// Files that cannot be read by another description, or not without the holder of a lease being told.
    leased: HashSet<Inode>,
}

/// What makes a lock one, however often it is told of: its owner, which for POSIX locks is the table that was
/// looked at in a process, and what it is.
type Key = (Option<Pid>, u32, LockKind, LockType, i64, i64);

#[derive(Debug)]
struct Found {
    place: Place,
    name: Name,
    holder: (Pid, RawFd),
    inode: Inode,
    lock: Lock,
    /// As the kernel tells of it.
    text: Vec<u8>,
    /// A lease that is to vanish is one for writing, of a description for reading.
    held_to_write: bool,
}

impl Collector<'_> {
    /// Looks at the locks that a descriptor has part in, before its file is looked at.
    pub(super) fn look_at_locks(
        &mut self,
        dir: &TaskDir,
        fd: RawFd,
        place: Place,
        inode: Inode,
        info: &FdInfo,
    ) -> Result<(), Error> {
        let Some(first) = info.value("lock") else {
            return Ok(());
        };
        let name = || Ok::<_, Error>(Name(fd::link(dir, fd)?.into_bytes()));
        if !self.options.file_locks {
            return Err(Error::Locked {
                place,
                name: name()?,
                lock: Name(first.to_vec()),
            });
        }
        for lock in info.locks() {
            let lock = lock.map_err(|what| Error::Odd {
                place,
                name: Name(first.to_vec()),
                what,
            })?;
            match (lock.0.kind, lock.0.lock_type) {
                (LockKind::Lease { breaking: false }, LockType::Read) => {}
                (LockKind::Lease { .. }, _) => {
                    self.locks.leased.insert(inode);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes the same locks, of the file with an id.
    pub(super) fn note_locks(
        &mut self,
        (pid, fd): (Pid, RawFd),
        dir: &TaskDir,
        place: Place,
        (id, inode): (u32, Inode),
        info: &FdInfo,
    ) -> Result<(), Error> {
        for (lock, text) in info.locks().flatten() {
            let table = (lock.kind == LockKind::Posix).then_some(pid);
            let key = (table, id, lock.kind, lock.lock_type, lock.start, lock.len);
            if let Some(known) = self.locks.known.get(&key) {
                self.locks.found[*known].offer(place, (pid, fd));
                continue;
            }
            self.locks.known.insert(key, self.locks.found.len());
            self.locks.found.push(Found {
                place,
                name: Name(fd::link(dir, fd)?.into_bytes()),
                holder: (pid, fd),
                inode,
                lock,
                text: text.to_vec(),
                held_to_write: held_to_write(dir, fd, lock, info),
            });
        }
        Ok(())
    }

    /// Whether opening a file may disturb the holder of a lease.
    pub(super) fn is_leased(&self, inode: Inode) -> bool {
        self.locks.leased.contains(&inode)
    }

    /// Records all locks. The tasks must still be there.
    pub(super) fn finish_locks(&mut self) -> Result<(), Error> {
        let locks = std::mem::take(&mut self.locks).found;
        if locks.is_empty() {
            return Ok(());
        }
        if self.options.ends {
            let tree: HashSet<i32> = self.tree.iter().map(|pid| pid.as_raw_pid()).collect();
            refuse_outsiders(&locks, &tree)?;
        }
        let mut of_threads = locks.iter();
        let of_thread = of_threads.find(|lock| self.apart.contains(&lock.holder.0));
        if let Some(lock) = of_thread {
            return Err(lock.refused(LockRefusal::OfThread));
        }
        let known = (&self.tree[..], &self.headless);
        write(self.staging, &locks, known, &self.census.numbers)
    }
}

impl Found {
    /// Another descriptor that has part in the lock.
    fn offer(&mut self, place: Place, holder: (Pid, RawFd)) {
        let took = |pid: Pid| pid.as_raw_pid() == self.lock.pid;
        let better = took(holder.0) && !took(self.holder.0);
        if better || self.is_in_flight() {
            (self.place, self.holder) = (place, holder);
        }
    }

    fn is_in_flight(&self) -> bool {
        self.holder.0 == rustix::process::getpid()
    }

    fn refused(&self, why: LockRefusal) -> Error {
        Error::Lock {
            place: self.place,
            name: self.name.clone(),
            lock: Name(self.text.clone()),
            why,
        }
    }

    fn entry(&self, known: Tree<'_>, numbers: &Numbers) -> Result<FileLockEntry, Error> {
        if self.is_in_flight() {
            return Err(self.refused(LockRefusal::InFlight));
        }
        let breaking = self.lock.kind == LockKind::Lease { breaking: true };
        Ok(FileLockEntry {
            flag: match self.lock.kind {
                LockKind::Posix => 1,
                LockKind::Flock => 2,
                LockKind::Ofd => 4,
                LockKind::Lease { .. } => 8,
            },
            r#type: match self.lock.lock_type {
                LockType::Read => 0,
                LockType::Write => 1,
                LockType::None => 2,
            } | if breaking { BREAKING } else { 0 },
            pid: numbers.number(self.taker(known).as_raw_pid()),
            fd: self.holder.1,
            start: self.lock.start,
            len: self.lock.len,
            held: self.held_to_write.then_some(1),
        })
    }

    /// The process that took it, if it has the table that the lock was found in.
    fn taker(&self, (tree, headless): Tree<'_>) -> Pid {
        let asked = self.holder.0;
        let holder = headless.get(&asked).copied().unwrap_or(asked);
        let taker = tree.iter().find(|pid| pid.as_raw_pid() == self.lock.pid);
        match taker {
            Some(taker) if kcmp::shared(Kind::Files, *taker, asked) == Ok(true) => *taker,
            _ => holder,
        }
    }
}

/// Whether a lease that will vanish keeps readers away until then, where the descriptor does not tell.
fn held_to_write(dir: &TaskDir, fd: RawFd, lock: Lock, info: &FdInfo) -> bool {
    let unclear = lock.kind == LockKind::Lease { breaking: true }
        && lock.lock_type == LockType::None
        && info.flags & (OFlags::WRONLY | OFlags::RDWR).bits() == 0;
    // It has been told already, so that this asks nothing of it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    unclear
        && matches!(
            dir.open_file(&format!("fd/{fd}"), flags)
                .map_err(|error| error.errno()),
            Err(Errno::AGAIN)
        )
}

/// The processes of the tree, and those of them that are known by another thread than their leader.
type Tree<'t> = (&'t [Pid], &'t HashMap<Pid, Pid>);

fn write(
    staging: &Staging,
    locks: &[Found],
    known: Tree<'_>,
    numbers: &Numbers,
) -> Result<(), Error> {
    let mut writer = staging.writer(ImageKind::FileLocks, ())?;
    for lock in locks {
        writer.push(&lock.entry(known, numbers)?)?;
    }
    Ok(writer.finish()?)
}

/// Refuses locks that could not be taken again, as others would get or keep them when the tree ends.
fn refuse_outsiders(locks: &[Found], tree: &HashSet<i32>) -> Result<(), Error> {
    let text = read_all().map_err(|errno| Error::Own {
        operation: "read /proc/locks",
        errno,
    })?;
    for waiting in fdinfo::waiting(&text) {
        if waiting.pid > 0
            && !tree.contains(&waiting.pid)
            && let Some(lock) = locks.iter().find(|lock| lock.text == waiting.held)
        {
            return Err(lock.refused(LockRefusal::Awaited { by: waiting.pid }));
        }
    }
    let ancestors = ancestors(locks, tree);
    for lock in locks {
        if lock.lock.kind == LockKind::Posix || lock.is_in_flight() {
            continue;
        }
        let taker = Pid::from_raw(lock.lock.pid.max(0));
        let outside = taker.filter(|pid| !tree.contains(&pid.as_raw_pid()));
        for pid in outside.into_iter().chain(ancestors.iter().copied()) {
            if has(pid, lock) {
                let by = pid.as_raw_pid();
                return Err(lock.refused(LockRefusal::Shared { by }));
            }
        }
    }
    Ok(())
}

/// All locks of the machine.
fn read_all() -> Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/proc/locks", flags, Mode::empty())?;
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut text)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(text)
}

/// Processes outside that the tree comes from, who may have given it descriptors.
fn ancestors(locks: &[Found], tree: &HashSet<i32>) -> Vec<Pid> {
    let mut ancestors = Vec::new();
    let mut next = locks.first().map(|lock| lock.holder.0);
    while let Some(pid) = next {
        let stat = TaskDir::open(pid).and_then(|dir| stat::read(&dir));
        next = stat.ok().and_then(|stat| Pid::from_raw(stat.ppid));
        ancestors.extend(next.filter(|pid| !tree.contains(&pid.as_raw_pid())));
    }
    ancestors
}

/// Whether a process has the description that a lock belongs to.
fn has(pid: Pid, lock: &Found) -> bool {
    let Ok(dir) = TaskDir::open(pid) else {
        return false;
    };
    let descriptors = fd::list(&dir).unwrap_or_default();
    descriptors.into_iter().any(|fd| {
        let inode = statat(&dir, format!("fd/{fd}"), AtFlags::empty());
        inode.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == lock.inode)
            && kcmp::is_same_file((pid, fd), lock.holder)
    })
}
