//! State of tasks and threads beside memory and files: `core-*.img`, section 7 of the format.
//!
//! What can be seen from outside is looked at first. What only a task can tell is asked on one tape a thread;
//! the tapes of all tasks are played at the same time, and every thread is then as it was.

mod attributes;
mod call;
mod carry;
mod creds;
mod error;
mod fpu;
mod limits;
mod locking;
mod registers;
mod sched;
mod signals;
mod timers;

use std::collections::{HashMap, VecDeque};

use gelid_image::messages::{
    CoreEntry, CredsEntry, GelidThreadEntry, March, SeccompMode, TaskCoreEntry, ThreadCoreEntry,
    ThreadInfoX86,
};
use gelid_seize::{Process, State, Tree};
use gelid_sys::proc::maps::Perms;
use gelid_sys::proc::smaps::Area;
use gelid_sys::proc::status::{self, Status};
use gelid_sys::ptrace::Stopped;
use gelid_sys::signal::{SigInfo, SigSet};
use gelid_sys::{Errno, PAGE_SIZE, Pid};
use gelid_tape::{Ground, Identity, Tape, closing_signal};

use crate::survey::{Live, Space, Task};
use crate::vma::{self, Kind};
use attributes::{AskedProcess, AskedThread, OfThread, Outside, Pointers};
use call::Answers;
use carry::{Job, Played};
use creds::{AskedBits, AskedCreds};
use limits::AskedLimits;
use sched::{Defaults, Sched};
use signals::{Actions, AskedActions, AskedStack};
use timers::AskedTimers;

pub use error::Error;

#[cfg(test)]
mod tests;

/// Distance from the stack pointer of memory that nobody will miss, bytes.
const STACK_MARGIN: u64 = 64 << 10;
const ALIVE: u32 = 1;
const STOPPED: u32 = 3;

/// The state of a process that has not ended.
#[derive(Debug)]
pub(crate) struct Cores {
    pub(crate) pid: Pid,
    /// Of the leader, with the part of the process.
    pub(crate) leader: CoreEntry,
    /// Of the other threads.
    pub(crate) threads: Vec<(Pid, CoreEntry)>,
    /// The program break.
    pub(crate) brk: u64,
    /// 0, 1 or 2, `PR_GET_DUMPABLE`.
    pub(crate) dumpable: i32,
    /// `PR_GET_THP_DISABLE`
    pub(crate) thp_disabled: bool,
}

/// Learns the state of every process of a frozen tree that has not ended, in the order of the tree. `tasks`
/// are what was seen of its processes before.
///
/// # Errors
///
/// What could not be learnt, or cannot be told in images. The tree is as it was, whatever happens.
pub(crate) fn collect(tree: &mut Tree, tasks: &[Task]) -> Result<Vec<Cores>, Error> {
    let defaults = Defaults::look()?;
    let mut vectors = fpu::Reader::new();
    let mut asked = Vec::new();
    let mut spaces: HashMap<u32, carry::Space> = HashMap::new();
    let mut order = Vec::new();
    for (index, (process, task)) in tree.processes().iter().zip(tasks).enumerate() {
        let Some(live) = &task.live else { continue };
        let this = AskedTask::look(process, live, &mut vectors)?;
        let id = live.ids.vm_id;
        if !spaces.contains_key(&id) {
            let ground = ground(process, areas(tasks, live))?;
            let jobs = VecDeque::new();
            spaces.insert(id, carry::Space { ground, jobs });
            order.push(id);
        }
        let (this, jobs) = this.into_jobs(index, live);
        if let Some(space) = spaces.get_mut(&id) {
            space.jobs.extend(jobs);
        }
        asked.push((index, this));
    }
    let spaces = order.iter().filter_map(|id| spaces.remove(id)).collect();
    let mut played: HashMap<(usize, usize), Played> = carry::play(tree, spaces)?
        .into_iter()
        .map(|played| (played.place, played))
        .collect();
    let mut cores = Vec::with_capacity(asked.len());
    for (index, this) in asked {
        let (process, task) = (&tree.processes()[index], &tasks[index]);
        let played = (0..this.threads.len()).map(|thread| played.remove(&(index, thread)));
        let played: Option<Vec<Played>> = played.collect();
        let played = played.ok_or(Error::Gone { tid: task.pid })?;
        cores.push(this.record(process, task, &played, &defaults)?);
    }
    Ok(cores)
}

/// The mappings of a process.
fn areas<'a>(tasks: &'a [Task], live: &'a Live) -> &'a [Area] {
    match &live.space {
        Space::Own(layout) => &layout.areas,
        Space::Of(first) => match tasks[*first].live.as_ref().map(|live| &live.space) {
            Some(Space::Own(layout)) => &layout.areas,
            _ => &[],
        },
    }
}

