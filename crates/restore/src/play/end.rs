//! The end: no trace of the restore is left in the tasks, and all of them are let go at once.

use std::ops::Range;
use std::time::{Duration, Instant};

use gelid_sys::ptrace::{Running, Stopped};
use gelid_sys::signal::{SIGSTOP, SIGTRAP, SigSet};
use gelid_sys::wait::{self, Status, Whom};
use gelid_sys::{Errno, Pid};
use rustix::process::{Signal, kill_process};

use super::births::tape_error;
use super::crew::{Body, Crew};
use super::space;
use super::state::{Ready, release, set_registers, take_up};
use crate::Error;
use crate::plan::births::Who;
use crate::plan::space::Space;
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
            for index in 0..plan.lives.len() {
                if !concerned(plan, index) {
                    continue;
                }
                let Life::Alive(alive) = &mut plan.lives[index] else {
                    continue;
                };
                if alive.builds == builders
                    && let Some(body) = crew.bodies.remove(&Who::Task(index))
                {
                    let space = builders.then(|| &plan.spaces[alive.space]);
                    let mut threads = std::mem::take(&mut self.waiting[index]);
                    let leader = &mut alive.threads[0];
                    let pid = body.pid.as_raw_pid();
                    threads.push(leave(body, crew, space, zone, machine, leader)?);
                    match alive.stopped {
                        Some(how) => threads = stop(pid, how.signal, threads)?,
                        None if self.stop => threads = stop(pid, SIGSTOP, threads)?,
                        None => {}
                    }
                    self.ready.extend(threads);
                }
            }
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

/// Brings a leader to where it stood in the image; the zone goes if `space` is its to leave.
fn leave(
    body: Body,
    crew: &mut Crew,
    space: Option<&Space>,
    zone: &Range<u64>,
    machine: &Machine,
    thread: &mut Thread,
) -> Result<Stopped, Error> {
    let pid = thread.tid;
    let host = &mut crew.hosts[body.host];
    let identity = body.carrier.identity();
    let mut stopped = release(body.carrier, SigSet::ALL)?;
    stopped = take_up(stopped, host, thread)?;
    if let Some(space) = space {
        let (nr, args) = space::vacate(space, zone);
        let mut carrier = host
            .board(stopped, identity, 0)
            .map_err(|failed| tape_error(pid, failed))?;
        host.call(&mut carrier, nr, args)
            .map_err(|source| Error::Tape { pid, source })?;
        stopped = release(carrier, SigSet::ALL)?;
    }
    set_registers(&stopped, thread, machine)?;
    Ok(stopped)
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
