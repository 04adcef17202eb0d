//! The calls that no dump of a tree can do without, and nothing else: `bare PID DIR` ends the tree of `PID` and prints as
//! JSON for how many milliseconds it stood still.
//!
//! Every thread is stopped, told its registers, let go and stopped once more, as for the end of a tape; mappings,
//! descriptors and groups are read and not looked at; pages are read and written by two threads, into a file that has its
//! blocks; a file is made for each thread, and six for each process. As much as can be is done by several threads at once.
//! Nothing is decoded, encoded, compared or checked, and nobody could restore anything from it: what a dump takes beyond
//! this it takes for what it does itself.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gelid_sys::arch::{NT_X86_XSTATE, XLayout};
use gelid_sys::pagemap::{self, Categories, Query, ScanFlags};
use gelid_sys::proc::{self, TaskDir, cgroup, fd, fdinfo, scalar, tasks};
use gelid_sys::ptrace::{self, Options, Stopped};
use gelid_sys::wait::{Whom, wait};
use gelid_sys::{Errno, PAGE_SIZE, Pid, nofile, pidfd, vm};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::process::{Signal, kill_process};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Threads that read and write pages.
const WORKERS: usize = 2;
/// Bytes that a worker has in hand.
const CHUNK: u64 = 1 << 20;
/// Bytes that may be mapped.
const SPACE: u64 = (1 << 47) - 4096;
/// Files of a process beside that of its first thread, and the bytes in one.
const FILES: usize = 6;
const FILE_BYTES: usize = 2048;

/// A process and its threads.
type Process = (Pid, Vec<Pid>);
/// Pages of a process, no more than a worker has in hand.
type Job = (Pid, Vec<Range<u64>>);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [pid, dir] => dump(pid, Path::new(dir)),
        _ => Err("usage: bare PID DIR".into()),
    };
    match done {
        Ok(frozen) => {
            println!("{}", serde_json::json!({ "frozen": frozen }));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("bare: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn dump(pid: &str, dir: &Path) -> Result<f64, Failure> {
    let root = Pid::from_raw(pid.parse()?).ok_or("no pid")?;
    let all = tree(root)?;
    let threads: usize = all.iter().map(|(_, threads)| threads.len()).sum();
    let files = threads + all.len() * FILES;
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

fn reap(tid: Pid) -> Result<(), Failure> {
    loop {
        match wait(Whom::Task(tid), true)? {
            Some((_, status)) if status.is_dead() => return Ok(()),
            _ => {}
        }
    }
}

/// All processes of a tree and their threads, which neither come nor go.
fn tree(root: Pid) -> Result<Vec<Process>, Failure> {
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

/// A file without a name that has blocks for all pages, where the file system can.
fn store(all: &[Process], dir: &File) -> Result<File, Failure> {
    let mut pages = 0;
    for (pid, _) in all {
        pages += scalar::anonymous_pages(&proc::task_dir(*pid)?)?;
    }
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, ".", flags, Mode::from_raw_mode(0o600))?;
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
        let name = format!("{number}.img");
        rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
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
            in_jobs(*pid, &pages(&proc::task_dir(*pid)?)?, &jobs)?;
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
fn pages(task: &TaskDir) -> Result<Vec<Range<u64>>, Failure> {
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

/// Cuts ranges into what workers can have in hand; small ones go together.
fn in_jobs(pid: Pid, ranges: &[Range<u64>], jobs: &Sender<Job>) -> Result<(), Failure> {
    let (mut job, mut room) = (Vec::new(), CHUNK);
    for range in ranges {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + room);
            job.push(start..end);
            room -= end - start;
            start = end;
            if room == 0 {
                jobs.send((pid, std::mem::take(&mut job)))?;
                room = CHUNK;
            }
        }
    }
    Ok(jobs.send((pid, job))?)
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

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
