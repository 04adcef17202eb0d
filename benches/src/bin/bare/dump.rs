//! The calls that no dump of a tree can do without.
//!
//! Every thread is stopped, told its registers, let go and stopped once more, as for the end of a tape; mappings,
//! descriptors and groups are read and not looked at; pages are read and written by two threads, into a file that has its
//! blocks; a file is made for each thread, and six for each process. As much as can be is done by several threads at once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Instant;

use gelid_sys::arch::{NT_X86_XSTATE, XLayout};
use gelid_sys::pagemap::{self, Categories, Query, ScanFlags};
use gelid_sys::proc::{self, TaskDir, cgroup, fd, fdinfo, scalar, tasks};
use gelid_sys::ptrace::{self, Options, Stopped};
use gelid_sys::wait::{Whom, wait};
use gelid_sys::{Errno, PAGE_SIZE, Pid, nofile, pidfd, vm};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::process::{Signal, kill_process};

use crate::{CHUNK, Failure, PAGES, SPACE, WORKERS, in_chunks, lock};

/// Files of a process beside that of its first thread, and the bytes in one.
const FILES: usize = 6;
const FILE_BYTES: usize = 2048;

/// A process and its threads.
pub(crate) type Process = (Pid, Vec<Pid>);
/// Pages of a process, no more than a worker has in hand.
type Job = (Pid, Vec<Range<u64>>);

/// Ends the tree of a process; for how many milliseconds it stood still.
pub(crate) fn dump(pid: &str, dir: &Path) -> Result<f64, Failure> {
    let root = Pid::from_raw(pid.parse()?).ok_or("no pid")?;
    let all = tree(root)?;
    let files = files(&all);
    let dir = File::open(dir)?;
    let _limit = nofile::Raised::to(files as u64 + 64);
    nofile::widen(&dir, files as u64 + 64);
    let store = Mutex::new(store(&all, &dir)?);
    let (stand_still, still) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| beside(&all, &dir, files, (&stand_still, &still)));
        stand_still.wait();
        let start = Instant::now();
        let stopped = stop(&all);
        // The other one is not to wait for ever.
        still.wait();
        let looked = stopped.and_then(|stopped| look(&all, stopped, &store));
        beside.join().map_err(|_| "it has panicked")??;
        looked?;
        for (pid, _) in &all {
            kill_process(*pid, Signal::KILL)?;
        }
        if let [(pid, _)] = all[..] {
            // One that maps little is gone already.
            let _ = pidfd::open(pid).and_then(pidfd::release_memory);
        }
        // Children before their parents, and leaders last.
        let mut tids = all
            .iter()
            .rev()
            .flat_map(|(_, threads)| threads.iter().rev());
        tids.try_for_each(|tid| reap(*tid))?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    })
}

/// How many files it makes beside that of pages.
pub(crate) fn files(all: &[Process]) -> usize {
    let threads: usize = all.iter().map(|(_, threads)| threads.len()).sum();
    threads + all.len() * FILES
}

fn reap(tid: Pid) -> Result<(), Failure> {
    loop {
        match wait(Whom::Task(tid), true)? {
            Some((_, status)) if status.is_dead() => return Ok(()),
            _ => {}
        }
    }
}

/// All processes of a tree and their threads, which neither come nor go.
pub(crate) fn tree(root: Pid) -> Result<Vec<Process>, Failure> {
    let mut all = Vec::new();
    let mut next = VecDeque::from([root]);
    while let Some(pid) = next.pop_front() {
        let dir = proc::task_dir(pid)?;
        let threads = tasks::threads(&dir)?;
        next.extend(tasks::children_of(&dir, pid)?);
        all.push((pid, threads));
    }
    Ok(all)
}

/// The file of pages, which has blocks for all pages, where the file system can.
fn store(all: &[Process], dir: &File) -> Result<File, Failure> {
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
    Ok(File::from(file))
}

/// What the second thread does: files, which are made before the freeze; then descriptors and groups.
fn beside(
    all: &[Process],
    dir: &File,
    files: usize,
    (stand_still, still): (&Barrier, &Barrier),
) -> Result<(), Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let make = |number: usize| {
        rustix::fs::openat(dir, crate::image(number), flags, Mode::from_raw_mode(0o600))
            .map(File::from)
    };
    let made: Result<Vec<File>, _> = (0..files).map(make).collect();
    stand_still.wait();
    still.wait();
    for mut file in made? {
        file.write_all(&[7; FILE_BYTES])?;
    }
    for (pid, threads) in all {
        let dir = proc::task_dir(*pid)?;
        let numbers = fd::list(&dir)?;
        let read = |numbers: &[i32]| {
            numbers.iter().try_for_each(|number| {
                fdinfo::read(&dir, *number)?;
                fd::link(&dir, *number).map(drop)
            })
        };
        let read = gelid_image::shared_out("descriptors", &numbers, read);
        read.into_iter().collect::<Result<(), _>>()?;
        for tid in threads {
            cgroup::text(&dir, *tid)?;
        }
    }
    Ok(())
}

/// Stops all threads.
fn stop(all: &[Process]) -> Result<Vec<Stopped>, Failure> {
    let tids = all.iter().flat_map(|(_, threads)| threads);
    let seized = tids.map(|tid| {
        let running = ptrace::seize(*tid, Options::TRACESYSGOOD)?;
        running.interrupt()?;
        Ok::<_, rustix::io::Errno>(running)
    });
    let seized: Vec<_> = seized.collect::<Result<_, _>>()?;
    let mut stopped = Vec::with_capacity(seized.len());
    for running in seized {
        wait(Whom::Task(running.pid()), true)?;
        stopped.push(running.stopped());
    }
    Ok(stopped)
}

/// What the first thread does when all stand still, and who reads mappings and pages meanwhile.
fn look(all: &[Process], stopped: Vec<Stopped>, store: &Mutex<File>) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let (jobs, queued) = mpsc::channel();
        let queued = Arc::new(Mutex::new(queued));
        let crew = [(); WORKERS].map(|()| {
            let queued = Arc::clone(&queued);
            scope.spawn(move || move_pages(&queued, store))
        });
        let mut crew = Vec::from(crew);
        crew.push(scope.spawn(|| {
            let mut all = all.iter();
            all.try_for_each(|(pid, _)| read_whole(&proc::task_dir(*pid)?, "smaps"))
        }));
        for (pid, _) in all {
            let found = pages(&proc::task_dir(*pid)?)?;
            in_chunks(&found, |ranges| Ok(jobs.send((*pid, ranges))?))?;
        }
        drop(jobs);
        by_tapes(stopped)?;
        for worker in crew {
            worker.join().map_err(|_| "it has panicked")??;
        }
        Ok(())
    })
}

/// What threads are asked, and what it takes to have each do something.
fn by_tapes(stopped: Vec<Stopped>) -> Result<(), Failure> {
    let mut area = Vec::with_capacity(XLayout::look().end());
    let mut busy = Vec::with_capacity(stopped.len());
    for task in stopped {
        task.regset(NT_X86_XSTATE, &mut area)?;
        task.pending(false)?;
        task.sigmask()?;
        task.set_regs(&task.regs()?)?;
        let running = task.cont(0)?;
        running.interrupt()?;
        busy.push(running);
    }
    for running in busy {
        wait(Whom::Task(running.pid()), true)?;
        running.stopped().regs()?;
    }
    Ok(())
}

fn read_whole(task: &TaskDir, name: &str) -> Result<(), Failure> {
    let mut file = File::from(task.open_file(name, OFlags::RDONLY)?);
    let mut buffer = vec![0; 64 << 10];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
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
