//! What is told of descriptors.
//!
//! A file in `fdinfo` takes 5 us, and to fetch a duplicate and ask it 2. Where there are few, both is done, since nothing
//! else tells at once whether one has part in a lock. Where there are many, `/proc/locks` tells that of all: it takes
//! three ticks of the clock, in which it does nothing but wait, so that others ask for the rest meanwhile.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::ops::Range;

use gelid_sys::diag::Diag;
use gelid_sys::proc::{TaskDir, fd, fdinfo, task_dir};
use gelid_sys::{PAGE_SIZE, Pid, kcmp, pidfd, unix};
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::Failure;
use crate::asked::{self, Found};
use crate::script::{Arg, Script, Sheet};
use crate::stage::{Actor, Leader};

/// So many in all are worth a look at all locks of the system.
pub(crate) const MANY: usize = 1000;
/// A table of so many is looked at by asking for each number, as the kernel lists them no faster.
pub(crate) const LARGE: u64 = 1024;
const ANON: &[u8] = b"anon_inode:";

/// Which descriptors a process has, by number, or up to which.
#[derive(Debug, Clone)]
pub(crate) enum Numbers {
    Few(Vec<i32>),
    Upto(u64),
}

impl Numbers {
    /// Of a process with a table of this size.
    pub(crate) fn of(dir: &TaskDir, size: u64) -> Result<Self, Failure> {
        Ok(match size < LARGE {
            true => Self::Few(fd::list(dir)?),
            false => Self::Upto(size),
        })
    }

    /// How many there may be.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Few(numbers) => numbers.len(),
            Self::Upto(size) => *size as usize,
        }
    }

    /// Bytes that answers take which a large table is asked for.
    pub(crate) fn room(&self) -> u64 {
        let Self::Upto(size) = self else { return 0 };
        let mut script = Script::default();
        asked::descriptor(&mut script, Arg::Item);
        Sheet::size(&[(&script, *size as usize)]) + size * script.area() + PAGE_SIZE as u64
    }
}

/// What is seen from outside of few descriptors: all, if locks are not looked at together.
pub(crate) fn few(pid: Pid, numbers: &[i32], with_locks: bool) -> Result<(), Failure> {
    let dir = task_dir(pid)?;
    for number in numbers {
        let link = fd::link(&dir, *number)?;
        if with_locks || link.as_bytes().starts_with(ANON) {
            fdinfo::read(&dir, *number)?;
        }
    }
    Ok(())
}

/// All locks there are.
pub(crate) fn locks() -> Result<(), Failure> {
    let mut text = Vec::new();
    File::open("/proc/locks")?.read_to_end(&mut text)?;
    Ok(())
}

/// One of a large table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct One {
    number: i32,
    inode: (u64, u64),
    kind: u32,
    status: u64,
}

const FIFO: u32 = 0o010_000;
const SOCKET: u32 = 0o140_000;
const KIND: u32 = 0o170_000;

fn decode(number: i32, area: &[u8], found: Found) -> Option<One> {
    let Arg::Space(stat) = found.stat else {
        return None;
    };
    (word(area, found.flags) >> 63 == 0).then(|| One {
        number,
        inode: (word(area, stat), word(area, stat + 8)),
        kind: word(area, stat + 24) as u32 & KIND,
        status: word(area, found.status),
    })
}

fn word(area: &[u8], at: u64) -> u64 {
    let bytes = area.get(at as usize..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// A large table: asked by its process, while others look at what only they see.
pub(crate) fn large(leader: &mut Leader<'_>, size: u64, room: Range<u64>) -> Result<(), Failure> {
    let pid = leader.pid();
    let mut script = Script::default();
    let found = asked::descriptor(&mut script, Arg::Item);
    let numbers: Vec<u64> = (0..size).collect();
    let told = leader.play(&script, &numbers, room.clone())?;
    let areas = told.chunks_exact(script.area() as usize);
    let all = (0..).zip(areas);
    let all = all.filter_map(|(number, area)| decode(number, area, found));
    let all: Vec<One> = all.collect();
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| named(pid, &all));
        let waiting = asked_more(leader, &all, room);
        let contents = waiting.and_then(|waiting| contents(pid, &waiting));
        beside.join().map_err(|_| "it has panicked")??;
        contents
    })
}