/// Where stub and tapes can go.
fn ground(process: &Process, areas: &[Area]) -> Result<Ground, Error> {
    let code = |area: &&Area| {
        area.map.perms.contains(Perms::EXEC)
            && !area.map.perms.contains(Perms::SHARED)
            && vma::kind(area) != Kind::Vsyscall
    };
    let mut code: Vec<&Area> = areas.iter().filter(code).collect();
    code.sort_by_key(|area| vma::kind(area) != Kind::Vdso);
    let task = held(process, 0)?;
    let sp = task
        .regs()
        .map_err(|errno| wrong_registers(task.pid(), errno))?
        .rsp;
    let stack = areas
        .iter()
        .map(|area| area.map.range())
        .find(|range| range.contains(&sp));
    let spare = stack.map(|stack| {
        let end = sp.saturating_sub(STACK_MARGIN) & !(PAGE_SIZE as u64 - 1);
        stack.start..end.max(stack.start)
    });
    Ok(Ground {
        code: code.iter().map(|area| area.map.range()).collect(),
        spare: spare.filter(|spare| !spare.is_empty()),
    })
}

fn wrong_registers(tid: Pid, errno: Errno) -> Error {
    match errno {
        // The set has another size.
        Errno::IO => Error::Unsupported {
            tid,
            what: "32-bit code",
            remedy: "use a 64-bit build of the program",
        },
        errno => Error::Thread {
            tid,
            object: "the registers",
            errno,
        },
    }
}

/// A thread that stands still.
fn held(process: &Process, thread: usize) -> Result<&Stopped, Error> {
    let gone = Error::Gone { tid: process.pid };
    let thread = process.threads.get(thread).ok_or(gone)?;
    thread.task().ok_or(Error::Gone { tid: thread.tid })
}

/// A process that has been looked at, and what its leader is asked for it.
#[derive(Debug)]
struct AskedTask {
    outside: Outside,
    shared: Vec<SigInfo>,
    actions: AskedActions,
    limits: AskedLimits,
    timers: AskedTimers,
    attributes: AskedProcess,
    /// The leader first.
    threads: Vec<AskedOne>,
}

/// A thread that has been looked at, and what it is asked.
#[derive(Debug)]
struct AskedOne {
    tid: Pid,
    fpu: gelid_image::messages::UserX86FpregsEntry,
    pointers: Pointers,
    sched: Sched,
    private: Vec<SigInfo>,
    stack: AskedStack,
    attributes: AskedThread,
    bits: AskedBits,
    /// Of all but the leader.
    creds: Option<AskedCreds>,
    tape: Tape,
}

impl AskedTask {
    fn look(process: &Process, live: &Live, vectors: &mut fpu::Reader) -> Result<Self, Error> {
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
            let leader = (thread > 0).then_some(&live.status);
            threads.push(AskedOne::look(held(process, thread)?, leader, vectors)?);
        }
        let first = threads.first_mut();
        let tape = &mut first.ok_or(Error::Gone { tid: process.pid })?.tape;
        Ok(Self {
            outside: Outside::look(&dir)?,
            shared: signals::pending(leader, true)?,
            actions: AskedActions::ask(tape),
            limits: AskedLimits::ask(tape),
            timers: AskedTimers::ask(tape, timers::look(&dir)?),
            attributes: AskedProcess::ask(tape),
            threads,
        })
    }

    /// The tapes, as jobs.
    fn into_jobs(mut self, process: usize, live: &Live) -> (Self, Vec<Job>) {
        let status = &live.status;
        let inside = |ids: &[i32], outside: i32| ids.last().copied().unwrap_or(outside);
        let tgid = inside(&status.ns_tgid, status.tgid);
        let mut jobs = Vec::with_capacity(self.threads.len());
        for (thread, one) in self.threads.iter_mut().enumerate() {
            let pending = signals::set(&one.private).0 | signals::set(&self.shared).0;
            let waiting = SigSet(pending | status.sig_pending | status.shared_pending);
            jobs.push(Job {
                place: (process, thread),
                identity: Identity {
                    tgid,
                    // The dumper is in the namespace of the tree.
                    tid: one.tid.as_raw_pid(),
                    signal: closing_signal(SigSet(status.sig_caught), waiting),
                },
                tape: std::mem::take(&mut one.tape),
            });
        }
        (self, jobs)
    }

    fn record(
        &self,
        process: &Process,
        task: &Task,
        played: &[Played],
        defaults: &Defaults,
    ) -> Result<Cores, Error> {
        let Some(live) = &task.live else {
            return Err(Error::Gone { tid: task.pid });
        };
        let leader = Answers {
            tid: task.pid,
            outcome: &played[0].outcome,
        };
        let actions = self.actions.answer(leader)?;
        let shared = signals::set(&self.shared).0 | live.status.shared_pending;
        let mut cores = Vec::with_capacity(played.len());
        for (index, (thread, played)) in self.threads.iter().zip(played).enumerate() {
            // Signals for the process go to its leader if it takes them.
            let shared = SigSet(if index == 0 { shared } else { 0 });
            let status = (index == 0).then_some(&live.status);
            let (core, rest) =
                thread.record(process, status, played, shared, &actions, defaults)?;
            cores.push((thread.tid, core, rest));
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
            blk_sigset: played[0].saved.mask.0,
            comm: rest.name,
            timers: Some(self.timers.answer(leader)?),
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
        core.tc = Some(tc);
        Ok(Cores {
            pid: task.pid,
            leader: core,
            threads: cores.map(|(tid, core, _)| (tid, core)).collect(),
            brk: space.brk,
            dumpable: space.dumpable,
            thp_disabled: space.thp_disabled,
        })
    }
}

