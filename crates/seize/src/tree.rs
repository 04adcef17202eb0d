//! The guard over a frozen tree, and what is in it.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use gelid_sys::ptrace::{Running, Stopped};
use gelid_sys::wait::{self, Whom};
use gelid_sys::{Errno, Pid, pidfd, proc};
use rustix::process::{Signal, kill_process};

use crate::backoff::Backoff;
use crate::cgroup::Thawed;
use crate::release::{PATIENCE, release};
use crate::{ThawError, resume, scan, stop};

/// What a process of a frozen tree was doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It ran, or slept in the kernel.
    Alive,
    /// It was stopped by job control, and still is after the thaw.
    Stopped {
        /// The signal that stopped it.
        signal: i32,
    },
    /// It had ended; its parent has not reaped it.
    Zombie(Zombie),
}

/// What is left of a process that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zombie {
    /// Status as `wait(2)` will report it: exit code << 8, or the signal, with 0x80 for a core dump.
    pub exit_status: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// Name.
    pub comm: Vec<u8>,
}

/// A process of a frozen tree.
#[derive(Debug)]
pub struct Process {
    /// Id in the caller's pid namespace. It cannot pass to another process while the tree is held.
    pub pid: Pid,
    /// Parent; of the root it is outside the tree, and 0 if outside the pid namespace.
    pub ppid: i32,
    /// What it was doing.
    pub state: State,
    /// Status that the main thread has ended with, as of a zombie, if others live on without it.
    pub ended_leader: Option<i32>,
    /// All threads that live, the leader first, the others by id. Empty for a zombie.
    pub threads: Vec<Thread>,
}

impl Process {
    /// A thread of it that lives: the leader, if it does. Of a zombie, its own id.
    ///
    /// Without its leader a process has nothing to show under its own id: neither memory nor descriptors.
    #[must_use]
    pub fn living(&self) -> Pid {
        self.threads.first().map_or(self.pid, |thread| thread.tid)
    }

    /// Opens `/proc/PID` of the process, by a thread that lives.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it has been killed and reaped; `EMFILE` if the caller has no descriptor left.
    pub fn dir(&self) -> Result<proc::TaskDir, proc::Error> {
        proc::TaskDir::open(self.living())
    }

    /// True unless it is a zombie.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, State::Zombie(_))
    }
}

/// A thread of a frozen process.
///
/// It is held in an event stop at the boundary to user mode: no signal is half delivered, and its
/// registers are those of user mode (with `orig_rax` >= 0 if a system call is to be restarted).
#[derive(Debug)]
pub struct Thread {
    /// Id in the caller's pid namespace.
    pub tid: Pid,
    task: Option<Stopped>,
}

impl Thread {
    pub(crate) fn new(task: Stopped) -> Self {
        Self {
            tid: task.pid(),
            task: Some(task),
        }
    }

    /// The stopped thread; `None` while it is [taken](Self::take).
    #[must_use]
    pub fn task(&self) -> Option<&Stopped> {
        self.task.as_ref()
    }

    /// Takes the stopped thread out, to run something in it. Until it is [put](Self::put) back, the guard
    /// takes it for running and stops it before it lets it go.
    pub fn take(&mut self) -> Option<Stopped> {
        self.task.take()
    }

    /// Gives the thread back, in a stop again.
    pub fn put(&mut self, task: Stopped) {
        debug_assert_eq!(self.tid, task.pid(), "another thread's");
        self.task = Some(task);
    }
}

/// How the freezing went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// From the first request to stop until the last task had stopped and nothing new was found.
    pub freezing: Duration,
    /// Listings of the tree.
    pub rounds: u32,
    /// Threads seized, also those that ended meanwhile.
    pub seized: u64,
    /// Signals that arrived first and were delivered.
    pub signals: u64,
    /// Children of `vfork` that were let run until their parents could stop.
    pub vforks: u64,
}

