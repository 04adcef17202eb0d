//! A process to be dumped and filled: the bench binary itself, started again.

use crate::memory;
use rustix::process::Pid;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::ops::Range;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Barrier};

const ROLE: &str = "GELID_BENCH_GUEST";
const PAGE: usize = 4096;
/// An order for threads.
const THREADS: &str = "threads";

/// What a guest's memory should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Not touched yet: no page is there.
    Fresh,
    /// [`memory::heap`].
    Heap,
    /// [`memory::random`].
    Random,
    /// A word in every page.
    Touched,
    /// A word in every other page.
    Striped,
}

/// The running process; it ends when this is dropped.
pub struct Guest {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Guest {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// If the process cannot be started.
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let command = command
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(orders), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Self {
            child,
            orders,
            answers: BufReader::new(output).lines(),
        })
    }

    /// Replaces the guest's memory by `bytes` new ones; where they are, page-aligned and whole pages.
    ///
    /// # Errors
    ///
    /// If the guest is gone or has no memory.
    pub fn allocate(&mut self, bytes: usize, contents: Contents) -> io::Result<Range<u64>> {
        writeln!(self.orders, "{bytes} {contents:?}")?;
        let answer = self.answers.next().ok_or(io::ErrorKind::BrokenPipe)??;
        let start: u64 = answer.parse().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(start..start + (bytes / PAGE * PAGE) as u64)
    }

    /// Lets it have so many more threads, which wait for nothing.
    ///
    /// # Errors
    ///
    /// If the guest is gone or cannot have them.
    pub fn spawn(&mut self, threads: usize) -> io::Result<()> {
        writeln!(self.orders, "{threads} {THREADS}")?;
        self.answers.next().ok_or(io::ErrorKind::BrokenPipe)??;
        Ok(())
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// To be called first in `main`: serves as a guest if the process was started as one, and says so.
///
/// # Errors
///
/// If the pipes to the bench break.
pub fn serve_if_guest() -> io::Result<bool> {
    if std::env::var_os(ROLE).is_none() {
        return Ok(false);
    }
    let mut held = Vec::new();
    for order in io::stdin().lines() {
        let order = order?;
        // Given back first, so that there is room and the pages are new ones.
        drop(held);
        held = obey(&order).ok_or(io::ErrorKind::InvalidData)?;
        let start = (held.as_ptr() as usize).next_multiple_of(PAGE);
        println!("{start}");
        io::stdout().flush()?;
    }
    Ok(true)
}

fn obey(order: &str) -> Option<Vec<u8>> {
    let (bytes, contents) = order.split_once(' ')?;
    if contents == THREADS {
        spawn(bytes.parse().ok()?)?;
        return Some(Vec::new());
    }
    let bytes = bytes.parse::<usize>().ok()? + PAGE;
    // Zeroed memory of this size comes from mmap and is not touched.
    let mut held = vec![0; bytes];
    match contents {
        "Fresh" => {}
        "Heap" => held.copy_from_slice(&memory::heap(bytes)),
        "Random" => held.copy_from_slice(&memory::random(bytes)),
        "Touched" => touch(&mut held, PAGE),
        "Striped" => touch(&mut held, 2 * PAGE),
        _ => return None,
    }
    Some(held)
}

fn touch(held: &mut [u8], step: usize) {
    held.iter_mut().step_by(step).for_each(|byte| *byte = 1);
}

/// Threads that have come to where they wait.
fn spawn(threads: usize) -> Option<()> {
    let here = Arc::new(Barrier::new(threads + 1));
    for _ in 0..threads {
        let arrived = Arc::clone(&here);
        let builder = std::thread::Builder::new().stack_size(64 << 10);
        let idle = move || {
            arrived.wait();
            loop {
                std::thread::park();
            }
        };
        builder.spawn(idle).ok()?;
    }
    here.wait();
    Some(())
}