/// What pipes and sockets are asked beside that; those in which something waits.
fn asked_more(leader: &mut Leader<'_>, all: &[One], room: Range<u64>) -> Result<Vec<One>, Failure> {
    let mut full = Vec::new();
    for (kind, (script, waiting)) in [(FIFO, asked::pipe()), (SOCKET, asked::socket())] {
        let Arg::Space(waiting) = waiting else {
            continue;
        };
        let these = all.iter().filter(|one| one.kind == kind);
        let these: Vec<One> = these.copied().collect();
        let head = Sheet::size(&[(&script, 0)]) + PAGE_SIZE as u64;
        let fit = (room.end - room.start).saturating_sub(head) / (script.area() + 8);
        for some in these.chunks(fit.max(1) as usize) {
            let numbers: Vec<u64> = some.iter().map(|one| one.number as u64).collect();
            let told = leader.play(&script, &numbers, room.clone())?;
            let areas = told.chunks_exact(script.area() as usize);
            let some = some.iter().zip(areas);
            let some = some.filter(|(_, area)| word(area, waiting) as u32 > 0);
            full.extend(some.map(|(one, _)| *one));
        }
    }
    Ok(full)
}

/// Paths of files, which have to lead to them, and what only `fdinfo` has of what is no file. Whether two are one
/// description is asked only where nothing else tells them apart.
fn named(pid: Pid, all: &[One]) -> Result<(), Failure> {
    let dir = task_dir(pid)?;
    Diag::new()?.all_unix()?;
    let mut paths: HashSet<Vec<u8>> = HashSet::new();
    let mut seen = HashSet::new();
    let mut last = None;
    for one in all {
        match one.kind {
            FIFO | SOCKET => {}
            0 => {
                // Duplicates mostly stand side by side; others differ in their `fdinfo`.
                let twin = last.map(|last| kcmp::file((pid, last), (pid, one.number)));
                if !twin.transpose()?.is_some_and(std::cmp::Ordering::is_eq) {
                    fdinfo::read(&dir, one.number)?;
                }
                last = Some(one.number);
            }
            _ => {
                let path = fd::link(&dir, one.number)?.into_bytes();
                if !seen.insert((one.inode, one.status)) {
                    kcmp::file((pid, one.number - 1), (pid, one.number))?;
                }
                if !paths.contains(&path) {
                    let _ = rustix::fs::stat(&path[..]);
                    paths.insert(path);
                }
            }
        }
    }
    Ok(())
}

/// What waits in pipes and sockets, through duplicates.
fn contents(pid: Pid, full: &[One]) -> Result<(), Failure> {
    const WRITES: u64 = 1;
    let task = pidfd::open(pid)?;
    let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let mut buffer = vec![0; 64 << 10];
    let mut seen = HashSet::new();
    for one in full {
        if one.kind == FIFO && (one.status & WRITES != 0 || !seen.insert(one.inode)) {
            continue;
        }
        let fetched = pidfd::getfd(&task, one.number)?;
        if one.kind == FIFO {
            rustix::pipe::tee(&fetched, &pipe.1, buffer.len(), SpliceFlags::NONBLOCK)?;
            rustix::io::read(&pipe.0, &mut buffer[..])?;
        } else {
            unix::peek(&fetched, &mut buffer)?;
        }
    }
    Ok(())
}

/// What the processes tell of small tables is among what their first threads are asked; large ones come first.
pub(crate) fn tables(actors: &mut [Actor]) -> Result<(), Failure> {
    for actor in actors {
        if let Numbers::Upto(size) = actor.numbers {
            let room = actor.spare();
            large(&mut actor.leader()?, size, room)?;
        }
    }
    Ok(())
}
