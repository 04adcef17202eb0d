//! Descriptors of processes: `pidfd_open(2)`.
//!
//! Those of the tree's own processes can be opened when these are there, and are fetched by tasks that were born
//! before, as files of `/proc` are; those of its threads come later still. Whoever is gone is stood in for by a child
//! of this process, which ends as the other has.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

use gelid_image::messages::PidfdEntry;
use gelid_sys::{Errno, Pid, clone, pidfd, signal};
use rustix::fs::OFlags;
use rustix::process::{WaitOptions, waitpid};

use super::open::{Opener, set_status};
use super::{Description, Error, FilesPlan, Flags, Kind, OpenFiles};
use crate::play::namespaces::Birthplace;

/// Status of who was killed by `SIGKILL`.
const KILLED: i32 = 9;

/// A pidfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pidfd {
    /// Whom it is of.
    pub of: Whom,
    /// It is of one thread.
    pub of_thread: bool,
}

/// Whom a pidfd is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// A process of the tree, or the leader of one.
    Process(i32),
    /// Another thread of the tree.
    Thread(i32),
    /// Somebody who is gone.
    Nobody {
        /// The same for all that are of the same one.
        key: u32,
        /// As `wait(2)` has told it.
        status: i32,
    },
}

impl fmt::Display for Pidfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            Whom::Process(pid) => write!(f, "pidfd of process {pid}"),
            Whom::Thread(tid) => write!(f, "pidfd of thread {tid}"),
            Whom::Nobody { status, .. } => write!(f, "pidfd of who has ended, status {status:#x}"),
        }
    }
}

/// Checks a record.
pub(super) fn plan(object: &str, entry: &PidfdEntry) -> Result<Pidfd, Error> {
    let of_thread = entry.flags & OFlags::EXCL.bits() != 0;
    let of = match entry.nspid {
        -1 => Whom::Nobody {
            key: entry.ino,
            status: entry.status.unwrap_or(KILLED),
        },
        1.. => Whom::Process(entry.nspid),
        nspid => {
            let rule = "no process has such a number";
            return Err(Error::invalid(object, "nspid", nspid, rule));
        }
    };
    if let Whom::Nobody { status, .. } = of
        && !ends(status)
    {
        let rule = "no process ends like that";
        return Err(Error::invalid(object, "status", status, rule));
    }
    Ok(Pidfd { of, of_thread })
}

/// Whether a status is that of an end.
fn ends(status: i32) -> bool {
    let signal = status & 0x7f;
    (0..=0xffff).contains(&status)
        && (signal == 0 || status >> 8 == 0)
        && (0..=64).contains(&signal)
        && !signal::stops(signal)
}

/// A pidfd of a task that has yet to be born.
fn unborn(description: &Description) -> Option<Pidfd> {
    match description.kind {
        Kind::Pidfd(pidfd) if !matches!(pidfd.of, Whom::Nobody { .. }) => Some(pidfd),
        _ => None,
    }
}

impl FilesPlan {
    /// Those of tasks that have yet to be born.
    pub(super) fn pidfds(&self) -> impl Iterator<Item = (&Description, Pidfd)> {
        let files = self.descriptions.values();
        files.filter_map(|description| Some((description, unborn(description)?)))
    }

    /// Whether a file is one of those.
    pub(super) fn waits_for_birth(&self, id: u32) -> bool {
        self.descriptions.get(&id).and_then(unborn).is_some()
    }

    /// Tells processes and threads apart, and refuses pidfds of whoever is not in the tree.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`]
    pub fn find_processes(
        &mut self,
        is_process: impl Fn(i32) -> bool,
        is_thread: impl Fn(i32) -> bool,
    ) -> Result<(), Error> {
        let all = Arc::make_mut(&mut self.descriptions).values_mut();
        for description in all.filter(|it| matches!(it.kind, Kind::Pidfd(_))) {
            let label = description.label();
            if let Kind::Pidfd(pidfd) = &mut description.kind
                && let Whom::Process(pid) = pidfd.of
                && !is_process(pid)
            {
                if !pidfd.of_thread || !is_thread(pid) {
                    return Err(Error::Unsupported {
                        object: label,
                        what: "a pidfd of a process outside of the tree",
                        remedy: "let the program close it before the dump",
                    });
                }
                pidfd.of = Whom::Thread(pid);
            }
        }
        self.check_late_queues()?;
        let late = |id| self.is_late(id);
        let watched = self.watches.values().flatten();
        match watched.map(|watching| watching.file).find(|id| late(*id)) {
            Some(id) => Err(Error::Unsupported {
                object: format!("file {id}"),
                what: "a pidfd of a thread in an epoll set",
                remedy: "let the program remove it before the dump",
            }),
            None => Ok(()),
        }
    }

    /// Whether there is a file that can be had when all threads are there, and not before.
    pub(crate) fn has_late(&self) -> bool {
        let mut pidfds = self.pidfds();
        pidfds.any(|(_, pidfd)| matches!(pidfd.of, Whom::Thread(_)))
    }

