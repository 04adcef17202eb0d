//! A look at sleeping threads before they are disturbed.
//!
//! When a thread is stopped in a system call that waits for a relative time, the kernel remembers what was left
//! of it, and tells nobody. But while the thread still sleeps, the scheduler tells since when. So a limited
//! number of threads is looked at before the tree is frozen; a thread that has slept on until then, as the
//! number of its sleeps shows, has so much less left.
//!
//! Nothing here must succeed: what is not known of a thread is not used.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use gelid_sys::arch::NR_RESTART_SYSCALL;
use gelid_sys::proc::{TaskDir, stat, tasks};
use gelid_sys::ptrace::Stopped;
use gelid_sys::sched::{CpuSet, set_affinity};
use gelid_sys::syscall::nr;
use gelid_sys::{Pid, proc};

use super::registers;

/// Threads that are looked at.
const MOST: usize = 128;
const FUTEX_COMMAND: u64 = 0x7f;
const FUTEX_WAIT: u64 = 0;
const ABSOLUTE: u64 = 1;

/// What was seen of a tree that still ran.
#[derive(Debug)]
pub(crate) struct Before {
    looked: Instant,
    asleep: HashMap<Pid, Asleep>,
}

/// A thread that sleeps in a system call with a timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asleep {
    /// The call and its arguments. Where the kernel has issued `restart_syscall(2)` for it, which one it
    /// goes on with follows from where it sleeps.
    call: u64,
    args: [u64; 6],
    /// Nanoseconds left when it was looked at, if that is known.
    left: Option<u64>,
    /// How often the thread has gone to sleep.
    sleeps: u64,
}

/// The system call that a thread is in after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) call: u64,
    /// Nanoseconds left when the tree was frozen.
    pub(super) left: Option<u64>,
}

impl Before {
    /// Looks at the tree of `root`, as far as that is quickly done.
    pub(crate) fn look(root: Pid) -> Self {
        let mut seen = Vec::new();
        let mut waiting = VecDeque::from([root]);
        let mut most = MOST;
        while let Some(pid) = waiting.pop_front() {
            let Ok(dir) = TaskDir::open(pid) else {
                continue;
            };
            for tid in tasks::threads(&dir).unwrap_or_default() {
                if most == 0 {
                    break;
                }
                most -= 1;
                seen.extend(asleep(&dir, tid).map(|found| (tid, found)));
                waiting.extend(tasks::children_of(&dir, tid).unwrap_or_default());
            }
        }
        let clocks = clocks(seen.iter().map(|(_, found)| found.processor));
        let looked = Instant::now();
        let asleep = seen.into_iter().map(|(tid, found)| {
            let now = clocks.get(&found.processor).copied().flatten();
            let passed = now.and_then(|now| now.checked_sub(found.since));
            let left = found
                .whole
                .zip(passed)
                .map(|(whole, passed)| whole.saturating_sub(passed));
            let asleep = Asleep {
                call: found.call,
                args: found.args,
                left,
                sleeps: found.sleeps,
            };
            (tid, asleep)
        });
        Self {
            looked,
            asleep: asleep.collect(),
        }
    }

    /// What is known of a thread that stands still since `frozen`; `dir` is that of its process.
    pub(super) fn of(&self, dir: &TaskDir, task: &Stopped, frozen: Instant) -> Option<Known> {
        let before = self.asleep.get(&task.pid())?;
        let regs = task.regs().ok()?;
        let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
        // It has slept once more, in the stop.
        let slept_on = args == before.args && sched(dir, task.pid())?.sleeps == before.sleeps + 1;
        slept_on.then(|| Known {
            call: before.call,
            left: before.left.map(|left| {
                let since = frozen.saturating_duration_since(self.looked);
                left.saturating_sub(since.as_nanos() as u64)
            }),
        })
    }
}

/// A thread that sleeps with a timeout, and when it began.
#[derive(Debug)]
struct Found {
    call: u64,
    args: [u64; 6],
    whole: Option<u64>,
    sleeps: u64,
    /// Nanoseconds of the scheduler's clock of the processor it slept in on.
    since: u64,
    processor: i32,
}

fn asleep(dir: &TaskDir, tid: Pid) -> Option<Found> {
    let text = dir.read(&format!("task/{tid}/syscall"), 160).ok()?;
    let (entered, args) = system_call(&text)?;
    let call = match entered {
        NR_RESTART_SYSCALL => sleeps_in(dir, tid, &args)?,
        call => call,
    };
    let whole = match entered {
        NR_RESTART_SYSCALL => None,
        _ => Some(timeout(tid, call, &args)?),
    };
    let sched = sched(dir, tid)?;
    let stat = stat::read(&dir.thread(tid).ok()?).ok()?;
    Some(Found {
        call,
        args,
        whole,
        sleeps: sched.sleeps,
        since: sched.since,
        processor: stat.processor,
    })
}

/// Takes `35 0x7f… 0x0 … 0x7ffd… 0x7f…` apart: number, arguments, stack and instruction pointer.
fn system_call(text: &[u8]) -> Option<(u64, [u64; 6])> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let mut args = [0; 6];
    for arg in &mut args {
        let digits = words.next()?.strip_prefix("0x")?;
        *arg = u64::from_str_radix(digits, 16).ok()?;
    }
    Some((number, args))
}

