//! The calls that no dump of a tree can do without.
//!
//! All that a dump has to know is asked, each of it where it costs least; how long that takes stands where it is done, as
//! measured here:
//!
//! | what | where |
//! | --- | --- |
//! | stops; registers, restartable sequences, diverted calls | `stage`, by `ptrace(2)` |
//! | masks, pending signals, scheduling, credentials, attributes, handlers, limits, timers, descriptors | `asked`, by calls of the threads themselves, which `script` plays |
//! | relations, memory, paths, namespaces, what tasks share | `outside` |
//! | where threads stand among cgroups | `cgroups` |
//! | locks, paths, what waits | `opened` |
//! | pages, files, the end | here |
//!
//! Pages are read and written by two threads, into a file that has its blocks; a file is made for each thread, and six for
//! each process; that of a further thread while the tree is being stopped, all others before. One thread traces, as tracees
//! belong to one: with two, each for a half of 1,000 threads, stops took no less. A second one looks from outside
//! meanwhile, a third reads mappings.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Instant;

use gelid_sys::pagemap::{self, Categories, Query, ScanFlags};
use gelid_sys::proc::{self, TaskDir, scalar, tasks};
use gelid_sys::ptrace::Stopped;
use gelid_sys::wait::{Whom, wait};
use gelid_sys::{Errno, PAGE_SIZE, Pid, nofile, pidfd, vm};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::process::{Signal, kill_process};

use crate::opened::{self, Numbers};
use crate::stage::{self, Actor, Reader};
use crate::{CHUNK, Failure, PAGES, SPACE, WORKERS, in_chunks, lock, outside};

/// Files of a process beside that of its first thread, those of the tree, and the bytes in one.
const FILES: usize = 6;
const OF_TREE: usize = 4;
const FILE_BYTES: usize = 2048;
/// With so many bytes it is worth while to help a process give them back.
const LARGE: u64 = 256 << 20;

/// A process and its threads.
pub(crate) type Process = (Pid, Vec<Pid>);
/// Pages of a process, no more than a worker has in hand.
type Job = (Pid, Vec<Range<u64>>);
/// The descriptors of all processes.
type Listed = Vec<(Pid, Numbers)>;

/// Ends the tree of a process; for how many milliseconds it stood still.
pub(crate) fn dump(pid: &str, dir: &Path) -> Result<f64, Failure> {
    let root = Pid::from_raw(pid.parse()?).ok_or("no pid")?;
    let all = tree(root)?;
    let files = files(&all);
    let dir = File::open(dir)?;
    let _limit = nofile::Raised::to(files as u64 + 64);
    nofile::widen(&dir, files as u64 + 64);
    let (store, bytes) = store(&all, &dir)?;
    let store = Mutex::new(store);
    let (stand_still, still) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let (listed, lists) = mpsc::channel();
        let (all, dir, barriers) = (&all, &dir, (&stand_still, &still));
        let beside = scope.spawn(move || beside(all, dir, barriers, &lists));
        stand_still.wait();
        let start = Instant::now();
        let stopped = stage::stop(all);
        // The other one is not to wait for ever.
        still.wait();
        let looked = stopped.and_then(|stopped| look(all, stopped, &store, listed));
        beside.join().map_err(|_| "it has panicked")??;
        looked?;
        // What others call frozen does not contain the end.
        let frozen = start.elapsed();
        end(all, bytes)?;
        Ok(frozen.as_secs_f64() * 1e3)
    })
}

/// Kills the tree, which has so much memory, and collects it. That a tracer ends collects no faster.
fn end(all: &[Process], bytes: u64) -> Result<(), Failure> {
    for (pid, _) in all {
        kill_process(*pid, Signal::KILL)?;
    }
    if let ([(pid, _)], LARGE..) = (all, bytes) {
        // Of little memory in many mappings it would take longer.
        let _ = pidfd::open(*pid).and_then(pidfd::release_memory);
    }
    // Children before their parents, and leaders last.
    let mut tids = all
        .iter()
        .rev()
        .flat_map(|(_, threads)| threads.iter().rev());
    tids.try_for_each(|tid| reap(*tid))
}

/// How many files it makes beside that of pages.
pub(crate) fn files(all: &[Process]) -> usize {
    let threads: usize = all.iter().map(|(_, threads)| threads.len()).sum();
    threads + all.len() * FILES + OF_TREE
}

fn reap(tid: Pid) -> Result<(), Failure> {
    loop {
        match wait(Whom::Task(tid), true)? {
            Some((_, status)) if status.is_dead() => return Ok(()),
            _ => {}
        }
    }
}

/// All processes of a tree and their threads, the first of each before the others, which neither come nor go.
pub(crate) fn tree(root: Pid) -> Result<Vec<Process>, Failure> {
    let mut all = Vec::new();
    let mut next = VecDeque::from([root]);
    while let Some(pid) = next.pop_front() {
        let dir = proc::task_dir(pid)?;
        let mut threads = tasks::threads(&dir)?;
        // Numbers begin anew some time.
        threads.sort_by_key(|tid| *tid != pid);
        next.extend(tasks::children_of(&dir, pid)?);
        all.push((pid, threads));
    }
    Ok(all)
}

