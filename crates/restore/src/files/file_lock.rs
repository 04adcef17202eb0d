//! Locks of files, and leases: `fcntl(2)`, `flock(2)`.
//!
//! Each is taken again by the task that is named, by its own descriptor, when all tables are filled: a table that
//! closes a file loses its POSIX locks of it. A lease that was being broken is broken again by this process, while
//! nobody is told of it.

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};

use gelid_image::messages::FileLockEntry;
use gelid_image::{Dir, ImageKind};
use gelid_sys::Errno;
use rustix::fs::{Mode, OFlags, openat};

use super::{Error, FilesPlan, OpenFiles};

const IMAGE: &str = "filelocks.img";
/// `FileLockEntry::type` of a lease that is being broken.
const BREAKING: u32 = 4;

/// A lock, and who takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLock {
    /// The task.
    pub pid: i32,
    /// Its descriptor.
    pub fd: RawFd,
    /// Id of the file behind that.
    pub file: u32,
    /// What it is.
    pub kind: FileLockKind,
}

/// A kind of lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileLockKind {
    /// Of a range, by a descriptor table (POSIX) or a description.
    Range {
        /// A description has it.
        of_description: bool,
        /// Nobody else may have one.
        write: bool,
        /// First byte.
        start: i64,
        /// Number of bytes; 0 is all.
        len: i64,
    },
    /// `flock(2)`.
    Whole {
        /// Nobody else may have one.
        write: bool,
    },
    /// A lease.
    Lease {
        /// For writing.
        write: bool,
        /// It is being broken, until it is none, or one for reading.
        broken_to: Option<Left>,
    },
}

/// What is left of a lease when it has been broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// One for reading.
    Read,
    /// None.
    Nothing,
}

impl fmt::Display for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |write| if write { "write" } else { "read" };
        let (pid, fd) = (self.pid, self.fd);
        write!(f, "task {pid}: descriptor {fd} takes ")?;
        match self.kind {
            FileLockKind::Range {
                of_description,
                write: access,
                start,
                len,
            } => {
                let kind = if of_description { "OFD" } else { "POSIX" };
                write!(f, "a {kind} {} lock, {start}+{len}", write(access))
            }
            FileLockKind::Whole { write: access } => write!(f, "a {} flock", write(access)),
            FileLockKind::Lease {
                write: access,
                broken_to,
            } => {
                let breaking = if broken_to.is_some() { ", broken" } else { "" };
                write!(f, "a {} lease{breaking}", write(access))
            }
        }
    }
}

/// Reads and checks all records.
pub(super) fn read(dir: &Dir) -> Result<Vec<FileLockEntry>, Error> {
    let entries: Vec<FileLockEntry> = dir.read_all(ImageKind::FileLocks, ())?;
    for entry in &entries {
        kind(entry, true)?;
    }
    Ok(entries)
}

fn kind(entry: &FileLockEntry, writable: bool) -> Result<FileLockKind, Error> {
    let odd = |field, found: u32, rule| {
        let by = format!("{IMAGE}: the lock of task {}", entry.pid);
        Err(Error::invalid(by, field, found, rule))
    };
    let lease = entry.flag == 8;
    let write = match entry.r#type {
        0 => false,
        1 => true,
        4..=6 if lease => false,
        _ => return odd("type", entry.r#type, "there is no lock of that type"),
    };
    let (start, len) = (entry.start, entry.len);
    if start < 0 || len < 0 || start.checked_add(len).is_none() {
        let by = format!("{IMAGE}: the lock of task {}", entry.pid);
        let rule = "no file has such a range";
        return Err(Error::invalid(by, "start", format!("{start}+{len}"), rule));
    }
    Ok(match entry.flag {
        1 | 4 => FileLockKind::Range {
            of_description: entry.flag == 4,
            write,
            start,
            len,
        },
        2 => FileLockKind::Whole { write },
        8 => match entry.r#type.checked_sub(BREAKING) {
            None => FileLockKind::Lease {
                write,
                broken_to: None,
            },
            Some(0) => FileLockKind::Lease {
                write: true,
                broken_to: Some(Left::Read),
            },
            Some(_) => FileLockKind::Lease {
                write: writable || entry.held == Some(1),
                broken_to: Some(Left::Nothing),
            },
        },
        flag => return odd("flag", flag, "there is no such kind of lock"),
    })
}

