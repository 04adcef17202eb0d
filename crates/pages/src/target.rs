//! Where restored pages go: the memory of a process, or a file that backs shared memory.

use crate::HUGE_BYTES;
use crate::holes::{Fillable, HoleMappings};
use crate::source::{Remaining, byte_len, opened};
use gelid_sys::madvise::{self, Advice};
use gelid_sys::vm;
use rustix::io::Errno;
use rustix::process::Pid;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::slice;
use std::sync::OnceLock;

/// Memory that workers fill by address, several threads at once.
pub trait PageTarget: Send + Sync {
    /// Writes `bytes` into `ranges`, one behind the other; their total is `bytes.len()`.
    ///
    /// # Errors
    ///
    /// Any error ends the whole restore; it is reported with the object and the addresses.
    fn write(&self, bytes: &[u8], ranges: &[Range<u64>]) -> io::Result<()>;

    /// Reads what is at `range` now into `bytes`, which have its length; returns how many of them could be read.
    ///
    /// Needed only for what a [`FillRequest`](crate::FillRequest) wants compared: the default reads nothing, and what
    /// was not read is written.
    ///
    /// # Errors
    ///
    /// As if nothing had been read.
    fn read(&self, range: &Range<u64>, bytes: &mut [u8]) -> io::Result<usize> {
        let _ = (range, bytes);
        Ok(0)
    }

    /// Backs each of `areas`, aligned 2 MiB each and ascending, by a huge page; returns how many of them are known to
    /// have got one. A page of each has been written already, so that it is there; it and the rest are filled later.
    ///
    /// Only a hint: the default does nothing, and an error changes nothing but speed.
    ///
    /// # Errors
    ///
    /// If the kernel gives none and would give none to others; nobody else is told.
    fn collapse(&self, areas: &[Range<u64>]) -> io::Result<usize> {
        let _ = areas;
        Ok(0)
    }

    /// Told when huge pages are slow to get; true if small ones will be fast from now on, so that no more huge pages are
    /// wanted. The default has no such way.
    fn prefer_small(&self) -> bool {
        false
    }

    /// Told when the last page has been written. The default does nothing.
    fn filled(&self) {}
}

/// The memory of a process that does not run yet.
///
/// `process_vm_writev(2)` for a whole batch of ranges; what it refuses (a mapping without write
/// permission) is forced through `/proc/PID/mem`.
#[derive(Debug)]
pub struct ProcessTarget {
    pid: Pid,
    mem: OnceLock<vm::Mem>,
    fillable: Option<Fillable>,
}

impl ProcessTarget {
    /// A target for the process `pid`, which the caller may trace.
    #[must_use]
    pub fn new(pid: Pid) -> Self {
        Self {
            pid,
            mem: OnceLock::new(),
            fillable: None,
        }
    }

    /// A target that may fill holes of the same process.
    /// Nobody else may touch them until [`Filling::wait`](crate::Filling::wait) returns; no other request may fill them.
    #[must_use]
    pub fn with_holes(pid: Pid, mappings: HoleMappings) -> Self {
        Self {
            fillable: Some(Fillable::new(mappings)),
            ..Self::new(pid)
        }
    }
}

impl PageTarget for ProcessTarget {
    fn write(&self, bytes: &[u8], ranges: &[Range<u64>]) -> io::Result<()> {
        let mut left = Remaining::new(ranges);
        let held = self.fillable.as_ref().map(Fillable::hold);
        while !left.is_empty() {
            let mut part = None;
            if let Some(held) = &held {
                held.fill(bytes, &mut left)?;
                if left.is_empty() {
                    break;
                }
                part = left.ranges().first().and_then(|first| held.writable(first));
            }
            let now = part.as_ref().map_or(left.ranges(), slice::from_ref);
            let done = match vm::write_ranges(self.pid, &bytes[left.done..], now) {
                Ok(done) => done,
                Err(Errno::FAULT) => 0,
                Err(errno) => return Err(errno.into()),
            };
            let written = done == now.iter().map(byte_len).sum::<usize>();
            left.advance(done);
            if !written && let Some(mut refused) = left.ranges().first().cloned() {
                refused.end = part.map_or(refused.end, |part| part.end);
                let forced = &bytes[left.done..left.done + byte_len(&refused)];
                opened(&self.mem, self.pid)?.write(refused.start, forced)?;
                left.advance(forced.len());
            }
        }
        Ok(())
    }

    fn read(&self, range: &Range<u64>, bytes: &mut [u8]) -> io::Result<usize> {
        // `process_vm_readv(2)` would make copies of pages that are shared.
        opened(&self.mem, self.pid)?.read(range.start, bytes)?;
        Ok(bytes.len())
    }

    fn collapse(&self, areas: &[Range<u64>]) -> io::Result<usize> {
        let pidfd = gelid_sys::pidfd::open(self.pid)?;
        // Each range costs a visit to all processors.
        let outcome = madvise::best_effort(pidfd, &joined(areas), Advice::Collapse);
        match outcome.errno {
            // Another worker is at a page of one of them; the others may have got theirs.
            None | Some(Errno::AGAIN) => Ok((outcome.advised / HUGE_BYTES) as usize),
            Some(errno) => Err(errno.into()),
        }
    }

    fn prefer_small(&self) -> bool {
        self.fillable.as_ref().is_some_and(Fillable::begin)
    }

    fn filled(&self) {
        if let Some(fillable) = &self.fillable {
            fillable.end();
        }
    }
}

/// `areas` with neighbours made one.
fn joined(areas: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(areas.len());
    for area in areas {
        match joined.last_mut() {
            Some(last) if last.end == area.start => last.end = area.end,
            _ => joined.push(area.clone()),
        }
    }
    joined
}

/// A file addressed by byte offset: a memfd or the like, already of its full size.
#[derive(Debug)]
pub struct FileTarget(File);

impl FileTarget {
    /// A target for `file`, which must be writable.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self(file)
    }
}

impl PageTarget for FileTarget {
    fn write(&self, mut bytes: &[u8], ranges: &[Range<u64>]) -> io::Result<()> {
        for range in ranges {
            let (here, rest) = bytes.split_at(byte_len(range));
            self.0.write_all_at(here, range.start)?;
            bytes = rest;
        }
        Ok(())
    }
}