impl AskedOne {
    /// `leader` is the status of the leader, for another thread.
    fn look(
        task: &Stopped,
        leader: Option<&Status>,
        vectors: &mut fpu::Reader,
    ) -> Result<Self, Error> {
        no_filter(task)?;
        let mut tape = Tape::new();
        Ok(Self {
            tid: task.pid(),
            fpu: vectors.read(task)?,
            pointers: Pointers::look(task)?,
            sched: Sched::look(task.pid())?,
            private: signals::pending(task, false)?,
            stack: AskedStack::ask(&mut tape),
            attributes: AskedThread::ask(&mut tape),
            bits: AskedBits::ask(&mut tape),
            creds: leader.map(|leader| AskedCreds::ask(&mut tape, leader)),
            tape,
        })
    }

    /// `status` is there for the leader; `shared` are the signals for the process that this thread will take.
    fn record(
        &self,
        process: &Process,
        status: Option<&Status>,
        played: &Played,
        shared: SigSet,
        actions: &Actions,
        defaults: &Defaults,
    ) -> Result<(CoreEntry, OfThread), Error> {
        let tid = self.tid;
        let outcome = &played.outcome;
        let answers = Answers { tid, outcome };
        let pending = status.map_or(0, |status| status.sig_pending);
        let pending = SigSet(pending | signals::set(&self.private).0);
        let waiting = SigSet((pending.0 | shared.0) & !played.saved.mask.0);
        let left = |at| registers::nanoseconds(tid, at);
        let resolved = registers::resolve(&played.saved.regs, actions.restarts(waiting), left);
        if !resolved.regs.is_native() {
            return Err(wrong_registers(tid, Errno::IO));
        }
        let mut thread = ThreadCoreEntry {
            blk_sigset: status.is_none().then_some(played.saved.mask.0),
            sas: Some(self.stack.answer(answers)?),
            signals_p: Some(signals::queue(&self.private, pending)),
            creds: Some(self.creds(process, status, answers)?),
            seccomp_mode: Some(SeccompMode::Disabled as i32),
            ..Default::default()
        };
        let mut gelid = GelidThreadEntry {
            restart: resolved.restart,
            ..Default::default()
        };
        self.sched.record(defaults, &mut thread, &mut gelid);
        let pointers = &self.pointers;
        let rest = self
            .attributes
            .answer(answers, pointers, &mut thread, &mut gelid)?;
        thread.gelid = (gelid != GelidThreadEntry::default()).then_some(gelid);
        let mut info = ThreadInfoX86 {
            clear_tid_addr: rest.clear_tid,
            gpregs: registers::record(&resolved.regs),
            fpregs: self.fpu.clone(),
            tls: Vec::new(),
        };
        registers::no_descriptors(&mut info);
        let core = CoreEntry {
            mtype: March::X86_64 as i32,
            thread_info: Some(info),
            thread_core: Some(thread),
            ..Default::default()
        };
        Ok((core, rest))
    }

    fn creds(
        &self,
        process: &Process,
        status: Option<&Status>,
        answers: Answers<'_>,
    ) -> Result<CredsEntry, Error> {
        let bits = self.bits.answer(answers)?;
        if let Some(status) = status {
            return Ok(creds::of_status(status, bits));
        }
        let asked = self.creds.as_ref();
        if let Some(entry) = asked
            .map(|asked| asked.answer(answers, bits))
            .transpose()?
            .flatten()
        {
            return Ok(entry);
        }
        let dir = process.dir()?.thread(self.tid)?;
        Ok(creds::of_status(&status::read(&dir)?, bits))
    }
}

/// Refuses a thread under a seccomp filter, which images do not tell yet.
fn no_filter(task: &Stopped) -> Result<(), Error> {
    match task.seccomp_filter(0) {
        Ok(Some(_)) => Err(Error::Unsupported {
            tid: task.pid(),
            what: "a seccomp filter",
            remedy: "run it without its sandbox",
        }),
        // That there is none, or that nobody may ask.
        _ => Ok(()),
    }
}
