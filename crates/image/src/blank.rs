//! Files without a name, made before they are needed.
//!
//! A file system takes its time over a new file: ext4 looks for an inode that nobody has given back within the last
//! five seconds, which costs some 140 us for each where files are removed all the time. What is written while a
//! process stands still is therefore written into files that were made before.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Files to be taken and named later. Those that nobody takes leave nothing.
#[derive(Debug, Default)]
pub(crate) struct Blanks(Mutex<Vec<OwnedFd>>);

/// A file with bytes and without a name.
#[derive(Debug)]
pub(crate) struct Nameless(OwnedFd);

impl Blanks {
    /// Makes files in a directory, as far as its file system can.
    pub(crate) fn make(&self, dir: BorrowedFd<'_>, mode: Mode, count: usize) {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        for _ in 0..count {
            match rustix::fs::openat(dir, c".", flags, mode) {
                Ok(fd) => self.all(|all| all.push(fd)),
                Err(_) => break,
            }
        }
    }

    /// One of them, to be written, and what gives it a name. `None` if there are no more.
    pub(crate) fn take(&self) -> Option<(File, Nameless)> {
        let fd = self.all(Vec::pop)?;
        let file = rustix::io::fcntl_dupfd_cloexec(&fd, 0).ok()?;
        Some((File::from(file), Nameless(fd)))
    }

    fn all<T>(&self, work: impl FnOnce(&mut Vec<OwnedFd>) -> T) -> T {
        let all = self.0.lock();
        work(&mut all.unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Nameless {
    /// Gives it a name that nobody has.
    pub(crate) fn name(&self, dir: impl AsFd, name: &str) -> io::Result<()> {
        let dir = dir.as_fd();
        match rustix::fs::linkat(&self.0, c"", dir, name, AtFlags::EMPTY_PATH) {
            // Old kernels demand CAP_DAC_READ_SEARCH.
            Err(Errno::NOENT) => {
                let link = format!("/proc/self/fd/{}", self.0.as_raw_fd());
                let follow = AtFlags::SYMLINK_FOLLOW;
                Ok(rustix::fs::linkat(CWD, link, dir, name, follow)?)
            }
            named => Ok(named?),
        }
    }

    /// Opened once more, to be read from its beginning.
    pub(crate) fn open(&self) -> io::Result<File> {
        let mut file = File::from(rustix::io::fcntl_dupfd_cloexec(&self.0, 0)?);
        file.rewind()?;
        Ok(file)
    }
}