/// Nanoseconds that a call waits; `None` if it does not wait for a relative time, or will tell the program
/// itself what is left.
fn timeout(tid: Pid, call: u64, args: &[u64; 6]) -> Option<u64> {
    match call as usize {
        nr::poll => u64::try_from(args[2] as i32).ok().map(|ms| ms * 1_000_000),
        nr::nanosleep if args[1] == 0 => registers::nanoseconds(tid, args[0]),
        nr::clock_nanosleep if args[1] & ABSOLUTE == 0 && args[3] == 0 => {
            registers::nanoseconds(tid, args[2])
        }
        nr::futex if args[1] & FUTEX_COMMAND == FUTEX_WAIT && args[3] != 0 => {
            registers::nanoseconds(tid, args[3])
        }
        _ => None,
    }
}

/// The call that `restart_syscall(2)` goes on with, by the kernel function that the thread sleeps in.
fn sleeps_in(dir: &TaskDir, tid: Pid, args: &[u64; 6]) -> Option<u64> {
    let function = dir.read(&format!("task/{tid}/wchan"), 64).ok()?;
    let function = std::str::from_utf8(&function).ok()?;
    let call = if function.contains("poll") {
        nr::poll
    } else if function.contains("futex") {
        nr::futex
    } else if function.contains("nanosleep") || function == "do_syscall_64" {
        // The one has a clock where the other has an address.
        match args[0] {
            0..4096 => nr::clock_nanosleep,
            _ => nr::nanosleep,
        }
    } else {
        return None;
    };
    Some(call as u64)
}

/// What the scheduler tells of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scheduled {
    /// When it last began to run, or went to sleep.
    since: u64,
    sleeps: u64,
}

fn sched(dir: &TaskDir, tid: Pid) -> Option<Scheduled> {
    scheduled(&dir.read(&format!("task/{tid}/sched"), 4096).ok()?)
}

fn scheduled(text: &[u8]) -> Option<Scheduled> {
    let text = std::str::from_utf8(text).ok()?;
    let value = |key: &str| {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(key))?;
        line.trim_start().strip_prefix(':').map(str::trim)
    };
    let (milliseconds, nanoseconds) = value("se.exec_start")?.split_once('.')?;
    let milliseconds: u64 = milliseconds.parse().ok()?;
    let fraction: u64 = nanoseconds
        .parse()
        .ok()
        .filter(|_| nanoseconds.len() == 6)?;
    Some(Scheduled {
        since: milliseconds.checked_mul(1_000_000)?.checked_add(fraction)?,
        sleeps: value("nr_voluntary_switches")?.parse().ok()?,
    })
}

/// The scheduler's clocks of some processors, which differ by what the machine below has taken away. Only who
/// runs on one can tell.
fn clocks(processors: impl Iterator<Item = i32>) -> HashMap<i32, Option<u64>> {
    let mut clocks: HashMap<i32, Option<u64>> = processors.map(|cpu| (cpu, None)).collect();
    if clocks.is_empty() {
        return clocks;
    }
    // A thread of its own, since it goes from processor to processor.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (cpu, clock) in &mut clocks {
                *clock = usize::try_from(*cpu).ok().and_then(clock_of);
            }
        });
    });
    clocks
}

fn clock_of(cpu: usize) -> Option<u64> {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return None;
    }
    set.set(cpu);
    set_affinity(None, &set).ok()?;
    let tid = rustix::thread::gettid();
    let dir = proc::task_dir(rustix::process::getpid()).ok()?;
    sched(&dir, tid).map(|sched| sched.since)
}

/// When a tree was frozen.
pub(super) fn frozen(tree: &gelid_seize::Tree) -> Instant {
    let ago: Duration = tree.frozen_for();
    let now = Instant::now();
    now.checked_sub(ago).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_the_kernel_are_understood() {
        let text = b"7 0x0 0x1 0x1388 0x0 0x5 0x6 0x7ffd 0x7f00\n";
        assert_eq!(system_call(text), Some((7, [0, 1, 5000, 0, 5, 6])));
        assert_eq!(system_call(b"running\n"), None);
        assert_eq!(system_call(b"-1 0x7ffd 0x7f00\n"), None);
        let text = b"a (1, #threads: 1)\n---\nse.exec_start   :   1904912.859622\n\
            nr_switches  :  9\nnr_voluntary_switches      :    7\n";
        let want = Scheduled {
            since: 1_904_912_859_622,
            sleeps: 7,
        };
        assert_eq!(scheduled(text), Some(want));
        assert_eq!(scheduled(b"se.exec_start : 1"), None);
    }

    #[test]
    fn a_sleeper_is_found() {
        let mut child = std::process::Command::new("python3")
            .args(["-c", "import select; select.poll().poll(100_000)"])
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let end = Instant::now() + Duration::from_secs(20);
        let left = loop {
            std::thread::sleep(Duration::from_millis(100));
            let before = Before::look(pid);
            if let Some(asleep) = before.asleep.get(&pid) {
                break asleep.left.unwrap();
            }
            assert!(Instant::now() < end, "not asleep");
        };
        child.kill().unwrap();
        child.wait().unwrap();
        let seconds = left as f64 / 1e9;
        assert!((80.0..=100.0).contains(&seconds), "{seconds} s left");
    }
}
