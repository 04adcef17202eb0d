//! A process: looked at, asked by its leader, recorded.

use std::sync::Arc;

use gelid_image::messages::{CoreEntry, TaskCoreEntry};
use gelid_seize::{Process, State};
use gelid_sys::Pid;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::smaps::Area;
use gelid_sys::proc::status::Status;
use gelid_sys::signal::{SigInfo, SigSet};
use gelid_tape::{Identity, closing_signal};

use super::aio::AskedRings;
use super::attributes::{AskedProcess, OfThread, Outside};
use super::call::Answers;
use super::carry::{Job, Played};
use super::keys::AskedKeys;
use super::limits::AskedLimits;
use super::sched::Defaults;
use super::seccomp::Restraint;
use super::signals::AskedActions;
use super::thread::{self, Looks};
use super::timers::AskedTimers;
use super::{Cores, Error, ended, fpu, held, signals, timers};
use crate::Refusal;
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

/// A process that has been looked at, and what its leader is asked for it.
#[derive(Debug)]
pub(super) struct Asked {
    outside: Outside,
    shared: Vec<SigInfo>,
    actions: AskedActions,
    limits: AskedLimits,
    timers: AskedTimers,
    attributes: AskedProcess,
    rings: AskedRings,
    keys: AskedKeys,
    /// The leader first, if it lives.
    pub(super) threads: Vec<thread::Asked>,
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
        let mut threads = Vec::with_capacity(process.threads.len());
        for thread in 0..process.threads.len() {
            // Of a process that has lost its leader, the status is that of the first that lives.
            let other = thread > 0 || process.ended_leader.is_some();
            let leader = other.then_some(&live.status);
            let mut asked = thread::Asked::look(held(process, thread)?, &dir, leader, looks)?;
            // The first is asked more. What thousands of the others are asked is hardly worth keeping thousands of times.
            let last = threads.get(1..).and_then(<[thread::Asked]>::last);
            if let Some(last) = last.filter(|last| last.tape == asked.tape) {
                asked.tape = Arc::clone(&last.tape);
            }
            threads.push(asked);
        }
        let first = threads.first_mut();
        let tape = &mut first.ok_or(Error::Gone { tid: process.pid })?.tape;
        let tape = Arc::make_mut(tape);
        Ok(Self {
            outside: Outside::look(&dir, own_session(process.pid, sid))?,
            shared: signals::pending(leader, true)?,
            actions: AskedActions::ask(tape),
            limits: AskedLimits::ask(tape),
            timers: AskedTimers::ask(tape, timers::look(&dir)?),
            attributes: AskedProcess::ask(tape),
            rings: AskedRings::ask(process.living(), areas, tape)?,
            keys: AskedKeys::ask(tape),
            threads,
        })
    }

    /// The tapes, as jobs.
    pub(super) fn into_jobs(
        mut self,
        process: usize,
        task: &Task,
        live: &Live,
    ) -> (Self, Vec<Job>) {
        let status = &live.status;
        let (tgid, _) = own(task, live);
        let mut jobs = Vec::with_capacity(self.threads.len());
        for (thread, one) in self.threads.iter_mut().enumerate() {
            let pending = signals::set(&one.private).0 | signals::set(&self.shared).0;
            let waiting = SigSet(pending | status.sig_pending | status.shared_pending);
            jobs.push(Job {
                place: (process, thread),
                identity: Identity {
                    tgid,
                    tid: task.own(thread).unwrap_or(one.tid.as_raw_pid()),
                    signal: closing_signal(SigSet(status.sig_caught), waiting),
                },
                tape: std::mem::take(&mut one.tape),
            });
        }
        (self, jobs)
    }

    /// Its records, and those of its threads.
    pub(super) fn record(
        self,
        process: &Process,
        (task, areas): (&Task, &[Area]),
        census: &Census,
        played: &[Played],
        defaults: &Defaults,
    ) -> Result<Cores, Error> {
        let Some(live) = &task.live else {
            return Err(Error::Gone { tid: task.pid });
        };
        let leader = Answers {
            tid: task.living,
            outcome: &played[0].outcome,
        };
        let actions = self.actions.answer(leader)?;
        let shared = signals::set(&self.shared).0 | live.status.shared_pending;
        let mut cores = Vec::with_capacity(played.len());
        let is_below = census.is_below(live);
        let restraints = self.threads.iter().zip(played);
        let restraints = restraints.map(|(thread, played)| thread.restraint(played));
        let mut restraints: Vec<Restraint> = restraints.collect::<Result<_, _>>()?;
        for (index, (thread, played)) in self.threads.into_iter().zip(played).enumerate() {
            // Signals for the process go to its leader if it takes them.
            let shared = SigSet(if index == 0 { shared } else { 0 });
            let is_leader = index == 0 && process.ended_leader.is_none();
            let status = is_leader.then_some(&live.status);
            let tid = thread.tid;
            let (core, rest) = thread.record(
                process,
                status,
                played,
                shared,
                &actions,
                (defaults, &census.users, is_below),
            )?;
            if is_below {
                check_users(task, tid, &core, cores.first())?;
            }
            cores.push((tid, core, rest));
        }
        let mut mask = played[0].saved.mask.0;
        if let (Some(ended), Some((_, first, rest))) = (process.ended_leader, cores.first()) {
            let seen = (areas, played);
            let leader = ended::leader(
                process,
                ended,
                first,
                seen,
                (&task.stat.comm, &census.users),
            )?;
            let rest = OfThread {
                name: task.stat.comm.clone(),
                ..rest.clone()
            };
            cores.insert(0, (task.pid, Box::new(leader), rest));
            // No filter is to keep it from its end.
            restraints.insert(0, Restraint::None);
            mask = ended::ALL;
        }
        let mut cores = cores.into_iter();
        let (_, mut core, rest) = cores.next().ok_or(Error::Gone { tid: task.pid })?;
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
            timers: Some(self.timers.answer(leader, &census.numbers)?),
            rlimits: Some(self.limits.answer(leader)?),
            signals_s: Some(signals::queue(&self.shared, SigSet(shared))),
            sigactions: actions.entries(),
            ..Default::default()
        };
        let space = self.attributes.answer(leader, &self.outside, &mut tc)?;
        let gelid = tc.gelid.get_or_insert_default();
        gelid.lock_future = played[0].locking;
        // The kernel forgets the signal when the parent has waited for it.
        let told = tc.task_state == STOPPED && task.stat.exit_code == 0;
        gelid.stop_told = told.then_some(true);
        gelid.no_terminal = task.no_terminal.then_some(true);
        core.tc = Some(tc);
        Ok(Cores {
            pid: task.pid,
            living: task.living,
            leader: *core,
            threads: cores.map(|(tid, core, _)| (tid, core)).collect(),
            restraints,
            rings: self.rings.answer(leader)?,
            keys: self.keys.answer(leader, areas)?,
            brk: space.brk,
            dumpable: space.dumpable,
            thp_disabled: space.thp_disabled,
            lent: played[0].lent.clone(),
        })
    }
}

/// Threads of a user namespace below the root's get their users with their process.
fn check_users(
    task: &Task,
    tid: Pid,
    core: &CoreEntry,
    leader: Option<&(Pid, Box<CoreEntry>, OfThread)>,
) -> Result<(), Error> {
    let ids = |core: &CoreEntry| {
        let creds = core.thread_core.as_ref()?.creds.as_ref()?;
        let uids = [creds.uid, creds.euid, creds.suid, creds.fsuid];
        let gids = [creds.gid, creds.egid, creds.sgid, creds.fsgid];
        Some((uids, gids, creds.groups.clone()))
    };
    let (pid, comm) = (task.pid, task.comm());
    let what = "other users or groups in a user namespace of its own";
    match leader {
        Some((_, leader, _)) if ids(leader) != ids(core) => Err(Refusal::Unshared {
            pid,
            tid,
            comm,
            what,
        }
        .into()),
        _ => Ok(()),
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
