//! Who belongs to a tree, as procfs tells: threads, children, parents.

use gelid_sys::{Errno, Pid, proc};
use rustix::fs::{CWD, Mode, OFlags, RawDir};
use std::mem::MaybeUninit;

use crate::Error;

/// Reads lists of tasks; owns the buffers.
pub(crate) struct Scanner {
    entries: Vec<MaybeUninit<u8>>,
    text: Vec<u8>,
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self {
            entries: vec![MaybeUninit::uninit(); 32 << 10],
            text: Vec::with_capacity(4096),
        }
    }

    /// Number of threads of a process, by the link count of its `task` directory: one call, no listing.
    /// `None` if it is gone.
    pub(crate) fn thread_count(pid: Pid) -> Result<Option<u64>, Error> {
        match rustix::fs::stat(format!("/proc/{pid}/task")) {
            Ok(stat) => Ok(Some(stat.st_nlink.saturating_sub(2))),
            Err(errno) => gone_or(errno, pid, "task").map(|()| None),
        }
    }

    /// Appends the threads of `pid`; nothing if it is gone.
    pub(crate) fn threads(&mut self, pid: Pid, to: &mut Vec<Pid>) -> Result<(), Error> {
        self.numbers(&format!("/proc/{pid}/task"), to)
            .or_else(|errno| gone_or(errno, pid, "task"))
    }

    /// Appends the processes visible in `/proc`.
    pub(crate) fn processes(&mut self, to: &mut Vec<Pid>) -> Result<(), Error> {
        self.numbers("/proc", to)
            .or_else(|errno| gone_or(errno, Pid::INIT, ".."))
    }

    /// Appends the children born to, or passed to, the thread `tid` of `pid`, the oldest first.
    pub(crate) fn children(&mut self, pid: Pid, tid: Pid, to: &mut Vec<Pid>) -> Result<(), Error> {
        self.read(&format!("/proc/{pid}/task/{tid}/children"))
            .or_else(|errno| gone_or(errno, tid, "children"))?;
        to.extend(self.text.split(|byte| *byte == b' ').filter_map(number));
        Ok(())
    }

    /// Whether the kernel lists the children of a thread (`CONFIG_PROC_CHILDREN`).
    pub(crate) fn lists_children() -> bool {
        rustix::fs::access("/proc/thread-self/children", rustix::fs::Access::READ_OK).is_ok()
    }

    fn numbers(&mut self, path: &str, to: &mut Vec<Pid>) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let mut entries = RawDir::new(&fd, &mut self.entries);
        while let Some(entry) = entries.next() {
            to.extend(number(entry?.file_name().to_bytes()));
        }
        Ok(())
    }

    /// Reads a file of procfs into `self.text`, empty if it cannot be read.
    fn read(&mut self, path: &str) -> rustix::io::Result<()> {
        self.text.clear();
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        loop {
            self.text.reserve(1024);
            match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut self.text)) {
                Ok(0) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Whether a thread is known to have no children: a list of some has a byte to read.
pub(crate) fn is_childless(tid: Pid) -> bool {
    let path = format!("/proc/{tid}/task/{tid}/children");
    let children = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    children.is_ok_and(|file| rustix::io::read(file, &mut [0]) == Ok(0))
}

/// `stat` of a process or thread, `None` if it is gone.
pub(crate) fn stat(task: Pid) -> Result<Option<proc::stat::Stat>, Error> {
    absent(proc::TaskDir::open(task).and_then(|dir| proc::stat::read(&dir)))
}

/// `stat` of the main thread of a process alone, `None` if it is gone.
pub(crate) fn stat_of_leader(pid: Pid) -> Result<Option<proc::stat::Stat>, Error> {
    let leader = proc::TaskDir::open(pid).and_then(|dir| dir.thread(pid));
    absent(leader.and_then(|dir| proc::stat::read(&dir)))
}

/// `status` of a process or thread, `None` if it is gone.
pub(crate) fn status(task: Pid) -> Result<Option<proc::status::Status>, Error> {
    absent(proc::TaskDir::open(task).and_then(|dir| proc::status::read(&dir)))
}

/// A short file below `/proc/TASK` as text for a message; `?` if it cannot be read.
pub(crate) fn word(task: i32, file: &str) -> String {
    match std::fs::read(format!("/proc/{task}/{file}")) {
        Ok(text) if !text.is_empty() => String::from_utf8_lossy(&text).trim_end().to_owned(),
        _ => "?".to_owned(),
    }
}

/// The name of a task for a message.
pub(crate) fn comm(task: Pid) -> String {
    word(task.as_raw_pid(), "comm")
}

fn absent<T>(result: Result<T, proc::Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A task that has gone is no error.
fn gone_or(errno: Errno, pid: Pid, file: &'static str) -> Result<(), Error> {
    match errno {
        Errno::NOENT | Errno::SRCH => Ok(()),
        errno => Err(proc::Error::Read {
            file: file.into(),
            pid: pid.as_raw_pid(),
            errno,
        }
        .into()),
    }
}

fn number(name: &[u8]) -> Option<Pid> {
    std::str::from_utf8(name)
        .ok()?
        .parse()
        .ok()
        .and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_threads_and_children_are_listed() {
        let mut scanner = Scanner::new();
        let own = rustix::process::getpid();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let mut threads = Vec::new();
        scanner.threads(own, &mut threads).unwrap();
        assert!(threads.contains(&rustix::thread::gettid()));
        let mut children = Vec::new();
        scanner
            .children(own, rustix::thread::gettid(), &mut children)
            .unwrap();
        assert!(children.contains(&Pid::from_child(&child)));
        let mut all = Vec::new();
        scanner.processes(&mut all).unwrap();
        assert!(all.contains(&own) && all.contains(&Pid::from_child(&child)));
        assert_eq!(
            Scanner::thread_count(Pid::from_child(&child)).unwrap(),
            Some(1)
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            Scanner::thread_count(Pid::from_child(&child)).unwrap(),
            None
        );
    }

    #[test]
    fn only_numbers_are_tasks() {
        assert_eq!(number(b"17"), Pid::from_raw(17));
        for name in [&b""[..], b"0", b"self", b"99999999999", b"1x", b"\xff"] {
            assert_eq!(number(name), None);
        }
    }
}
