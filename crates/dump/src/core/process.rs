//! A process: looked at, asked by its leader, recorded.

use std::sync::Arc;

use gelid_image::messages::TaskCoreEntry;
use gelid_seize::{Process, State};
use gelid_sys::Pid;
use gelid_sys::aio::Header;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::smaps::Area;
use gelid_sys::proc::status::Status;
use gelid_sys::proc::timers::Timer;
use gelid_sys::signal::{SigInfo, SigSet};
use gelid_tape::{Identity, Tape, closing_signal};

use super::aio::{self, AskedRings};
use super::attributes::{AskedProcess, Outside};
use super::call::Answers;
use super::carry::{Job, Played};
use super::descriptors::AskedTable;
use super::keys::AskedKeys;
use super::limits::AskedLimits;
use super::recording::Recorded;
use super::seccomp::Restraint;
use super::signals::{Actions, AskedActions};
use super::thread::{self, Looks};
use super::timers::AskedTimers;
use super::{Cores, Error, ended, fpu, held, signals, timers};
use crate::namespace::Census;
use crate::survey::{Live, Task};

const ALIVE: u32 = 1;
const STOPPED: u32 = 3;

/// How the first thread of a process knows itself when it plays a tape, as far as is seen from outside.
pub(crate) fn leader_identity(task: &Task, live: &Live) -> Identity {
    identity_by(&live.status, own(task, live))
}

/// The same of whoever calls itself so, by its status alone.
pub(crate) fn identity_by(status: &Status, (tgid, tid): (i32, i32)) -> Identity {
    let waiting = SigSet(status.sig_pending | status.shared_pending);
    Identity {
        tgid,
        tid,
        signal: closing_signal(SigSet(status.sig_caught), waiting),
    }
}

/// What the first thread of a process is asked, for itself and its process.
#[derive(Debug)]
pub(super) struct Questions {
    own: Arc<thread::Questions>,
    pub(super) actions: AskedActions,
    limits: AskedLimits,
    timers: AskedTimers,
    attributes: AskedProcess,
    rings: AskedRings,
    keys: AskedKeys,
    /// Its descriptors, if they are many.
    pub(super) table: Option<AskedTable>,
    tape: Arc<Tape>,
}

/// What is not asked of every process alike.
#[derive(Default)]
struct Special<'a> {
    /// The status of a leader that has ended.
    ended: Option<&'a Status>,
    timers: Vec<Timer>,
    rings: Vec<(u64, Header)>,
    /// Whose table of descriptors it is to tell about.
    table: Option<&'a Live>,
}

impl Special<'_> {
    fn is_nothing(&self) -> bool {
        self.ended.is_none()
            && self.timers.is_empty()
            && self.rings.is_empty()
            && self.table.is_none()
    }
}

impl Questions {
    fn ask(special: Special<'_>) -> Self {
        let mut tape = Tape::new();
        Self {
            own: Arc::new(thread::Questions::ask(&mut tape, special.ended)),
            actions: AskedActions::ask(&mut tape),
            limits: AskedLimits::ask(&mut tape),
            timers: AskedTimers::ask(&mut tape, special.timers),
            attributes: AskedProcess::ask(&mut tape),
            rings: AskedRings::ask(special.rings, &mut tape),
            keys: AskedKeys::ask(&mut tape),
            table: special.table.map(|live| AskedTable::ask(live, &mut tape)),
            tape: Arc::new(tape),
        }
    }
}

/// A process that has been looked at, and what its leader is asked for it.
#[derive(Debug)]
pub(super) struct Asked {
    outside: Outside,
    pub(super) shared: Vec<SigInfo>,
    /// Most processes are asked the same.
    pub(super) questions: Arc<Questions>,
    /// The leader first, if it lives.
    pub(super) threads: Vec<thread::Asked>,
    /// Of each thread but the first.
    other_tape: Arc<Tape>,
}

impl Asked {
    pub(super) fn look(
        process: &Process,
        live: &Live,
        areas: &[Area],
        sid: i32,
        looks: &mut Looks<'_>,
    ) -> Result<Self, Error> {
        let dir = process.dir()?;
        let leader = held(process, 0)?;
        if fpu::has_shadow_stack(leader) {
            return Err(Error::Unsupported {
                tid: process.pid,
                what: "a shadow stack",
                remedy: "start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
            });
        }
        let special = Special {
            // Of a process that has lost its leader, the status is that of the first that lives.
            ended: process.ended_leader.is_some().then_some(&live.status),
            timers: timers::look(&dir)?,
            rings: aio::look(process.living(), areas)?,
            table: looks.tables.wants(live).then_some(live),
        };
        let questions = match special.is_nothing() {
            true => Arc::clone(
                looks
                    .usual
                    .get_or_insert_with(|| Arc::new(Questions::ask(Special::default()))),
            ),
            false => Arc::new(Questions::ask(special)),
        };
        let mut threads = Vec::with_capacity(process.threads.len());
        threads.push(thread::Asked::look(leader, &dir, &questions.own, looks)?);
        let mut other_tape = Tape::new();
        if process.threads.len() > 1 {
            let others = thread::Questions::ask(&mut other_tape, Some(&live.status));
            let others = Arc::new(others);
            for thread in 1..process.threads.len() {
                threads.push(thread::Asked::look(
                    held(process, thread)?,
                    &dir,
                    &others,
                    looks,
                )?);
            }
        }
        Ok(Self {
            outside: Outside::look(&dir, own_session(process.pid, sid))?,
            shared: signals::pending(leader, true)?,
            questions,
            threads,
            other_tape: Arc::new(other_tape),
        })
    }