/// A frozen tree. Dropping it thaws everything exactly as it was: what was stopped by job control stays
/// stopped, what was in a frozen cgroup is frozen again.
///
/// It belongs to the thread that made it, as tracees do (`ptrace(2)`), so it is neither `Send` nor `Sync`.
/// When that thread or the whole process dies, by whatever signal, the kernel lets the tree run on.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<gelid_seize::Tree>();
/// ```
#[derive(Debug)]
pub struct Tree {
    processes: Vec<Process>,
    cgroup: Option<Thawed>,
    since: Instant,
    stats: Stats,
    seccomp_suspended: bool,
    of_this_thread: PhantomData<*mut ()>,
}

impl Tree {
    pub(crate) fn new(
        processes: Vec<Process>,
        cgroup: Option<Thawed>,
        since: Instant,
        stats: Stats,
        seccomp_suspended: bool,
    ) -> Self {
        Self {
            processes,
            cgroup,
            since,
            stats,
            seccomp_suspended,
            of_this_thread: PhantomData,
        }
    }

    /// All processes, depth first: parents before children, children in the order of their birth as far as
    /// the kernel keeps it. The first is the root; there is always one.
    #[must_use]
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The processes, to take threads out of them.
    pub fn processes_mut(&mut self) -> &mut [Process] {
        &mut self.processes
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> &Process {
        &self.processes[0]
    }

    /// All threads of all processes.
    pub fn threads(&self) -> impl Iterator<Item = &Thread> {
        self.processes.iter().flat_map(|process| &process.threads)
    }

    /// All threads of all processes, to take them out.
    pub fn threads_mut(&mut self) -> impl Iterator<Item = &mut Thread> {
        self.processes
            .iter_mut()
            .flat_map(|process| &mut process.threads)
    }

    /// Time since the first task was asked to stop.
    #[must_use]
    pub fn frozen_for(&self) -> Duration {
        self.since.elapsed()
    }

    /// How the freezing went.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Whether seccomp filters are suspended while the tree is held (`PTRACE_O_SUSPEND_SECCOMP`), which
    /// takes `CAP_SYS_ADMIN`. They apply again from the thaw on.
    #[must_use]
    pub fn seccomp_suspended(&self) -> bool {
        self.seccomp_suspended
    }

    /// Whether its cgroup was found frozen, and will be again.
    #[must_use]
    pub fn was_frozen(&self) -> bool {
        self.cgroup.as_ref().is_some_and(Thawed::freezes_again)
    }

    /// Lets the tree run on, as dropping does, and tells what went wrong.
    ///
    /// # Errors
    ///
    /// The first that occurred; whatever can be let go is let go.
    pub fn thaw(mut self) -> Result<(), ThawError> {
        self.let_go()
    }

    /// Kills all processes, and returns when they are dead. Their pids are free when they have been reaped:
    /// the root at once if the caller is its parent, else by its parent; the others by the reaper of
    /// orphans (init, as a rule), which may take its time.
    ///
    /// # Errors
    ///
    /// [`ThawError::Undead`] if a process is stuck in the kernel.
    pub fn kill(self) -> Result<(), ThawError> {
        self.kill_beside(|| {})
    }

    /// The same, and does something while they end.
    ///
    /// # Errors
    ///
    /// As [`kill`](Self::kill).
    pub fn kill_beside(mut self, beside: impl FnOnce()) -> Result<(), ThawError> {
        let processes = std::mem::take(&mut self.processes);
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.forget();
        }
        let large = only_large(&processes);
        for process in processes.iter().filter(|process| process.is_alive()) {
            // It cannot have been reaped by another, so the pid is still its own; ESRCH: dead already.
            let _ = kill_process(process.pid, Signal::KILL);
        }
        if let Some(large) = large {
            // Whatever is in the way, it ends without help too.
            let _ = pidfd::release_memory(large);
        }
        beside();
        let deadline = Instant::now() + 5 * PATIENCE;
        // A leader is reported only when all its threads are gone, but the last thread of the first process of a pid
        // namespace may wait for the leaders of the others. Those that had ended before may have been ours by then.
        let of = |process: &Process| -> Vec<Pid> {
            let ended = process.ended_leader.map(|_| process.pid);
            let others = process.threads.iter().map(|thread| thread.tid);
            others.rev().chain(ended).collect()
        };
        // The first process comes last, as it may have to wait for all others.
        let (first, others) = processes.split_at(processes.len().min(1));
        let all = others.iter().chain(first).flat_map(of);
        reap(all.collect(), deadline)
    }

