//! Records of threads, made while other threads still play their tapes.

use std::collections::HashMap;
use std::sync::mpsc::{self, Sender};

use gelid_image::messages::CoreEntry;
use gelid_seize::{Process, Tree};
use gelid_sys::arch::UserRegs;
use gelid_sys::proc::smaps::Area;
use gelid_sys::signal::SigSet;
use gelid_sys::{Errno, Pid, sched};

use super::attributes::OfThread;
use super::call::Answers;
use super::carry::{self, Played, Space};
use super::descriptors::Closing;
use super::sched::Defaults;
use super::seccomp::{self, Restraint};
use super::signals::{self, Actions};
use super::{Cores, Error, Write, process, thread};
use crate::Refusal;
use crate::namespace::Census;
use crate::survey::{Live, Task};

/// Records of fewer threads are made sooner than a thread is started for them.
const MANY: usize = 64;

/// The record of a thread, and what else its process and the others want of it.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) tid: Pid,
    pub(super) core: Box<CoreEntry>,
    pub(super) rest: OfThread,
    pub(super) restraint: Restraint,
    /// Before it played its tape.
    pub(super) regs: UserRegs,
}

/// The threads of all processes, in the making.
pub(super) struct Recording<'a> {
    census: &'a Census,
    defaults: &'a Defaults,
    /// Takes over those that need nothing else, if there are many.
    write: Option<Write<'a>>,
    processes: Vec<OfProcess<'a>>,
    /// By the index in the tree, where a process is among those.
    places: HashMap<usize, usize>,
    failed: Option<Error>,
    /// Who waits for what is told of descriptors.
    closing: Option<Sender<Closing>>,
}

/// The threads of a process.
#[derive(Debug)]
struct OfProcess<'a> {
    /// Index in the tree.
    index: usize,
    task: &'a Task,
    live: &'a Live,
    asked: process::Asked,
    /// Threads that have not played yet.
    waiting: Vec<Option<thread::Asked>>,
    /// What the first thread has told, which plays before the others.
    first: Option<(Played, Actions)>,
    recorded: Vec<Option<Recorded>>,
    /// None of them is under a filter.
    unfiltered: bool,
    /// Threads that somebody has taken over.
    taken_over: usize,
}

impl<'a> Recording<'a> {
    pub(super) fn new(
        census: &'a Census,
        defaults: &'a Defaults,
        write: Option<Write<'a>>,
        closing: Option<Sender<Closing>>,
    ) -> Self {
        Self {
            census,
            defaults,
            write,
            processes: Vec::new(),
            places: HashMap::new(),
            failed: None,
            closing,
        }
    }

    /// Adds a process, by its index in the tree, whose threads are to play.
    pub(super) fn add(
        &mut self,
        index: usize,
        (task, live): (&'a Task, &'a Live),
        mut asked: process::Asked,
    ) {
        let threads = std::mem::take(&mut asked.threads);
        self.places.insert(index, self.processes.len());
        self.processes.push(OfProcess {
            index,
            task,
            live,
            asked,
            first: None,
            unfiltered: threads.iter().all(thread::Asked::is_unfiltered),
            taken_over: 0,
            recorded: threads.iter().map(|_| None).collect(),
            waiting: threads.into_iter().map(Some).collect(),
        });
    }

