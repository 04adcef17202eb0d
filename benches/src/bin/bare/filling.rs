//! Pages of a tree that is made: from one file, by several threads.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use gelid_sys::userfaultfd::Holes;
use gelid_sys::vm::{self, Mem};
use gelid_sys::{Pid, pidfd};

use crate::shape::Pages;
use crate::{CHUNK, Failure, PAGES, lock};

/// The bytes of pages, which are given out in no order.
pub(crate) struct Stock {
    file: File,
    next: AtomicU64,
}

impl Stock {
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let file = File::open(dir.join(PAGES))?;
        let next = AtomicU64::new(0);
        Ok(Self { file, next })
    }

    /// Reads the next bytes. What nobody could read when it was dumped is missing at the end, and left as it is.
    fn take(&self, buffer: &mut [u8]) -> Result<(), Failure> {
        let at = self.next.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.file.read_at(buffer, at)?;
        Ok(())
    }
}

/// How pages come to a process.
#[derive(Clone)]
enum Way {
    Plain,
    Forced(Arc<Mem>),
    Holes(Arc<Holes>),
}

/// Pages of a process, no more than a worker has in hand.
pub(crate) struct Job {
    pid: Pid,
    way: Way,
    ranges: Vec<Range<u64>>,
}

/// Has all pages of a process filled. Where some go into holes, its descriptor 0 is for them.
pub(crate) fn queue(pages: &Pages, pid: Pid, jobs: &Sender<Job>) -> Result<(), Failure> {
    if !pages.areas.is_empty() {
        let holes = Holes::of(pidfd::getfd(pidfd::open(pid)?, 0)?)?;
        for area in &pages.areas {
            holes.register(area)?;
        }
        in_jobs(pid, &Way::Holes(Arc::new(holes)), &pages.holes, jobs)?;
    }
    if !pages.forced.is_empty() {
        let way = Way::Forced(Arc::new(Mem::open(pid)?));
        in_jobs(pid, &way, &pages.forced, jobs)?;
    }
    in_jobs(pid, &Way::Plain, &pages.plain, jobs)
}

fn in_jobs(pid: Pid, way: &Way, ranges: &[Range<u64>], jobs: &Sender<Job>) -> Result<(), Failure> {
    crate::in_chunks(ranges, |ranges| {
        let way = way.clone();
        Ok(jobs.send(Job { pid, way, ranges })?)
    })
}

/// Fills pages until there are no more.
pub(crate) fn work(queued: &Mutex<Receiver<Job>>, stock: &Stock) -> Result<(), Failure> {
    let mut buffer = Vec::new();
    loop {
        let next = lock(queued).recv();
        let Ok(Job { pid, way, ranges }) = next else {
            return Ok(());
        };
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        debug_assert!(bytes <= CHUNK);
        if buffer.len() < bytes as usize {
            buffer.resize(bytes as usize, 0);
        }
        let bytes = &mut buffer[..bytes as usize];
        stock.take(bytes)?;
        match way {
            Way::Plain => {
                if vm::write_ranges(pid, bytes, &ranges)? != bytes.len() {
                    return Err("some pages cannot be written".into());
                }
            }
            Way::Forced(mem) => by_range(&ranges, bytes, |start, bytes| {
                mem.write(start, bytes)?;
                Ok(bytes.len())
            })?,
            Way::Holes(holes) => {
                by_range(&ranges, bytes, |start, bytes| Ok(holes.fill(start, bytes)?))?
            }
        }
    }
}

/// Fills one range after the other; `fill` tells how many bytes it has filled.
fn by_range(
    ranges: &[Range<u64>],
    mut bytes: &[u8],
    fill: impl Fn(u64, &[u8]) -> Result<usize, Failure>,
) -> Result<(), Failure> {
    for range in ranges {
        let mut start = range.start;
        while start < range.end {
            let done = fill(start, &bytes[..(range.end - start) as usize])?;
            if done == 0 {
                return Err("a page cannot be filled".into());
            }
            bytes = &bytes[done..];
            start += done as u64;
        }
    }
    Ok(())
}
