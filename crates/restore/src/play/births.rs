//! Tasks are born, each by whom the plan says, and come to their sessions and groups.

pub(crate) mod early;
mod groups;
pub(crate) mod root;
pub(crate) mod taken;
mod terminals;
pub(crate) mod weak;

use std::collections::BTreeMap;

use gelid_sys::clone::CloneArgs;
use gelid_sys::clone::flags;
use gelid_sys::ptrace::Stopped;
use gelid_sys::signal::{SIGCHLD, SIGKILL, SigSet};
use gelid_sys::syscall::nr;
use gelid_tape::{Failed, Op, closing_signal};
use rustix::process::{Signal, kill_process};

use self::taken::taken_or;
use super::crew::{Body, Crew, await_death, identity};
use super::descriptors;
use super::inheritance::Bequest;
use super::namespaces::further::Made;
use super::script::{Object, Script};
use crate::Error;
use crate::files::{Mounted, OpenFiles};
use crate::plan::births::{Births as Birth, Step, Who};
use crate::plan::tree::Node;
use crate::plan::{Life, Plan};

/// Bytes of tape for the leader of a process.
pub(crate) const LEADER_ROOM: usize = 160 << 10;
/// Bytes of tape for a process in the address space of another.
const GUEST_ROOM: usize = 16 << 10;
/// Bytes of tape that a birth takes, with some to spare.
const BIRTH: usize = 384;
const PR_SET_NAME: u64 = 15;
const PR_SET_CHILD_SUBREAPER: u64 = 36;
const RLIMIT_CORE: u64 = 4;
/// `__WALL` of `wait(2)`: children of all kinds.
pub(crate) const WALL: u64 = 0x4000_0000;

/// Creates every task of the plan but the root, which is there, as an address space with a zone for tapes and what the
/// task was born with.
pub(crate) fn run(bequest: &mut Bequest<'_>, crew: &mut Crew) -> Result<(), Error> {
    let mut births = Births {
        plan: bequest.plan,
        files: Some(bequest.files),
        mounted: bequest.mounted,
        further: bequest.further,
        crew,
    };
    let (plan, groups) = (bequest.plan, bequest.groups);
    let set = |node: &Node| plan.cgroups.threads.get(&node.pid).copied();
    let (first, others) = plan.nodes.split_at(1);
    let of_root = first.first().and_then(set);
    let mut wave = births.begin()?;
    while !wave.is_empty() {
        bequest.make(&wave, births.crew)?;
        let fresh = |who: &&Who| plan.births.early_steps(**who).is_empty();
        let fresh: Vec<Who> = wave.iter().filter(fresh).copied().collect();
        bequest.further.leave_clocks(plan, &fresh, births.crew)?;
        wave = births.next(&wave, Birth::late_steps)?;
    }
    births.groups()?;
    births.terminals()?;
    births.end_helpers()?;
    births.zombies()?;
    for (index, node) in others.iter().enumerate() {
        if let Life::Alive(_) = plan.lives[index + 1] {
            let pid = births.crew.body(Who::Task(index + 1))?.pid;
            groups.enter(&plan.cgroups, pid.as_raw_pid(), of_root, set(node))?;
        }
    }
    Ok(())
}

struct Births<'a> {
    plan: &'a Plan,
    /// There are none yet for those who come first.
    files: Option<&'a OpenFiles>,
    mounted: Option<&'a Mounted>,
    /// Namespaces to be entered.
    further: &'a Made,
    crew: &'a mut Crew,
}