    /// Plays the tapes of all, and records each thread when its own is over.
    ///
    /// # Errors
    ///
    /// As [`carry::play`]. What goes wrong with a record is told by [`finish`](Self::finish).
    pub(super) fn play(mut self, tree: &mut Tree, spaces: Vec<Space>) -> Result<Self, Error> {
        let threads: usize = self.processes.iter().map(|it| it.waiting.len()).sum();
        if threads < MANY {
            self.write = None;
            carry::play(tree, spaces, |played| self.take(played))?;
            return Ok(self);
        }
        std::thread::scope(|scope| {
            let (sender, ready) = mpsc::channel();
            let recorder = sched::beside(scope, "records", move || {
                ready.into_iter().for_each(|played| self.take(played));
                self
            });
            let recorder = recorder.map_err(|error| Error::Own {
                what: "how to start a thread",
                errno: Errno::from_io_error(&error).unwrap_or(Errno::AGAIN),
            })?;
            // If nobody takes them, joining tells.
            let played = carry::play(tree, spaces, |played| drop(sender.send(played)));
            drop(sender);
            let recorded = recorder.join();
            played.map(|()| recorded.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn take(&mut self, played: Played) {
        if self.failed.is_some() {
            return;
        }
        let at = self.places.get(&played.place.0);
        if let Some(process) = at.and_then(|at| self.processes.get_mut(*at)) {
            if let (0, Some(asked), Some(closing)) = (
                played.place.1,
                &process.asked.questions.table,
                &self.closing,
            ) {
                // If nobody is there to take it, the dump has failed already.
                let _ = closing.send(asked.answer(&played.outcome));
            }
            let taken = process.take(played, (self.census, self.defaults), self.write.as_mut());
            self.failed = taken.err();
        }
    }

    /// The records of all processes, in the order in which they were added.
    pub(super) fn finish(
        self,
        processes: &[Process],
        areas: impl Fn(&'a Live) -> &'a [Area],
    ) -> Result<Vec<Cores>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let census = self.census;
        let all = self.processes.into_iter();
        all.map(|of| {
            let gone = || Error::Gone { tid: of.task.pid };
            let first = of.first.ok_or_else(gone)?;
            let threads = of.recorded.len() - of.taken_over;
            let recorded: Vec<Recorded> = of.recorded.into_iter().flatten().collect();
            if recorded.len() < threads {
                return Err(gone());
            }
            let seen = (of.task, of.live, areas(of.live));
            let process = &processes[of.index];
            of.asked.record(process, seen, census, first, recorded)
        })
        .collect()
    }
}

impl OfProcess<'_> {
    /// Records a thread that has played.
    fn take(
        &mut self,
        played: Played,
        (census, defaults): (&Census, &Defaults),
        write: Option<&mut Write<'_>>,
    ) -> Result<(), Error> {
        let index = played.place.1;
        let gone = || Error::Gone { tid: self.task.pid };
        let asked = self.waiting.get_mut(index).and_then(Option::take);
        let asked = asked.ok_or_else(gone)?;
        let (tid, regs) = (asked.tid, played.saved.regs);
        let answers = Answers {
            tid,
            outcome: &played.outcome,
        };
        let own = match index {
            0 => Some(self.asked.questions.actions.answer(answers)?),
            _ => None,
        };
        let told = self.first.as_ref().map(|(_, actions)| actions);
        let actions = own.as_ref().or(told).ok_or_else(gone)?;
        let restraint = asked.restraint(&played)?;
        // Signals for the process go to its leader if it takes them.
        let shared = signals::set(&self.asked.shared).0 | self.live.status.shared_pending;
        let shared = SigSet(if index == 0 { shared } else { 0 });
        let is_leader = index == 0 && self.task.has_leader();
        let status = is_leader.then_some(&self.live.status);
        let is_below = census.is_below(self.live);
        let (mut core, rest) = asked.record(
            self.task.living,
            status,
            &played,
            shared,
            actions,
            (defaults, &census.users, is_below),
        )?;
        if is_below {
            self.check_users(tid, &core)?;
        }
        if let Some(actions) = own {
            self.first = Some((played, actions));
        } else if let (Some(write), true) = (write, self.unfiltered) {
            seccomp::put_unfiltered(&mut core, &restraint);
            write(self.task, tid, core);
            self.taken_over += 1;
            return Ok(());
        }
        self.recorded[index] = Some(Recorded {
            tid,
            core,
            rest,
            restraint,
            regs,
        });
        Ok(())
    }

    /// Threads of a user namespace below the root's get their users with their process.
    fn check_users(&self, tid: Pid, core: &CoreEntry) -> Result<(), Error> {
        let ids = |core: &CoreEntry| {
            let creds = core.thread_core.as_ref()?.creds.as_ref()?;
            let uids = [creds.uid, creds.euid, creds.suid, creds.fsuid];
            let gids = [creds.gid, creds.egid, creds.sgid, creds.fsgid];
            Some((uids, gids, creds.groups.clone()))
        };
        let (pid, comm) = (self.task.pid, self.task.comm());
        let what = "other users or groups in a user namespace of its own";
        match self.recorded.first() {
            Some(Some(leader)) if ids(&leader.core) != ids(core) => Err(Refusal::Unshared {
                pid,
                tid,
                comm,
                what,
            }
            .into()),
            _ => Ok(()),
        }
    }
}