/// The file of pages, which has blocks for all pages, where the file system can; how many bytes these have.
fn store(all: &[Process], dir: &File) -> Result<(File, u64), Failure> {
    let mut pages = 0;
    for (pid, _) in all {
        pages += scalar::anonymous_pages(&proc::task_dir(*pid)?)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, PAGES, flags, Mode::from_raw_mode(0o600))?;
    let bytes = pages * PAGE_SIZE as u64;
    if bytes > CHUNK {
        // Without blocks it is as good as any other.
        let _ = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes);
    }
    Ok((File::from(file), bytes))
}

/// What the second thread does: files, and all that is seen from outside.
fn beside(
    all: &[Process],
    dir: &File,
    (stand_still, still): (&Barrier, &Barrier),
    lists: &Receiver<Listed>,
) -> Result<(), Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let make = |number: usize| {
        rustix::fs::openat(dir, crate::image(number), flags, Mode::from_raw_mode(0o600))
            .map(File::from)
    };
    let early = all.len() * (FILES + 1) + OF_TREE;
    let made: Result<Vec<File>, _> = (0..early).map(make).collect();
    stand_still.wait();
    let more: Result<Vec<File>, _> = (early..files(all)).map(make).collect();
    still.wait();
    outside::look(all)?;
    // There are none if the first thread has failed, which tells why.
    let listed = lists.recv().unwrap_or_default();
    let count: usize = listed.iter().map(|(_, numbers)| numbers.count()).sum();
    let are_many = count > opened::MANY;
    std::thread::scope(|scope| {
        let locks = are_many.then(|| scope.spawn(opened::locks));
        for (pid, numbers) in &listed {
            if let Numbers::Few(numbers) = numbers {
                opened::few(*pid, numbers, !are_many)?;
            }
        }
        for mut file in made?.into_iter().chain(more?) {
            file.write_all(&[7; FILE_BYTES])?;
        }
        match locks {
            Some(locks) => locks.join().map_err(|_| "it has panicked")?,
            None => Ok(()),
        }
    })
}

/// What the first thread does when all stand still, and who reads mappings and pages meanwhile.
fn look(
    all: &[Process],
    stopped: Vec<Vec<Stopped>>,
    store: &Mutex<File>,
    listed: Sender<Listed>,
) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let (jobs, queued) = mpsc::channel();
        let queued = Arc::new(Mutex::new(queued));
        let crew = [(); WORKERS].map(|()| {
            let queued = Arc::clone(&queued);
            scope.spawn(move || move_pages(&queued, store))
        });
        let mut crew = Vec::from(crew);
        crew.push(scope.spawn(|| outside::mappings(all)));
        let (mut reader, mut actors) = (Reader::new(), Vec::with_capacity(all.len()));
        for ((pid, _), threads) in all.iter().zip(stopped) {
            let dir = proc::task_dir(*pid)?;
            let found = pages(&dir)?;
            in_chunks(&found, |ranges| Ok(jobs.send((*pid, ranges))?))?;
            actors.push(Actor::look(&dir, threads, &mut reader)?);
        }
        drop(jobs);
        let numbers = actors
            .iter()
            .map(|actor| (actor.pid(), actor.numbers.clone()));
        listed.send(numbers.collect())?;
        stage::make_room(&mut actors)?;
        stage::ask_all(&mut actors)?;
        for worker in crew {
            worker.join().map_err(|_| "it has panicked")??;
        }
        Ok(())
    })
}

/// Pages that are in no file.
pub(crate) fn pages(task: &TaskDir) -> Result<Vec<Range<u64>>, Failure> {
    let not = Categories::FILE.union(Categories::PFNZERO);
    let query = Query {
        inverted: not,
        required: not,
        any_of: Categories::PRESENT.union(Categories::SWAPPED),
        report: Categories::empty(),
        flags: ScanFlags::empty(),
    };
    let pagemap = task.open_file("pagemap", OFlags::RDONLY)?;
    let found = pagemap::scan_all(&pagemap, 0..SPACE, &query)?;
    Ok(found
        .iter()
        .map(|region| region.start..region.end)
        .collect())
}

/// Reads pages and writes them, until there are no more. A file is written by one at a time; two files, by one worker each,
/// take longer.
fn move_pages(queued: &Mutex<Receiver<Job>>, store: &Mutex<File>) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK as usize];
    loop {
        let next = lock(queued).recv();
        let Ok((pid, ranges)) = next else {
            return Ok(());
        };
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        match vm::read_ranges(pid, &ranges, &mut buffer[..bytes as usize]) {
            Ok(read) => lock(store).write_all(&buffer[..read])?,
            // Memory that nobody may read, the kernel's own or the program's.
            Err(Errno::FAULT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn a_program_is_asked_everything_and_ends() {
        if !rustix::process::getuid().is_root() {
            return;
        }
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id().to_string();
        let sleeps = || std::fs::read(format!("/proc/{pid}/syscall")).unwrap();
        while !sleeps().starts_with(b"230 ") {
            std::thread::sleep(Duration::from_millis(1));
        }
        let folder = tempfile::tempdir().unwrap();
        let dumped = dump(&pid, folder.path());
        if dumped.is_err() {
            child.kill().unwrap();
        }
        // It has been collected, if all is well.
        let _ = child.wait();
        assert!(dumped.unwrap() > 0.0);
        let names = std::fs::read_dir(folder.path()).unwrap();
        assert_eq!(names.count(), FILES + OF_TREE + 2);
        assert!(!Path::new("/proc").join(pid).exists());
    }
}
