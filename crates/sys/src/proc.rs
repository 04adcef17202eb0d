//! What `/proc/PID` says about a task, read through a descriptor of that directory: `proc(5)`.
//!
//! [`TaskDir`] is opened once per task and everything is read relative to it, so a pid that has passed
//! to another task in the meantime gives `ESRCH`, never another task's data. Each file has a module
//! with a `parse` function on its text, which never panics, and a `read` function on the directory.

mod pieces;
mod text;

pub mod auxv;
pub mod cgroup;
pub mod fd;
pub mod fdinfo;
pub mod limits;
pub mod maps;
pub mod mountinfo;
pub mod ns;
pub mod scalar;
pub mod smaps;
pub mod stat;
pub mod status;
pub mod tasks;
pub mod timers;

use std::borrow::Cow;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

pub use text::Malformed;

/// Why something under `/proc/PID` could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel refused the file.
    #[error("cannot read /proc/{pid}/{file}: {errno}")]
    Read {
        /// Path below the directory of the task.
        file: Cow<'static, str>,
        /// The task.
        pid: i32,
        /// `ENOENT` or `ESRCH` if the task or the object has gone.
        errno: Errno,
    },
    /// The text is not what `proc(5)` describes.
    #[error("/proc/{pid}/{file}: {what}")]
    Parse {
        /// Path below the directory of the task.
        file: Cow<'static, str>,
        /// The task.
        pid: i32,
        /// What was found wrong.
        what: Malformed,
    },
}

impl Error {
    /// The error of the kernel, `EINVAL` for a malformed text.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Read { errno, .. } => *errno,
            Self::Parse { .. } => Errno::INVAL,
        }
    }

    /// Whether the task, or the object asked for, is no longer there.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno(), Errno::NOENT | Errno::SRCH)
    }
}

/// Bytes of the longest file that is read into one piece; longer ones give `EFBIG`. What has no such
/// bound (`maps`, `smaps`) is read in pieces.
pub const MAX_FILE: usize = 64 << 20;

/// Bytes of a piece, more than any line of procfs has.
const LINES: usize = 64 << 10;

/// Opens `/proc/PID` of the calling task's pid namespace; short for [`TaskDir::open`].
pub fn task_dir(pid: Pid) -> Result<TaskDir, Error> {
    TaskDir::open(pid)
}

/// An open `/proc/PID` or `/proc/PID/task/TID`.
#[derive(Debug)]
pub struct TaskDir {
    fd: OwnedFd,
    pid: Pid,
}

impl TaskDir {
    /// Opens `/proc/PID`. It may also name a thread that leads no process.
    pub fn open(pid: Pid) -> Result<Self, Error> {
        Self::open_at(CWD, &format!("/proc/{pid}"), pid)
    }

    /// Opens the directory of `pid` in another mount of procfs, whose pids may be those of another
    /// namespace.
    pub fn open_in(procfs: impl AsFd, pid: Pid) -> Result<Self, Error> {
        Self::open_at(procfs.as_fd(), &pid.to_string(), pid)
    }

    /// Opens the directory of the thread `tid` of this process.
    pub fn thread(&self, tid: Pid) -> Result<Self, Error> {
        Self::open_at(self.fd.as_fd(), &format!("task/{tid}"), tid)
    }

