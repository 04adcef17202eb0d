//! The tasks that have been made so far. Until they are let go, dropping the crew ends them all.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use gelid_sys::ptrace::{Running, Stopped};
use gelid_sys::wait::{self, Status, Whom};
use gelid_sys::{Errno, Pid, prctl, proc, syscall};
use gelid_tape::{Carrier, Host, Identity, Outcome};
use rustix::process::{Signal, kill_process};

use super::script::Script;
use crate::Error;
use crate::plan::births::Who;

/// How long ended tasks may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that plays tapes.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) pid: Pid,
    pub(crate) carrier: Carrier,
    /// Index of the place of its tapes.
    pub(crate) host: usize,
}

/// All processes made so far.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    pub(crate) bodies: HashMap<Who, Body>,
    pub(crate) hosts: Vec<Host>,
    /// Whoever has to be ended on failure.
    born: Vec<Pid>,
    /// Threads that are no leaders, and end with them.
    threads: Vec<Pid>,
    /// Pids that are given on a tape whose end has not been seen.
    expected: Vec<Pid>,
}

impl Crew {
    /// Remembers a process, so that it does not outlive a failure.
    pub(crate) fn note(&mut self, pid: Pid) {
        self.born.push(pid);
    }

    /// Remembers pids that are about to be given, until [`note`](Self::note) tells of them.
    pub(crate) fn expect(&mut self, pids: impl IntoIterator<Item = Pid>) {
        self.expected.extend(pids);
    }

    /// All that were expected have been noted.
    pub(crate) fn expect_no_more(&mut self) {
        self.expected.clear();
    }

    /// Remembers a thread of one of the processes.
    pub(crate) fn note_thread(&mut self, tid: Pid) {
        self.threads.push(tid);
    }

    /// Forgets one that has ended.
    pub(crate) fn forget(&mut self, pid: Pid) {
        self.born.retain(|other| *other != pid);
    }

    /// Nothing is ended from now on.
    pub(crate) fn let_go(&mut self) {
        self.born.clear();
    }

    /// The body of a process; a plan names none that is not born.
    pub(crate) fn body(&mut self, who: Who) -> Result<&mut Body, Error> {
        self.bodies.get_mut(&who).ok_or(Error::Task {
            operation: "finding the body",
            pid: 0,
            errno: Errno::SRCH,
        })
    }

    /// Plays one script for each of several processes, all at the same time.
    pub(crate) fn play(&mut self, work: &[(Who, Script)]) -> Result<Vec<Outcome>, Error> {
        let mut failed = None;
        let mut started = 0;
        for (who, script) in work {
            let body = self.body(*who)?;
            let pid = body.pid.as_raw_pid();
            if let Err(source) = body.carrier.start(&script.tape) {
                failed = Some(Error::Tape { pid, source });
                break;
            }
            started += 1;
        }
        let mut outcomes = Vec::with_capacity(started);
        for (who, script) in &work[..started] {
            let body = self.body(*who)?;
            match finish(&mut body.carrier, body.pid, script) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(outcomes), Err)
    }

    /// Plays several scripts for each of several processes: one after the other for each, all processes at
    /// the same time.
    pub(crate) fn play_reels(&mut self, reels: Vec<(Who, Vec<Script>)>) -> Result<(), Error> {
        let mut reels: Vec<_> = reels
            .into_iter()
            .map(|(who, scripts)| (who, scripts.into_iter()))
            .collect();
        loop {
            let next: Vec<(Who, Script)> = reels
                .iter_mut()
                .filter_map(|(who, scripts)| Some((*who, scripts.next()?)))
                .collect();
            if next.is_empty() {
                return Ok(());
            }
            self.play(&next)?;
        }
    }
}

/// Waits for the end of a tape, all of whose calls must have succeeded that had to.
pub(crate) fn finish(carrier: &mut Carrier, pid: Pid, script: &Script) -> Result<Outcome, Error> {
    let pid = pid.as_raw_pid();
    let outcome = carrier
        .finish()
        .map_err(|source| Error::Tape { pid, source })?;
    match script.failure(&outcome) {
        Some((nr, object, errno)) => Err(Error::Call {
            pid,
            call: syscall::name(nr).map_or_else(|| format!("system call {nr}"), str::to_owned),
            object,
            errno,
        }),
        None => Ok(outcome),
    }
}

/// The first stop of a task that was born as the caller's tracee.
pub(crate) fn newborn(pid: Pid) -> Result<Stopped, Error> {
    let status = wait::wait_task(pid).map_err(|errno| Error::Task {
        operation: "waiting for the first stop",
        pid: pid.as_raw_pid(),
        errno,
    })?;
    if status.is_dead() {
        return Err(Error::Ended { pid, status });
    }
    Ok(Running::attached(pid).stopped())
}

/// How a task knows itself, if nothing speaks against the first choice of a signal.
pub(crate) fn identity(tgid: i32, tid: i32, signal: i32) -> Identity {
    Identity { tgid, tid, signal }
}

/// Waits until a tracee has ended.
pub(crate) fn await_death(pid: Pid) -> Result<Status, Error> {
    loop {
        match wait::wait_task(pid) {
            Ok(status) if status.is_dead() => return Ok(status),
            Ok(_) => {}
            Err(errno) => {
                return Err(Error::Task {
                    operation: "waiting for the end",
                    pid: pid.as_raw_pid(),
                    errno,
                });
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Of those whose birth was not seen any more, only the tracees of this thread are meant.
        let me = rustix::thread::gettid().as_raw_pid();
        let unseen = std::mem::take(&mut self.expected);
        let born = unseen.into_iter().filter(|pid| tracer(*pid) == Some(me));
        self.born.extend(born);
        if self.born.is_empty() {
            return;
        }
        // Children of those that end now come to this process, so that their pids are free at once.
        let adopting = prctl::set_child_subreaper(true).is_ok();
        for pid in &self.born {
            let _ = kill_process(*pid, Signal::KILL);
        }
        // A leader is reported after its threads, which nobody but the tracer reaps; a child twice: to the
        // tracer, and to its parent, which is this process in the end.
        let tracees = self.threads.iter().chain(&self.born);
        let all: Vec<Pid> = tracees.chain(&self.born).copied().collect();
        let deadline = Instant::now() + PATIENCE;
        for pid in all {
            reap(pid, deadline);
        }
        if adopting {
            let _ = prctl::set_child_subreaper(false);
        }
    }
}

/// The thread that traces a task.
fn tracer(pid: Pid) -> Option<i32> {
    let dir = proc::TaskDir::open(pid).ok()?;
    Some(proc::status::read(&dir).ok()?.tracer_pid)
}

/// Waits for the end of a task, but not for ever: the kernel may be busy with it.
fn reap(pid: Pid, deadline: Instant) {
    loop {
        match wait::wait(Whom::Task(pid), false) {
            Ok(Some((_, status))) if status.is_dead() => return,
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() > deadline => return,
            Ok(None) => std::thread::sleep(Duration::from_micros(100)),
            Err(_) => return,
        }
    }
}
