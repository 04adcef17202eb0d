//! Waiting for the stops that have been asked for.

use std::time::{Duration, Instant};

use gelid_sys::ptrace::{Running, Stopped};
use gelid_sys::signal::SIGTRAP;
use gelid_sys::wait::{self, Status, Whom};
use gelid_sys::{Errno, Pid, proc};

use crate::backoff::Backoff;
use crate::roundup::{Kind, Place, Roundup, Slot};
use crate::{Error, scan};

/// After this long without any stop the tasks that have not stopped are looked at.
const FIRST_LOOK: Duration = Duration::from_millis(1);
/// Looks at a process with a dead main thread before it counts as one that stays so.
const DEAD_LEADER_LOOKS: u32 = 8;

impl Roundup<'_> {
    /// Waits until every seized thread has stopped or ended.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        let mut backoff = Backoff::new();
        let mut next_look = FIRST_LOOK;
        while !self.awaited.is_empty() {
            if self.sweep()? {
                backoff.reset();
                next_look = FIRST_LOOK;
                continue;
            }
            if Instant::now() > self.deadline {
                return Err(self.timed_out());
            }
            if backoff.idle() > next_look {
                next_look *= 3;
                self.look()?;
            }
            backoff.pause();
        }
        Ok(())
    }

    /// As [`settle`](Self::settle), but gives up after a while, for the way out.
    pub(crate) fn stop_what_stops(&mut self, patience: Duration) {
        self.deadline = Instant::now() + patience;
        for place in self.awaited.clone() {
            let _ = self.ask(place);
        }
        let _ = self.settle();
    }

    /// Takes all reports that are there. True if there was one.
    fn sweep(&mut self) -> Result<bool, Error> {
        let awaited = std::mem::take(&mut self.awaited);
        let mut progress = false;
        let mut result = Ok(());
        for place in awaited {
            let reported = if result.is_ok() {
                self.poll(place)
            } else {
                Ok(false)
            };
            progress |= matches!(reported, Ok(true));
            result = result.and(reported.map(drop));
            let slot = &self.groups[place.0].threads[place.1].slot;
            if matches!(slot, Slot::Seized(_) | Slot::Asked(_)) {
                self.awaited.push(place);
            }
        }
        result?;
        self.recall()?;
        Ok(progress)
    }

    /// Takes the report of one thread, if there is one.
    fn poll(&mut self, place: Place) -> Result<bool, Error> {
        let (tid, pid) = (
            self.groups[place.0].threads[place.1].tid,
            self.groups[place.0].pid,
        );
        match wait::wait(Whom::Task(tid), false) {
            Ok(None) => return Ok(false),
            Ok(Some((_, status))) if status.is_dead() => {
                self.drop_thread(place);
                // The main thread is reported when all others have gone.
                if tid == pid {
                    self.end_of(place.0)?;
                }
            }
            Ok(Some((_, Status::EventStop(signal)))) => self.has_stopped(place, signal),
            Ok(Some((_, Status::SignalStop(signal)))) => {
                self.stats.signals += 1;
                self.pass(place, signal)?;
            }
            Ok(Some(_)) => self.pass(place, 0)?,
            Err(Errno::CHILD) => {
                // No tracee any more: the id of a thread that has called execve is now its leader's.
                self.groups[place.0].exec_suspected = true;
                self.drop_thread(place);
            }
            Err(errno) => {
                return Err(Error::Ptrace {
                    operation: "wait4",
                    tid,
                    errno,
                });
            }
        }
        Ok(true)
    }

    fn has_stopped(&mut self, place: Place, signal: i32) {
        let slot = &mut self.groups[place.0].threads[place.1].slot;
        *slot = match std::mem::replace(slot, Slot::Gone) {
            Slot::Seized(task) | Slot::Asked(task) => {
                Slot::Stopped(task.stopped(), if signal == SIGTRAP { 0 } else { signal })
            }
            other => other,
        };
    }

    /// Lets a thread that has stopped for another reason go on to the stop asked for, delivering `signal`
    /// on the way: a handler is entered, and the thread stops at its first instruction.
    fn pass(&mut self, place: Place, signal: i32) -> Result<(), Error> {
        let prey = &mut self.groups[place.0].threads[place.1];
        let (task, asked) = match std::mem::replace(&mut prey.slot, Slot::Gone) {
            Slot::Seized(task) => (task.stopped(), false),
            Slot::Asked(task) => (task.stopped(), true),
            other => {
                prey.slot = other;
                return Ok(());
            }
        };
        let running = resume(task, signal, asked)?;
        prey.slot = if asked {
            Slot::Asked(running)
        } else {
            Slot::Seized(running)
        };
        Ok(())
    }

    /// Makes a stopped thread report its stop anew, without running: it may have stopped before its process
    /// was stopped by job control, or continued.
    pub(crate) fn stop_again(&mut self, place: Place) -> Result<(), Error> {
        let prey = &mut self.groups[place.0].threads[place.1];
        match std::mem::replace(&mut prey.slot, Slot::Gone) {
            Slot::Stopped(task, _) => {
                prey.slot = Slot::Asked(resume(task, 0, true)?);
                self.awaited.push(place);
            }
            other => prey.slot = other,
        }
        Ok(())
    }

    /// Looks at the threads that do not stop.
    fn look(&mut self) -> Result<(), Error> {
        let own = rustix::thread::gettid().as_raw_pid();
        for place in self.awaited.clone() {
            let group = &self.groups[place.0];
            let prey = &group.threads[place.1];
            if !matches!(prey.slot, Slot::Asked(_)) {
                continue;
            }
            let Some(status) = scan::status(prey.tid)? else {
                continue;
            };
            if status.tracer_pid != own {
                // Its id has been taken over by a thread not seized, which has called execve.
                self.drop_thread(place);
                continue;
            }
            match status.state {
                proc::stat::State::Zombie if prey.tid == group.pid => {
                    self.look_at_dead_leader(place.0);
                }
                proc::stat::State::DiskSleep => self.look_at_sleeper(place)?,
                _ => {}
            }
        }
        let groups = &self.groups;
        self.awaited
            .retain(|place| !matches!(groups[place.0].threads[place.1].slot, Slot::Gone));
        Ok(())
    }

    /// A main thread that has ended reports nothing before its last thread has, which may be held.
    fn look_at_dead_leader(&mut self, index: usize) {
        let is_held = self.is_held(index);
        let group = &mut self.groups[index];
        let looks = match group.kind {
            Kind::DeadLeader(looks) => looks + 1,
            _ => 0,
        };
        group.kind = Kind::DeadLeader(looks);
        let leader = group.threads.iter().position(|prey| prey.tid == group.pid);
        if is_held
            && looks >= DEAD_LEADER_LOOKS
            && let Some(leader) = leader
        {
            self.drop_thread((index, leader));
        }
    }

    /// Whether a thread of a process is in the stop asked for.
    pub(crate) fn is_held(&self, index: usize) -> bool {
        let mut threads = self.groups[index].threads.iter();
        threads.any(|prey| matches!(prey.slot, Slot::Stopped(..)))
    }

    fn timed_out(&self) -> Error {
        let timeout = self.options.timeout;
        let vfork = self.lent.first().map(|(waiter, child)| {
            let tid = self.groups[waiter.0].threads[waiter.1].tid;
            let child = self.groups[*child].pid;
            Error::Vfork {
                tid,
                comm: scan::comm(tid),
                child,
                child_comm: scan::comm(child),
                timeout,
            }
        });
        vfork.unwrap_or_else(|| {
            let place = self.awaited.first().copied().unwrap_or_default();
            let pid = self.groups[place.0].pid;
            timeout_of(
                pid,
                self.groups[place.0]
                    .threads
                    .get(place.1)
                    .map_or(pid, |prey| prey.tid),
                timeout,
            )
        })
    }
}

/// Lets a stopped task run on with `signal`. If `ask`, it stops again before it is back in user mode: the
/// request must be made first, for any stop clears one that is pending.
pub(crate) fn resume(task: Stopped, signal: i32, ask: bool) -> Result<Running, Error> {
    let tid = task.pid();
    if ask {
        let _ = Running::attached(tid).interrupt();
    }
    match task.cont(signal) {
        Ok(running) => Ok(running),
        // Killed: the wait tells.
        Err(Errno::SRCH) => Ok(Running::attached(tid)),
        Err(errno) => Err(Error::Ptrace {
            operation: "PTRACE_CONT",
            tid,
            errno,
        }),
    }
}

fn timeout_of(pid: Pid, tid: Pid, timeout: Duration) -> Error {
    let number = tid.as_raw_pid();
    let stat = scan::word(number, "stat");
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next())
        .unwrap_or('?');
    let wchan = scan::word(number, "wchan");
    Error::Timeout {
        pid,
        tid,
        comm: scan::comm(tid),
        state,
        wchan,
        timeout,
    }
}
