//! Files without a name, made before they are needed.
//!
//! A file system takes its time over a new file: ext4 without a journal looks for an inode that nobody has given
//! back within the last minutes, which costs some 140 us for each where files are removed all the time. What is written while a
//! process stands still is therefore written into files that were made before.
//!
//! Files of pages get their blocks before, too: what is written into blocks that are there takes a third less time
//! (1 GiB on ext4: 200 ms without, 130 to 150 with them). Where the pages are fewer, the rest is given back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

/// `f_type` of ext4; what other file systems make of blocks that were asked for in advance was not measured, and
/// `tmpfs` clears them.
const EXT4: i64 = 0xef53;
/// The part of the free blocks that may be asked for in advance is one of so many.
const PART: u64 = 2;

/// Files to be taken and named later. Those that nobody takes leave nothing.
#[derive(Debug, Default)]
pub(crate) struct Blanks {
    all: Mutex<Vec<OwnedFd>>,
    /// Those that have blocks already, by whom they are for.
    roomy: Mutex<BTreeMap<u32, OwnedFd>>,
}

/// A file with bytes and without a name.
#[derive(Debug)]
pub(crate) struct Nameless(OwnedFd);

/// A file that is written from its beginning to its end, and may have more blocks than it needs:
/// [`flush`](Write::flush) gives these back.
#[derive(Debug)]
pub struct Roomy {
    file: File,
    has_room: bool,
    written: u64,
}

impl Blanks {
    /// Makes files in a directory, as far as its file system can.
    pub(crate) fn make(&self, dir: BorrowedFd<'_>, mode: Mode, count: usize) {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        for _ in 0..count {
            match rustix::fs::openat(dir, c".", flags, mode) {
                Ok(fd) => lock(&self.all).push(fd),
                Err(_) => break,
            }
        }
    }

    /// Makes one with blocks for so many bytes, as far as the file system can.
    pub(crate) fn make_roomy(&self, dir: BorrowedFd<'_>, mode: Mode, whose: u32, bytes: u64) {
        let Ok(system) = rustix::fs::fstatfs(dir) else {
            return;
        };
        let free = system
            .f_bavail
            .saturating_mul(system.f_bsize.unsigned_abs());
        if system.f_type != EXT4 || bytes > free / PART {
            return;
        }
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(dir, c".", flags, mode) else {
            return;
        };
        // Without blocks it is as good as any other.
        let _ = rustix::fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, 0, bytes);
        lock(&self.roomy).insert(whose, fd);
    }

    /// How many there still are, without blocks.
    pub(crate) fn left(&self) -> usize {
        lock(&self.all).len()
    }

    /// One of them, to be written, and what gives it a name. `None` if there are no more.
    pub(crate) fn take(&self) -> Option<(File, Nameless)> {
        written(lock(&self.all).pop()?)
    }

    /// The one with blocks that is for somebody.
    pub(crate) fn take_roomy(&self, whose: u32) -> Option<(File, Nameless)> {
        written(lock(&self.roomy).remove(&whose)?)
    }
}

fn written(fd: OwnedFd) -> Option<(File, Nameless)> {
    let file = rustix::io::fcntl_dupfd_cloexec(&fd, 0).ok()?;
    Some((File::from(file), Nameless(fd)))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section is a single step.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roomy {
    pub(crate) fn new(file: File, has_room: bool) -> Self {
        Self {
            file,
            has_room,
            written: 0,
        }
    }
}

impl Write for Roomy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = self.file.write_vectored(parts)?;
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.has_room {
            true => self.file.set_len(self.written),
            false => Ok(()),
        }
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

    /// How long it is.
    pub(crate) fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.0)?;
        u64::try_from(stat.st_size).map_err(io::Error::other)
    }

    /// Opened once more, to be read from its beginning.
    pub(crate) fn open(&self) -> io::Result<File> {
        let mut file = File::from(rustix::io::fcntl_dupfd_cloexec(&self.0, 0)?);
        file.rewind()?;
        Ok(file)
    }
}
