//! The end: no trace of the restore is left in the tasks, and all of them are let go at once.

use std::ops::Range;

use gelid_sys::ptrace::Stopped;
use gelid_sys::signal::SigSet;
use gelid_sys::wait::{self, Status};
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

/// Threads that are as they were in the image.
pub(crate) struct Release {
    /// By task, those whose turn has not come.
    waiting: Vec<Vec<Stopped>>,
    ready: Vec<Stopped>,
    /// Every process is to be stopped.
    stop: bool,
}

impl Release {
    /// With all threads but the leaders.
    pub(crate) fn new(plan: &Plan, threads: Vec<Ready>, stop: bool) -> Self {
        let mut waiting: Vec<Vec<Stopped>> = plan.lives.iter().map(|_| Vec::new()).collect();
        for ready in threads {
            waiting[ready.task].push(ready.stopped);
        }
        Self {
            waiting,
            ready: Vec::new(),
            stop,
        }
    }

    /// Takes the zones of the processes in question away, gives their leaders their registers, and stops
    /// those that were stopped.
    pub(crate) fn prepare(
        &mut self,
        plan: &mut Plan,
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
                    threads.push(leave(body, crew, space, zone, &mut alive.threads[0])?);
                    if self.stop || alive.stopped.is_some() {
                        threads = stop(plan.nodes[index].pid, threads)?;
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
        let mut first = Ok(());
        for thread in self.ready {
            let pid = thread.pid().as_raw_pid();
            let detached = thread.detach(0).map_err(|errno| Error::Task {
                operation: "PTRACE_DETACH",
                pid,
                errno,
            });
            first = first.and(detached);
        }
        first
    }
}

/// Brings a leader to where it stood in the image; the zone goes if `space` is its to leave.
fn leave(
    body: Body,
    crew: &mut Crew,
    space: Option<&Space>,
    zone: &Range<u64>,
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
    set_registers(&stopped, thread)?;
    Ok(stopped)
}

/// Stops a process as job control does; its threads execute nothing on the way.
fn stop(pid: i32, threads: Vec<Stopped>) -> Result<Vec<Stopped>, Error> {
    let failed = |errno| Error::Task {
        operation: "stopping",
        pid,
        errno,
    };
    let process = Pid::from_raw(pid).ok_or(failed(Errno::SRCH))?;
    kill_process(process, Signal::STOP).map_err(failed)?;
    let mut running = Vec::new();
    for thread in threads {
        let mask = thread.sigmask().map_err(failed)?;
        // Whatever is pending has to wait until the stop is over.
        thread.set_sigmask(SigSet::ALL).map_err(failed)?;
        running.push((thread.cont(0).map_err(failed)?, mask));
    }
    let mut stopped = Vec::with_capacity(running.len());
    // The signal is taken by one of them, which makes the others stop too.
    while !running.is_empty() {
        let mut left = Vec::new();
        for (thread, mask) in running {
            let found = wait::wait(wait::Whom::Task(thread.pid()), false).map_err(failed)?;
            match found {
                None => left.push((thread, mask)),
                Some((_, Status::EventStop(_))) => {
                    let thread = thread.stopped();
                    thread.set_sigmask(mask).map_err(failed)?;
                    stopped.push(thread);
                }
                Some((pid, status)) if status.is_dead() => {
                    return Err(Error::Ended { pid, status });
                }
                Some((_, Status::SignalStop(signal))) => {
                    left.push((thread.stopped().cont(signal).map_err(failed)?, mask));
                }
                Some(_) => left.push((thread.stopped().cont(0).map_err(failed)?, mask)),
            }
        }
        running = left;
        std::thread::yield_now();
    }
    Ok(stopped)
}