    /// The tapes, as jobs.
    pub(super) fn jobs(&self, process: usize, task: &Task, live: &Live) -> Vec<Job> {
        let status = &live.status;
        let (tgid, _) = own(task, live);
        let mut jobs = Vec::with_capacity(self.threads.len());
        for (thread, one) in self.threads.iter().enumerate() {
            let pending = signals::set(&one.private).0 | signals::set(&self.shared).0;
            let waiting = SigSet(pending | status.sig_pending | status.shared_pending);
            jobs.push(Job {
                place: (process, thread),
                identity: Identity {
                    tgid,
                    tid: task.own(thread).unwrap_or(one.tid.as_raw_pid()),
                    signal: closing_signal(SigSet(status.sig_caught), waiting),
                },
                tape: Arc::clone(match thread {
                    0 => &self.questions.tape,
                    _ => &self.other_tape,
                }),
            });
        }
        jobs
    }

    /// Its record, with those of its threads; `first` is what the first of these has told.
    pub(super) fn record(
        self,
        process: &Process,
        (task, live, areas): (&Task, &Live, &[Area]),
        census: &Census,
        (first, actions): (Played, Actions),
        mut threads: Vec<Recorded>,
    ) -> Result<Cores, Error> {
        let leader = Answers {
            tid: task.living,
            outcome: &first.outcome,
        };
        let asked = &self.questions;
        let shared = signals::set(&self.shared).0 | live.status.shared_pending;
        let mut mask = first.saved.mask.0;
        if let Some(ended) = process.ended_leader {
            let seen = (areas, &threads[..]);
            let leader = ended::leader(process, ended, seen, (&task.stat.comm, &census.users))?;
            threads.insert(0, leader);
            mask = ended::ALL;
        }
        let restraints = threads
            .iter_mut()
            .map(|it| std::mem::take(&mut it.restraint));
        let restraints: Vec<Restraint> = restraints.collect();
        let mut threads = threads.into_iter();
        let Recorded { mut core, rest, .. } =
            threads.next().ok_or(Error::Gone { tid: task.pid })?;
        let mut tc = TaskCoreEntry {
            task_state: match process.state {
                State::Stopped { .. } => STOPPED,
                _ => ALIVE,
            },
            stop_signo: match process.state {
                State::Stopped { signal } => Some(signal.cast_unsigned()),
                _ => None,
            },
            personality: rest.personality,
            flags: task.stat.flags,
            blk_sigset: mask,
            comm: rest.name,
            timers: Some(asked.timers.answer(leader, &census.numbers)?),
            rlimits: Some(asked.limits.answer(leader)?),
            signals_s: Some(signals::queue(&self.shared, SigSet(shared))),
            sigactions: actions.entries(),
            ..Default::default()
        };
        let space = asked.attributes.answer(leader, &self.outside, &mut tc)?;
        let gelid = tc.gelid.get_or_insert_default();
        gelid.lock_future = first.locking;
        // The kernel forgets the signal when the parent has waited for it.
        let told = tc.task_state == STOPPED && task.stat.exit_code == 0;
        gelid.stop_told = told.then_some(true);
        gelid.no_terminal = task.no_terminal.then_some(true);
        core.tc = Some(tc);
        Ok(Cores {
            pid: task.pid,
            living: task.living,
            leader: *core,
            threads: threads.map(|it| (it.tid, it.core)).collect(),
            restraints,
            rings: asked.rings.answer(leader)?,
            keys: asked.keys.answer(leader, areas)?,
            brk: space.brk,
            dumpable: space.dumpable,
            thp_disabled: space.thp_disabled,
            lent: first.lent,
        })
    }
}

/// Who the first thread of a process is to a tape.
pub(super) fn identity(process: &Process, task: &Task, live: &Live) -> Result<Identity, Error> {
    let leader = held(process, 0)?;
    let status = &live.status;
    let private = signals::set(&signals::pending(leader, false)?).0;
    let shared = signals::set(&signals::pending(leader, true)?).0;
    let waiting = SigSet(private | shared | status.sig_pending | status.shared_pending);
    let (tgid, tid) = own(task, live);
    Ok(Identity {
        tgid,
        tid,
        signal: closing_signal(SigSet(status.sig_caught), waiting),
    })
}

/// How a process calls itself, and its first thread that lives.
fn own(task: &Task, live: &Live) -> (i32, i32) {
    let tgid = task.numbers.first().map(|number| number.own);
    let tgid = tgid.unwrap_or(live.status.tgid);
    (tgid, task.own(0).unwrap_or(tgid))
}

/// Whether the leader of its session is the process itself, or gone.
fn own_session(pid: Pid, sid: i32) -> bool {
    let leader = Pid::from_raw(sid).filter(|leader| *leader != pid);
    leader.is_none_or(|leader| TaskDir::open(leader).is_err())
}
