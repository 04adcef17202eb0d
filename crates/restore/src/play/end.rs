//! The end: no trace of the restore is left in the tasks, and all of them are let go at once.

use std::ops::Range;
use std::time::{Duration, Instant};

use gelid_sys::ptrace::{Running, Stopped};
use gelid_sys::signal::{SIGSTOP, SIGTRAP, SigSet};
use gelid_sys::wait::{self, Status, Whom};
use gelid_sys::{Errno, Pid};
use gelid_tape::{LoneCall, call_all};
use rustix::process::{Signal, kill_process};

use super::births::tape_error;
use super::crew::{Body, Crew};
use super::space;
use super::state::{self, Ready, release, take_up};
use crate::Error;
use crate::plan::births::Who;
use crate::plan::{Life, Plan, Thread};
use crate::state::Machine;

/// Threads that are as they were in the image.
pub(crate) struct Release {
    /// By task, those whose turn has not come.
    waiting: Vec<Vec<Stopped>>,
    ready: Vec<Stopped>,
    /// Every process is to be stopped.
    stop: bool,
}

/// So many leave at the same time.
const AT_ONCE: usize = 64;

/// A leader that is about to leave its zone.
struct Leaving {
    /// Index of its task.
    index: usize,
    body: Body,
    /// What takes the zone away, if that is its to do.
    call: Option<LoneCall>,
}

impl Release {
    /// Without any thread so far.
    pub(crate) fn new(plan: &Plan, stop: bool) -> Self {
        Self {
            waiting: plan.lives.iter().map(|_| Vec::new()).collect(),
            ready: Vec::new(),
            stop,
        }
    }

    /// Takes threads that are no leaders.
    pub(crate) fn add(&mut self, threads: Vec<Ready>) {
        for ready in threads {
            self.waiting[ready.task].push(ready.stopped);
        }
    }

    /// Takes the zones of the processes in question away, gives their leaders their registers, and stops
    /// those that were stopped.
    pub(crate) fn prepare(
        &mut self,
        plan: &mut Plan,
        machine: &Machine,
        zone: &Range<u64>,
        concerned: impl Fn(&Plan, usize) -> bool,
        crew: &mut Crew,
    ) -> Result<(), Error> {
        // Whoever builds an address space leaves it last.
        for builders in [false, true] {
            let mut leaving = Vec::new();
            for index in 0..plan.lives.len() {
                if let Life::Alive(alive) = &plan.lives[index]
                    && alive.builds == builders
                    && concerned(plan, index)
                    && let Some(body) = crew.bodies.remove(&Who::Task(index))
                {
                    let call = builders.then(|| space::vacate(&plan.spaces[alive.space], zone));
                    leaving.push(Leaving { index, body, call });
                }
                if leaving.len() == AT_ONCE {
                    self.part(plan, machine, std::mem::take(&mut leaving), crew)?;
                }
            }
            self.part(plan, machine, leaving, crew)?;
        }
        Ok(())
    }

    /// Has some leave.
    fn part(
        &mut self,
        plan: &mut Plan,
        machine: &Machine,
        leaving: Vec<Leaving>,
        crew: &mut Crew,
    ) -> Result<(), Error> {
        for (index, pid, leader) in leave(plan, machine, leaving, crew)? {
            let Life::Alive(alive) = &plan.lives[index] else {
                continue;
            };
            let mut threads = std::mem::take(&mut self.waiting[index]);
            threads.push(leader);
            match alive.stopped {
                Some(how) => threads = stop(pid, how.signal, threads)?,
                None if self.stop => threads = stop(pid, SIGSTOP, threads)?,
                None => {}
            }
            self.ready.extend(threads);
        }
        Ok(())
    }

    /// Lets everything run.
    pub(crate) fn let_go(self, crew: &mut Crew) -> Result<(), Error> {
        crew.let_go();
        let (mut first, mut killed) = (Ok(()), Vec::new());
        for thread in self.ready {
            let pid = thread.pid();
            let detached = match thread.detach(0) {
                // Somebody of the tree that runs already has done that. Its parent hears of it when it is waited for here.
                Err(Errno::SRCH) => {
                    killed.push(pid);
                    Ok(())
                }
                detached => detached.map_err(|errno| Error::Task {
                    operation: "PTRACE_DETACH",
                    pid: pid.as_raw_pid(),
                    errno,
                }),
            };
            first = first.and(detached);
        }
        reap(killed);
        first
    }
}