impl<'a> Births<'a> {
    /// Plays the steps of those just born; returns whom they have created.
    fn next(
        &mut self,
        wave: &[Who],
        steps: fn(&'a Birth, Who) -> &'a [Step],
    ) -> Result<Vec<Who>, Error> {
        let mut born = Vec::new();
        if self.plan.births.is_nested() {
            self.join_at_birth(wave)?;
        }
        let mut left: Vec<(Who, &[Step])> = wave
            .iter()
            .map(|who| (*who, steps(&self.plan.births, *who)))
            .filter(|(_, steps)| !steps.is_empty())
            .collect();
        born.extend(self.bear_weakly(&left)?);
        left.retain(|(who, _)| self.plan.births.users_of(*who).is_none());
        let mut first = true;
        while !left.is_empty() {
            let mut work = Vec::new();
            let mut forks = Vec::new();
            for (who, steps) in &mut left {
                let brood = self.crew.body(*who)?.carrier.room() / BIRTH;
                let (now, later) = steps.split_at(steps.len().min(brood.max(1)));
                *steps = later;
                let (script, ops) = self.script(*who, now, first);
                work.push((*who, script));
                forks.push(ops);
            }
            first = false;
            let children = forks.iter().flatten().map(|fork| fork.child);
            let pids: Vec<i32> = children.filter_map(|child| self.pid(child)).collect();
            self.crew.expect(&pids);
            let outcomes = self.crew.play(&work);
            let outcomes = outcomes.map_err(|error| taken_or(error, self.crew.pid_namespace()))?;
            for ((outcome, forks), (parent, _)) in outcomes.iter().zip(forks).zip(&work) {
                for fork in forks {
                    let pid = outcome.ok(fork.op).unwrap_or_default();
                    self.board(*parent, &fork, pid)?;
                    born.push(fork.child);
                }
            }
            self.crew.expect_no_more();
            left.retain(|(_, steps)| !steps.is_empty());
        }
        Ok(born)
    }

    fn pid(&self, who: Who) -> Option<i32> {
        match who {
            Who::Task(index) => Some(self.plan.nodes[index].pid),
            Who::Helper(index) => self.plan.births.helpers[index].pid,
        }
    }

    /// The numbers to be given, from the innermost pid namespace on; none where any will do.
    fn numbers(&self, who: Who) -> Vec<i32> {
        match who {
            Who::Task(index) => self.plan.nodes[index].set_tid(0),
            Who::Helper(index) => {
                let helper = &self.plan.births.helpers[index];
                let below = helper.below.iter().rev().copied();
                helper
                    .pid
                    .map_or_else(Vec::new, |pid| below.chain([pid]).collect())
            }
        }
    }

    /// How many pid namespaces somebody is below that of the root.
    fn level(&self, who: Who) -> usize {
        match who {
            Who::Task(index) => self.plan.nodes[index].level(),
            Who::Helper(index) => {
                let parent = self.plan.births.helpers[index].parent;
                self.plan.nodes[parent].level()
            }
        }
    }

    fn script(&self, who: Who, steps: &[Step], first: bool) -> (Script, Vec<Fork>) {
        let mut script = Script::default();
        let mut forks = Vec::new();
        if let (true, Who::Task(index)) = (first, who)
            && self.plan.births.reapers.contains(&index)
        {
            set_subreaper(&mut script, true);
        }
        if let (true, Who::Task(index)) = (first, who)
            && let Life::Alive(alive) = &self.plan.lives[index]
            && self.plan.enters_mounts_early(index)
        {
            // Once somebody shares them it cannot leave the namespace that these are in.
            descriptors::mount_namespace(&mut script, alive.mount_namespace, self.mounted);
        }
        for step in steps {
            match *step {
                Step::SetSid => {
                    script.must::<0>(Object::Itself, nr::setsid, []);
                    self.take_terminal(who, &mut script);
                }
                Step::Fork { child, flags } => {
                    let numbers = self.numbers_given(who, child);
                    // What is opened later is for them too.
                    let flags = flags | self.files.map_or(flags::FILES, |_| 0);
                    let new = self.before_users(child, &mut script);
                    let op = clone_call(&mut script, &numbers, flags | new);
                    self.after_users(child, &mut script);
                    forks.push(Fork { op, child, flags });
                }
            }
        }
        (script, forks)
    }

    /// Makes a newborn ready for tapes.
    fn board(&mut self, parent: Who, fork: &Fork, number: u64) -> Result<(), Error> {
        let seen = i32::try_from(number).unwrap_or_default();
        let (level, numbers) = (self.level(parent), self.numbers(fork.child));
        let task = match numbers.last() {
            // A go-between, of whom its creator alone has told the number.
            None if level > 0 => self.crew.newborn_inside(seen, level)?,
            None => self.crew.newborn(seen)?,
            Some(number) => self.crew.newborn(*number)?,
        };
        let raw = numbers.first().copied().unwrap_or(seen);
        self.put_on_board(parent, fork, task, raw)?;
        self.tell_users(parent, fork.child)
    }

    /// The same for one that has had its first stop; `raw` is how it calls itself.
    fn put_on_board(
        &mut self,
        parent: Who,
        fork: &Fork,
        task: Stopped,
        raw: i32,
    ) -> Result<(), Error> {
        let signal = signal(self.plan, fork.child);
        let pid = task.pid();
        let creator = self.crew.body(parent)?;
        let (above, regs) = (creator.host, creator.carrier.saved().regs);
        let (host, room) = if fork.flags & flags::VM == 0 {
            let host = self.crew.hosts[above].forked();
            self.crew.hosts.push(host);
            (self.crew.hosts.len() - 1, LEADER_ROOM)
        } else {
            (above, GUEST_ROOM)
        };
        let identity = identity(raw, raw, signal);
        let boarded = self.crew.hosts[host].board_newborn(task, identity, regs, room);
        let carrier = boarded.map_err(|failed| tape_error(raw, failed))?;
        let body = Body {
            pid,
            number: raw,
            carrier,
            host,
        };
        self.crew.bodies.insert(fork.child, body);
        Ok(())
    }

    /// Helpers have done their work: they end, and their parents reap them.
    fn end_helpers(&mut self) -> Result<(), Error> {
        let helpers = &self.plan.births.helpers;
        if helpers.is_empty() {
            return Ok(());
        }
        let mut reaping: BTreeMap<usize, Script> = BTreeMap::new();
        // The last were born last, of those before them.
        for (index, helper) in helpers.iter().enumerate().rev() {
            let Some(body) = self.crew.bodies.remove(&Who::Helper(index)) else {
                continue;
            };
            // ESRCH: it has ended already, which is found out next.
            let _ = kill_process(body.pid, Signal::KILL);
            await_death(body.pid)?;
            self.crew.forget(body.pid);
            let pid = body.number;
            let args = [pid.into(), 0.into(), WALL.into(), 0.into()];
            let script = reaping.entry(helper.parent).or_default();
            script.must(Object::Task(pid), nr::wait4, args);
        }
        for reaper in &self.plan.births.reapers {
            set_subreaper(reaping.entry(*reaper).or_default(), false);
        }
        let work: Vec<_> = reaping
            .into_iter()
            .map(|(index, script)| (Who::Task(index), script))
            .collect();
        self.crew.play(&work)?;
        Ok(())
    }

    /// What has ended in the image ends now, in the same way.
    fn zombies(&mut self) -> Result<(), Error> {
        for (index, life) in self.plan.lives.iter().enumerate() {
            let Life::Zombie { status, comm } = life else {
                continue;
            };
            let Some(body) = self.crew.bodies.remove(&Who::Task(index)) else {
                continue;
            };
            let pid = body.pid;
            end(body, *status, comm)?;
            await_death(pid)?;
        }
        Ok(())
    }
}

/// A signal for the end of tapes that is not among those to be restored as pending.
fn signal(plan: &Plan, who: Who) -> i32 {
    let pending = match who {
        Who::Task(index) => match &plan.lives[index] {
            Life::Alive(alive) => alive.pending(),
            Life::Zombie { .. } => SigSet::EMPTY,
        },
        Who::Helper(_) => SigSet::EMPTY,
    };
    closing_signal(SigSet::EMPTY, pending)
}

/// A birth on a tape.
struct Fork {
    op: Op,
    child: Who,
    flags: u64,
}

/// Appends a birth; `numbers` are those that are to be given, from the innermost pid namespace on.
pub(super) fn clone_call(script: &mut Script, numbers: &[i32], shared: u64) -> Op {
    let sibling = shared & flags::PARENT != 0;
    let args = CloneArgs {
        flags: shared | flags::PTRACE,
        exit_signal: if sibling { 0 } else { SIGCHLD as u64 },
        set_tid_size: numbers.len() as u64,
        ..CloneArgs::default()
    };
    let data = script.bytes(&args.to_bytes());
    if !numbers.is_empty() {
        let bytes: Vec<u8> = numbers.iter().flat_map(|id| id.to_ne_bytes()).collect();
        let tids = script.bytes(&bytes);
        script.tape.link(data, CloneArgs::SET_TID, tids);
    }
    let size = args.to_bytes().len() as u64;
    let outermost = numbers.last().copied();
    let object = outermost.map_or(Object::Itself, Object::Task);
    script.must(object, nr::clone3, [data.into(), size.into()])
}

fn set_subreaper(script: &mut Script, on: bool) {
    let args = [PR_SET_CHILD_SUBREAPER.into(), u64::from(on).into()];
    script.must(Object::Itself, nr::prctl, args);
}

/// Ends a process with the given status of `wait(2)`.
fn end(mut body: Body, status: i32, comm: &[u8]) -> Result<(), Error> {
    let pid = body.pid.as_raw_pid();
    let failed = |source| Error::Tape { pid, source };
    let signal = status & 0x7f;
    let mut script = Script::default();
    let mut name = comm.to_vec();
    name.truncate(15);
    name.push(0);
    let name = script.bytes(&name);
    script.call(nr::prctl, [PR_SET_NAME.into(), name.into()]);
    if signal == 0 {
        let code = status >> 8 & 0xff;
        script.call(nr::exit_group, [code.into()]);
        return body.carrier.start(&script.tape).map_err(failed);
    }
    let no_core = script.bytes(&[0; 16]);
    let args = [0.into(), RLIMIT_CORE.into(), no_core.into(), 0.into()];
    script.must(Object::Itself, nr::prlimit64, args);
    body.carrier.play(&script.tape).map_err(failed)?;
    let died = |errno| Error::Task {
        operation: "ending the task",
        pid,
        errno,
    };
    if signal == SIGKILL {
        return kill_process(body.pid, Signal::KILL).map_err(died);
    }
    let mut saved = *body.carrier.saved();
    saved.mask = SigSet::EMPTY;
    body.carrier.set_saved(saved);
    let task = body.carrier.release().map_err(|(error, _)| failed(error))?;
    // The tape's end is the delivery of a signal, which this one replaces.
    task.cont(signal).map(drop).map_err(died)
}

pub(crate) fn tape_error(pid: i32, (source, _task): Failed) -> Error {
    Error::Tape { pid, source }
}