    fn open_at(base: BorrowedFd<'_>, path: &str, pid: Pid) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(base, path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, pid }),
            Err(errno) => Err(Error::Read {
                file: Cow::Borrowed(""),
                pid: pid.as_raw_pid(),
                errno,
            }),
        }
    }

    /// The number under which the directory was opened.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Opens the file `name` of the directory (`pagemap`, `mem`, `ns/net`, …), close-on-exec.
    pub fn open_file(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Error> {
        rustix::fs::openat(&self.fd, name, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| self.read_error(name, errno))
    }

    /// The whole of the file `name`, of which `expected` bytes are read at once.
    pub fn read(&self, name: &str, expected: usize) -> Result<Vec<u8>, Error> {
        let fd = self.open_file(name, OFlags::RDONLY)?;
        let read = |text: &mut Vec<u8>| rustix::io::read(&fd, spare_capacity(text));
        whole(expected, Last::Empty, read).map_err(|errno| self.read_error(name, errno))
    }

    /// The same of a file that the kernel makes up as one record: a read that leaves room has been the last.
    pub fn read_record(&self, name: &str, expected: usize) -> Result<Vec<u8>, Error> {
        let fd = self.open_file(name, OFlags::RDONLY)?;
        let read = |text: &mut Vec<u8>| rustix::io::read(&fd, spare_capacity(text));
        whole(expected, Last::Short, read).map_err(|errno| self.read_error(name, errno))
    }

    /// The target of a link that has a short one, as the kernel prints it: at most so many bytes of it.
    fn short_link<'b>(&self, name: &str, target: &'b mut [u8; 64]) -> Result<&'b [u8], Error> {
        let len = rustix::fs::readlinkat_raw(&self.fd, name, &mut target[..])
            .map_err(|errno| self.read_error(name, errno))?;
        Ok(&target[..len])
    }

    /// The target of the link `name` (`exe`, `cwd`, `root`, `fd/N`, `ns/X`), as the kernel prints it.
    pub fn link(&self, name: &str) -> Result<CString, Error> {
        rustix::fs::readlinkat(&self.fd, name, Vec::new())
            .map_err(|errno| self.read_error(name, errno))
    }

    /// Hands each line of `name` to `line`, without its newline, in pieces of bounded size.
    fn each_line(
        &self,
        name: &str,
        line: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Error> {
        self.each_line_of(name, LINES, |_| 0, line)
    }

    /// The same in pieces of at most so many bytes. Lines that say nothing may be passed over: `idle` tells how many bytes
    /// these have at the start of a text that begins with a line.
    fn each_line_of(
        &self,
        name: &str,
        piece: usize,
        idle: impl Fn(&[u8]) -> usize,
        mut line: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Error> {
        let fd = self.open_file(name, OFlags::RDONLY)?;
        // What there is of a line whose end has not come yet.
        let mut begun: Vec<u8> = Vec::new();
        let failed = |errno| self.read_error(name, errno);
        pieces::each(fd.as_fd(), piece, failed, |mut rest| {
            while let Some((end, more)) = text::cut(rest) {
                let taken = if begun.is_empty() {
                    line(end)
                } else {
                    begun.extend_from_slice(end);
                    let taken = line(&begun);
                    begun.clear();
                    taken
                };
                taken.map_err(|what| self.parse_error(name, what))?;
                rest = &more[idle(more)..];
            }
            begun.extend_from_slice(rest);
            match begun.len() > LINES {
                true => Err(self.parse_error(name, Malformed("line length"))),
                false => Ok(()),
            }
        })?;
        if begun.is_empty() {
            Ok(())
        } else {
            Err(self.parse_error(name, Malformed("last line")))
        }
    }

    fn read_error(&self, name: &str, errno: Errno) -> Error {
        let (file, pid) = (Cow::Owned(name.to_owned()), self.pid.as_raw_pid());
        Error::Read { file, pid, errno }
    }

    fn parse_error(&self, name: &str, what: Malformed) -> Error {
        let (file, pid) = (Cow::Owned(name.to_owned()), self.pid.as_raw_pid());
        Error::Parse { file, pid, what }
    }

    /// Reads `name` and parses it.
    fn parsed<T>(
        &self,
        name: &str,
        expected: usize,
        parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<T, Error> {
        parse(&self.read(name, expected)?).map_err(|what| self.parse_error(name, what))
    }

    /// The same of a file that the kernel makes up as one record.
    fn parsed_record<T>(
        &self,
        name: &str,
        expected: usize,
        parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<T, Error> {
        parse(&self.read_record(name, expected)?).map_err(|what| self.parse_error(name, what))
    }
}

impl AsFd for TaskDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Which read has been the last one of a file of procfs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// One that returns nothing.
    Empty,
    /// One that leaves room: what the kernel makes up as one record.
    Short,
}

/// What reads append to a text, up to the last.
fn whole(
    expected: usize,
    last: Last,
    mut read: impl FnMut(&mut Vec<u8>) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(expected.clamp(64, MAX_FILE));
    loop {
        match read(&mut text) {
            Ok(0) => return Ok(text),
            Ok(_) if text.len() == text.capacity() && text.len() >= MAX_FILE => {
                return Err(Errno::FBIG);
            }
            Ok(_) if text.len() == text.capacity() => text.reserve(text.len()),
            Ok(_) if last == Last::Short => return Ok(text),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