/// Waits for tasks that have been killed, the leaders among which are reported last.
fn reap(mut killed: Vec<Pid>) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        killed.retain(|pid| matches!(wait::wait(Whom::Task(*pid), false), Ok(None)));
        if killed.is_empty() || Instant::now() > end {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Brings leaders to where they stood in the image, all at the same time; the zones of those go whose address space is
/// theirs to leave. Gives back their tasks.
fn leave(
    plan: &mut Plan,
    machine: &Machine,
    leaving: Vec<Leaving>,
    crew: &mut Crew,
) -> Result<Vec<(usize, i32, Stopped)>, Error> {
    let taken_up = leaving.into_iter().map(|mut one| {
        if let Life::Alive(alive) = &mut plan.lives[one.index] {
            one.body = taken_up(one.body, &mut alive.threads[0], crew)?;
        }
        Ok(one)
    });
    let mut leaving: Vec<Leaving> = taken_up.collect::<Result<_, Error>>()?;
    let hosts = &crew.hosts;
    let calls = leaving.iter_mut().filter_map(|one| {
        let Body { host, carrier, .. } = &mut one.body;
        Some((&hosts[*host], carrier, one.call?))
    });
    call_all(calls).map_err(|(tid, source)| Error::Tape {
        pid: tid.as_raw_pid(),
        source,
    })?;
    let mut left = Vec::with_capacity(leaving.len());
    for Leaving { index, body, .. } in leaving {
        let Life::Alive(alive) = &plan.lives[index] else {
            continue;
        };
        let (pid, thread) = (body.pid.as_raw_pid(), &alive.threads[0]);
        let stopped = state::leave(body.carrier, thread, machine)?;
        left.push((index, pid, stopped));
    }
    Ok(left)
}

/// Lets the kernel know how an interrupted system call of a leader goes on, if it was in one with a timeout.
fn taken_up(mut body: Body, thread: &mut Thread, crew: &mut Crew) -> Result<Body, Error> {
    if !thread.state.has_restart() {
        return Ok(body);
    }
    let host = &mut crew.hosts[body.host];
    let identity = body.carrier.identity();
    let stopped = release(body.carrier, SigSet::ALL)?;
    let stopped = take_up(stopped, host, thread)?;
    let boarded = host.board(stopped, identity, 0);
    body.carrier = boarded.map_err(|failed| tape_error(thread.tid, failed))?;
    Ok(body)
}

/// Stops a process as job control does; its threads execute nothing on the way.
fn stop(pid: i32, signal: i32, threads: Vec<Stopped>) -> Result<Vec<Stopped>, Error> {
    let failed = |errno| Error::Task {
        operation: "stopping",
        pid,
        errno,
    };
    let mut masks = Vec::with_capacity(threads.len());
    for thread in &threads {
        masks.push(thread.sigmask().map_err(failed)?);
        // Whatever is pending has to wait until the stop is over.
        let all = SigSet::ALL.without(signal);
        thread.set_sigmask(all).map_err(failed)?;
    }
    let (leader, others): (Vec<_>, Vec<_>) = threads
        .into_iter()
        .zip(masks)
        .partition(|(thread, _)| thread.pid().as_raw_pid() == pid);
    let mut stopped = Vec::new();
    for (thread, mask) in leader {
        let mut found = stop_by(thread, signal)?;
        if found.1 == SIGTRAP {
            // Nothing came of it: the program handles it, or its group is orphaned.
            found = stop_by(found.0, SIGSTOP)?;
        }
        stopped.push((found.0, mask));
    }
    // They have been told to stop already.
    for (thread, mask) in others {
        stopped.push((next_stop(thread, 0)?.0, mask));
    }
    for (thread, mask) in &stopped {
        thread.set_sigmask(*mask).map_err(failed)?;
    }
    Ok(stopped.into_iter().map(|(thread, _)| thread).collect())
}

/// Has a thread take a stop signal; returns the signal by which its process is stopped then, or `SIGTRAP`.
fn stop_by(thread: Stopped, signal: i32) -> Result<(Stopped, i32), Error> {
    let pid = thread.pid();
    let failed = |errno| Error::Task {
        operation: "stopping",
        pid: pid.as_raw_pid(),
        errno,
    };
    kill_process(pid, Signal::STOP).map_err(failed)?;
    let (thread, Status::SignalStop(_)) = next_stop(thread, 0)? else {
        return Err(failed(Errno::BUSY));
    };
    // Should the signal not stop it, this does, before it executes anything.
    Running::attached(pid).interrupt().map_err(failed)?;
    match next_stop(thread, signal)? {
        (thread, Status::EventStop(by)) => Ok((thread, by)),
        _ => Err(failed(Errno::BUSY)),
    }
}

/// Lets a thread go on with a signal, and waits until it stands again.
fn next_stop(thread: Stopped, signal: i32) -> Result<(Stopped, Status), Error> {
    let pid = thread.pid();
    let failed = |errno| Error::Task {
        operation: "stopping",
        pid: pid.as_raw_pid(),
        errno,
    };
    let running = thread.cont(signal).map_err(failed)?;
    let status = wait::wait_task(pid).map_err(failed)?;
    if status.is_dead() {
        return Err(Error::Ended { pid, status });
    }
    Ok((running.stopped(), status))
}