impl FilesPlan {
    /// Finds the files that are locked. `table_of` gives the id of the descriptor table of a task that lives.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] for tasks and descriptors that are not there.
    pub fn find_locked(&mut self, table_of: impl Fn(i32) -> Option<u32>) -> Result<(), Error> {
        for entry in &self.lock_entries {
            let slots = table_of(entry.pid).map(|id| self.table(id));
            let mut slots = slots.into_iter().flatten();
            let slot = slots.find(|slot| slot.fd == entry.fd);
            let description = slot.and_then(|slot| self.descriptions.get(&slot.id));
            let Some(description) = description else {
                return Err(Error::Missing {
                    by: format!("{IMAGE}: the lock of task {}", entry.pid),
                    what: "descriptor",
                    id: entry.fd.unsigned_abs().into(),
                    image: "the image of its table",
                });
            };
            self.locks.push(FileLock {
                pid: entry.pid,
                fd: entry.fd,
                file: description.id,
                kind: kind(entry, description.flags.access() != 0)?,
            });
        }
        Ok(())
    }

    /// All locks, in the order in which they are taken.
    #[must_use]
    pub fn locks(&self) -> &[FileLock] {
        &self.locks
    }
}

impl OpenFiles {
    /// Whose an open file is.
    ///
    /// # Errors
    ///
    /// What `fstat(2)` says; `EBADF` if it is not there.
    pub(crate) fn owner(&self, file: u32) -> Result<u32, Error> {
        let fd = self.fd(file).ok_or(Errno::BADF);
        let status = fd.and_then(rustix::fs::fstat);
        let status = status
            .map_err(|errno| Error::system("ask for the owner of", self.label(file))(errno))?;
        Ok(status.st_uid)
    }

    fn label(&self, file: u32) -> String {
        let description = self.plan.descriptions.get(&file);
        description.map_or_else(String::new, super::Description::label)
    }

    /// Breaks leases as far as they were. Nobody may be the owner of those files yet.
    ///
    /// # Errors
    ///
    /// What opening the file says beyond `EAGAIN`.
    pub fn break_leases(&self) -> Result<(), Error> {
        for lock in self.plan.locks() {
            let FileLockKind::Lease {
                broken_to: Some(left),
                ..
            } = lock.kind
            else {
                continue;
            };
            let access = match left {
                Left::Read => OFlags::RDONLY,
                Left::Nothing => OFlags::WRONLY,
            };
            let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let object = || self.label(lock.file);
            let fd = self.fd(lock.file).ok_or(Errno::BADF);
            let opened = fd.and_then(|fd| {
                let name = fd.as_raw_fd().to_string();
                openat(&self.own, name, flags, Mode::empty())
            });
            match opened {
                Err(Errno::AGAIN) => {}
                Ok(_) => return Err(Error::system("break the lease on", object())(Errno::NOLCK)),
                Err(errno) => return Err(Error::system("break the lease on", object())(errno)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(flag: u32, r#type: u32) -> FileLockEntry {
        FileLockEntry {
            flag,
            r#type,
            pid: 1,
            fd: 3,
            ..FileLockEntry::default()
        }
    }

    #[test]
    fn every_kind_is_read() {
        let range = FileLockEntry {
            start: 5,
            len: 7,
            ..entry(4, 1)
        };
        assert_eq!(
            kind(&range, false).unwrap(),
            FileLockKind::Range {
                of_description: true,
                write: true,
                start: 5,
                len: 7
            }
        );
        let whole = FileLockKind::Whole { write: false };
        assert_eq!(kind(&entry(2, 0), false).unwrap(), whole);
        let lease = |write, broken_to| FileLockKind::Lease { write, broken_to };
        for (found, writable, want) in [
            (entry(8, 0), false, lease(false, None)),
            (entry(8, 1), false, lease(true, None)),
            (entry(8, 4), true, lease(true, Some(Left::Read))),
            (entry(8, 6), true, lease(true, Some(Left::Nothing))),
            (entry(8, 6), false, lease(false, Some(Left::Nothing))),
        ] {
            assert_eq!(kind(&found, writable).unwrap(), want);
        }
        let held = FileLockEntry {
            held: Some(1),
            ..entry(8, 6)
        };
        let want = lease(true, Some(Left::Nothing));
        assert_eq!(kind(&held, false).unwrap(), want);
    }

    #[test]
    fn records_that_cannot_be_are_refused() {
        for (flag, r#type) in [(1, 2), (2, 96), (4, 5), (8, 2), (8, 7), (3, 0), (0, 0)] {
            assert!(
                kind(&entry(flag, r#type), true).is_err(),
                "{flag} {}",
                r#type
            );
        }
        for (start, len) in [(-1, 0), (0, -1), (i64::MAX, 1)] {
            let range = FileLockEntry {
                start,
                len,
                ..entry(1, 0)
            };
            assert!(kind(&range, true).is_err());
        }
    }
}