    /// Lets go of the tree, but stopped by `SIGSTOP` before it executes anything.
    ///
    /// # Errors
    ///
    /// As [`thaw`](Self::thaw).
    pub fn leave_stopped(mut self) -> Result<(), ThawError> {
        for process in self
            .processes
            .iter()
            .filter(|process| process.state == State::Alive)
        {
            // Queued before the first thread is detached: whichever comes first takes it, for all.
            match kill_process(process.pid, Signal::STOP) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => {
                    return Err(ThawError::Ptrace {
                        operation: "kill(SIGSTOP)",
                        tid: process.pid,
                        errno,
                    });
                }
            }
        }
        let alive = self.processes.iter();
        let alive = alive.filter(|process| process.state == State::Alive);
        let threads = alive.flat_map(|process| {
            let tids = process.threads.iter().map(|thread| thread.tid);
            tids.map(|tid| (process.pid, tid))
        });
        let threads: Vec<(Pid, Pid)> = threads.collect();
        let frozen = self.cgroup.is_some();
        self.let_go()?;
        if !frozen {
            stop::all(&threads);
        }
        Ok(())
    }

    fn let_go(&mut self) -> Result<(), ThawError> {
        let mut stopped = Vec::new();
        let mut running = Vec::new();
        for process in self.processes.drain(..) {
            for mut thread in process.threads {
                match thread.take() {
                    Some(task) => {
                        if process.state == State::Alive {
                            resume::waiting(&task);
                        }
                        stopped.push(task);
                    }
                    None => running.push(Running::attached(thread.tid)),
                }
            }
        }
        // In a frozen cgroup these could not stop; the others are not to run before it is frozen.
        let caught = release([], running);
        let refrozen = self.cgroup.take().map_or(Ok(()), Thawed::restore);
        let released = release(stopped, []);
        caught.and(released).and(refrozen.map_err(ThawError::from))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = self.let_go() {
            tracing::warn!(%error, "thawing");
        }
    }
}

/// Pages of anonymous memory that take so long to give back that a second processor is of use: 256 MiB, some 20 ms.
const LARGE: u64 = 1 << 16;

/// The process of a tree of one that has much memory. Of several each has a processor for itself.
fn only_large(processes: &[Process]) -> Option<OwnedFd> {
    let is_large = |process: &&Process| {
        let dir = proc::task_dir(process.pid).ok();
        let pages = dir.and_then(|dir| proc::scalar::anonymous_pages(&dir).ok());
        pages.is_some_and(|pages| pages >= LARGE)
    };
    let mut alive = processes.iter().filter(|process| process.is_alive());
    let large = alive.next().filter(is_large)?;
    match alive.next() {
        None => pidfd::open(large.pid).ok(),
        Some(_) => None,
    }
}

/// One that takes longer to end may wait for others.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Waits until all of the killed tracees are dead, and reaps them, as a rule in the order in which they were killed.
fn reap(mut tids: VecDeque<Pid>, deadline: Instant) -> Result<(), ThawError> {
    let is_left = |tid: &Pid| match wait::wait(Whom::Task(*tid), false) {
        Ok(Some((_, status))) => !status.is_dead(),
        Ok(None) => true,
        Err(_) => false,
    };
    let mut backoff = Backoff::new();
    while let Some(tid) = tids.front() {
        if !is_left(tid) {
            tids.pop_front();
            continue;
        }
        // Before Linux 6.9 nobody tells of its end.
        let ends = pidfd::open_thread(*tid).and_then(|task| pidfd::exits_within(task, AT_ONCE));
        if ends == Ok(true) && !is_left(tid) {
            tids.pop_front();
            continue;
        }
        let before = tids.len();
        tids.retain(is_left);
        if let Some(tid) = tids.front()
            && Instant::now() > deadline
        {
            return Err(ThawError::Undead {
                pid: *tid,
                comm: scan::comm(*tid),
                timeout: 5 * PATIENCE,
            });
        }
        match (ends, tids.len() < before) {
            // That was a pause.
            (Ok(false), _) => {}
            (_, true) => backoff.reset(),
            (_, false) => backoff.pause(),
        }
    }
    Ok(())
}