    /// Whether a file can be had when all threads are there, and not before.
    pub(crate) fn is_late(&self, id: u32) -> bool {
        let of = self.descriptions.get(&id).map(|file| &file.kind);
        let Some(Kind::Pidfd(pidfd)) = of else {
            return false;
        };
        matches!(pidfd.of, Whom::Thread(_))
    }
}

/// Makes those of whoever is gone.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    let mut gone: HashMap<(u32, i32), Vec<(&Description, Pidfd)>> = HashMap::new();
    for description in plan.descriptions.values() {
        if let Kind::Pidfd(pidfd) = description.kind
            && let Whom::Nobody { key, status } = pidfd.of
        {
            let same = gone.entry((key, status)).or_default();
            same.push((description, pidfd));
        }
    }
    for ((_, status), same) in gone {
        let inside = opener.birthplace.map(Birthplace::enter).transpose();
        let child = inside.and_then(|_inside| Child::born(status));
        let child = child.map_err(Error::system("stand in for", "a process"))?;
        for (description, pidfd) in same {
            let label = description.label();
            let fd = open(child.0, pidfd.of_thread, description.flags, &label)?;
            let fd = opener.raise(fd, &label)?;
            opener.add(description.id, fd);
        }
    }
    Ok(())
}

/// A process of whom only its pidfds are wanted. Dropped, it is waited for.
struct Child(Pid);

impl Child {
    /// One that ends with a status.
    fn born(status: i32) -> Result<Self, Errno> {
        clone::fork_ending(status).map(Self)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        while let Err(Errno::INTR) = waitpid(Some(self.0), WaitOptions::empty()) {}
    }
}

fn open(pid: Pid, of_thread: bool, flags: Flags, label: &str) -> Result<OwnedFd, Error> {
    let fd = match of_thread {
        true => pidfd::open_thread(pid),
        false => pidfd::open(pid),
    };
    let fd = fd.map_err(Error::system("open", label))?;
    if flags.has(OFlags::NONBLOCK) {
        set_status(fd.as_fd(), OFlags::NONBLOCK, label)?;
    }
    Ok(fd)
}

impl OpenFiles {
    /// Opens pidfds of processes, or of threads, which are there by now.
    ///
    /// # Errors
    ///
    /// Those of `pidfd_open(2)`.
    pub(super) fn open_pidfds(
        &mut self,
        of_threads: bool,
        pids: &dyn Fn(i32) -> Option<Pid>,
    ) -> Result<(), Error> {
        for (description, pidfd) in self.plan.pidfds() {
            let label = description.label();
            let number = match pidfd.of {
                Whom::Process(pid) if !of_threads => pid,
                Whom::Thread(tid) if of_threads => tid,
                _ => continue,
            };
            let pid = pids(number).ok_or(Errno::SRCH);
            let pid = pid.map_err(Error::system("open", &*label))?;
            let fd = open(pid, pidfd.of_thread, description.flags, &label)?;
            self.of_processes.add(description.id, fd);
        }
        Ok(())
    }

    /// Opens what is of threads, which are there by now; whether there is anything.
    ///
    /// # Errors
    ///
    /// Those of `pidfd_open(2)`.
    pub fn open_of_threads(&mut self, pids: &dyn Fn(i32) -> Option<Pid>) -> Result<bool, Error> {
        self.open_pidfds(true, pids)?;
        Ok(self.plan.has_late())
    }

    /// Whether a file can be had when all threads are there, and not before.
    #[must_use]
    pub fn is_late(&self, id: u32) -> bool {
        self.plan.is_late(id)
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn has_late(&self) -> bool {
        self.plan.has_late()
    }

    /// The number of what tasks fetch descriptors by.
    #[must_use]
    pub fn door(&self) -> Option<RawFd> {
        self.of_processes.door()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_checked() {
        let entry = |nspid, flags, status| PidfdEntry {
            nspid,
            flags,
            status,
            ino: 7,
            ..PidfdEntry::default()
        };
        let pidfd = plan("pidfd", &entry(9, 0o200, None)).unwrap();
        assert_eq!(pidfd.of, Whom::Process(9));
        assert!(pidfd.of_thread);
        for (status, want) in [(None, KILLED), (Some(0x700), 0x700), (Some(0x86), 0x86)] {
            let pidfd = plan("pidfd", &entry(-1, 0, status)).unwrap();
            let of = Whom::Nobody {
                key: 7,
                status: want,
            };
            assert_eq!(pidfd.of, of);
        }
        for (nspid, status) in [
            (0, None),
            (-2, None),
            (-1, Some(-1)),
            (-1, Some(0x10000)),
            (-1, Some(19)),
        ] {
            plan("pidfd", &entry(nspid, 0, status)).unwrap_err();
        }
        plan("pidfd", &entry(-1, 0, Some(0x17f))).unwrap_err();
    }
}
