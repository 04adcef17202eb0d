//! Births in user namespaces below that of the root: nobody there may give numbers in pid namespaces above. Which comes
//! next is said there beforehand, and a child that somebody else has taken its number from is born once more.

use std::os::fd::OwnedFd;

use gelid_sys::aside::aside;
use gelid_sys::clone::flags;
use gelid_sys::namespace::join;
use gelid_sys::prctl::{PR_SET_DUMPABLE, PR_SET_SECUREBITS};
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::proc::{self, TaskDir};
use gelid_sys::ptrace::Stopped;
use gelid_sys::syscall::nr;
use gelid_sys::{Errno, Pid};
use gelid_tape::Arg;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::Births;
use super::taken::taken;
use crate::Error;
use crate::plan::births::{Step, Who};
use crate::plan::tree::Node;
use crate::plan::{Life, Plan};
use crate::play::crew::Crew;
use crate::play::namespaces::below;
use crate::play::script::{Object, Script};

/// How often a number may be taken by somebody else.
pub(crate) const PATIENCE: usize = 500;
/// `SECBIT_NO_SETUID_FIXUP`
const NO_SETUID_FIXUP: u64 = 1 << 2;
const KEEP: Arg = Arg::Value(u64::MAX);
const FILE: &str = "/proc/sys/kernel/ns_last_pid";

/// Who the root of the tree is while it bears others.
struct Own {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    bits: u64,
}

impl Own {
    fn of(plan: &Plan) -> Self {
        if plan.namespaces.user.is_some() {
            let (uid, gid, groups) = plan.creds_at_birth();
            return Self {
                uid,
                gid,
                groups,
                bits: 0,
            };
        }
        let groups = rustix::process::getgroups().unwrap_or_default();
        let bits = rustix::thread::capabilities_secure_bits();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(|gid| gid.as_raw()).collect(),
            bits: bits.map_or(0, |bits| bits.bits().into()),
        }
    }
}

/// As whom a task is to bear the first of a user namespace, if not as itself.
struct Guise<'a> {
    own: Own,
    creator: u32,
    gids: [u32; 4],
    groups: &'a [u32],
}

impl Guise<'_> {
    fn put_on(&self, script: &mut Script) {
        let bits = self.own.bits | NO_SETUID_FIXUP;
        let args = [PR_SET_SECUREBITS, bits, 0, 0, 0].map(Arg::Value);
        script.must(Object::Itself, nr::prctl, args);
        set_groups(script, self.groups);
        let [real, effective, saved, _] = self.gids.map(|id| Arg::Value(id.into()));
        script.must(Object::Itself, nr::setresgid, [real, effective, saved]);
        let creator = Arg::Value(self.creator.into());
        script.must(Object::Itself, nr::setresuid, [KEEP, creator, KEEP]);
        let args = [PR_SET_DUMPABLE, 1, 0, 0, 0].map(Arg::Value);
        script.must(Object::Itself, nr::prctl, args);
    }

    fn put_off(&self, script: &mut Script) {
        let uid = Arg::Value(self.own.uid.into());
        script.must(Object::Itself, nr::setresuid, [KEEP, uid, KEEP]);
        let gid = Arg::Value(self.own.gid.into());
        script.must(Object::Itself, nr::setresgid, [gid; 3]);
        set_groups(script, &self.own.groups);
        let args = [PR_SET_SECUREBITS, self.own.bits, 0, 0, 0].map(Arg::Value);
        script.must(Object::Itself, nr::prctl, args);
        let args = [PR_SET_DUMPABLE, 1, 0, 0, 0].map(Arg::Value);
        script.must(Object::Itself, nr::prctl, args);
    }
}

fn set_groups(script: &mut Script, groups: &[u32]) {
    let bytes: Vec<u8> = groups.iter().flat_map(|id| id.to_ne_bytes()).collect();
    let data = script.bytes(&bytes);
    let args = [(groups.len() as u64).into(), data.into()];
    script.must(Object::Itself, nr::setgroups, args);
}

impl Births<'_> {
    /// Appends what has to be so when a child is born that a user namespace comes with; gives the flag for that.
    pub(super) fn before_users(&self, child: Who, script: &mut Script) -> u64 {
        let Who::Task(index) = child else { return 0 };
        if !self.plan.births.users(index).is_first {
            return 0;
        }
        if let Some(guise) = self.guise(index) {
            guise.put_on(script);
        }
        let namespaces = &self.plan.namespaces;
        let users = self.plan.births.users(index).born;
        if let Some(id) = users.filter(|id| namespaces.users_above(*id).is_some()) {
            below::become_creator(self.plan, id, script);
            below::stay_visible(script);
        }
        flags::NEWUSER
    }

    /// Takes that back.
    pub(super) fn after_users(&self, child: Who, script: &mut Script) {
        if let Who::Task(index) = child
            && let Some(guise) = self.guise(index)
        {
            guise.put_off(script);
        }
    }

    fn guise(&self, index: usize) -> Option<Guise<'_>> {
        let users = self.plan.births.users(index);
        let below = self.plan.namespaces.below.get(&users.born?)?;
        // Whoever is below already is nobody else.
        if !users.is_first || below.parent.is_some() {
            return None;
        }
        let own = Own::of(self.plan);
        let (gids, groups) = match &self.plan.lives[index] {
            Life::Zombie { .. } => ([own.gid; 4], None),
            Life::Alive(alive) => match alive.threads[0].state.ids() {
                Some((_, gids, groups)) => (gids, Some(groups)),
                None => ([own.gid; 4], None),
            },
        };
        let groups = groups.unwrap_or_default();
        let mut sorted = own.groups.clone();
        sorted.sort_unstable();
        let is_same =
            own.uid == below.creator && gids == [own.gid; 4] && groups == sorted.as_slice();
        (!is_same).then_some(Guise {
            own,
            creator: below.creator,
            gids,
            groups,
        })
    }

    /// Tells those in a user namespace that has come with a child who they are.
    pub(super) fn tell_users(&mut self, parent: Who, child: Who) -> Result<(), Error> {
        let Who::Task(index) = child else {
            return Ok(());
        };
        let users = self.plan.births.users(index);
        let Some(id) = users.born.filter(|_| users.is_first) else {
            return Ok(());
        };
        let pid = self.crew.body(child)?.pid;
        below::tell(self.plan, id, (pid, parent), self.crew)
    }

    /// Plays the steps of those who are below, one after the other; returns whom they have created.
    pub(super) fn bear_weakly(&mut self, all: &[(Who, &[Step])]) -> Result<Vec<Who>, Error> {
        let mut born = Vec::new();
        for (who, steps) in all {
            let users = self.plan.births.users_of(*who);
            if users.is_none() {
                continue;
            }
            if let Who::Task(index) = *who {
                let mut script = Script::default();
                below::enter_early(self.plan, index, self.further, &mut script);
                if !script.tape.is_empty() {
                    self.crew.play(&[(*who, script)])?;
                }
            }
            for (place, step) in steps.iter().enumerate() {
                let script = || self.script(*who, std::slice::from_ref(step), place == 0);
                match step {
                    Step::SetSid => {
                        let (script, _) = script();
                        self.crew.play(&[(*who, script)])?;
                    }
                    Step::Fork { child, .. } => {
                        let wanted = self.wanted(*child, users);
                        self.bear_one(*who, *child, &wanted)?;
                        born.push(*child);
                    }
                }
            }
        }
        Ok(born)
    }

    /// The numbers of a child above what its creator may give.
    fn wanted(&self, child: Who, users: Option<u32>) -> Wanted {
        let namespaces = &self.plan.namespaces;
        let (node, numbers) = match child {
            Who::Task(index) => (&self.plan.nodes[index], self.numbers(child)),
            Who::Helper(index) => {
                let parent = self.plan.births.helpers[index].parent;
                (&self.plan.nodes[parent], self.numbers(child))
            }
        };
        Wanted::new(
            self.plan,
            node,
            numbers,
            node.numbers_given_by(users, namespaces),
        )
    }

    /// The numbers of a child that its creator gives.
    pub(super) fn numbers_given(&self, who: Who, child: Who) -> Vec<i32> {
        match self.plan.births.users_of(who) {
            None => self.numbers(child),
            users => self.wanted(child, users).to_be_given().to_vec(),
        }
    }

    fn bear_one(&mut self, parent: Who, child: Who, wanted: &Wanted) -> Result<(), Error> {
        let level = self.level(parent);
        let steps: Vec<Step> = self.steps_of(parent, child);
        for first in (0..PATIENCE).map(|time| time == 0) {
            let (script, forks) = self.script(parent, &steps, first);
            let announced = wanted.announce(self.crew)?;
            let outcomes = self.crew.play(&[(parent, script)])?;
            drop(announced);
            let Some((fork, outcome)) = forks.first().zip(outcomes.first()) else {
                break;
            };
            let seen = outcome.ok(fork.op).unwrap_or_default();
            let seen = i32::try_from(seen).unwrap_or_default();
            let task = self.crew.newborn_inside(seen, level)?;
            if wanted.is_met(&task)? {
                let raw = wanted.own().unwrap_or(seen);
                self.put_on_board(parent, fork, task, raw)?;
                return self.tell_users(parent, child);
            }
            self.crew.end_child(parent, task.pid(), seen)?;
        }
        Err(taken(wanted.outermost(), self.crew.pid_namespace()))
    }

    fn steps_of(&self, parent: Who, wanted: Who) -> Vec<Step> {
        let births = &self.plan.births;
        let early = births.early_steps(parent).iter();
        let all = early.chain(births.late_steps(parent));
        let is_it = |step: &&Step| matches!(step, Step::Fork { child, .. } if *child == wanted);
        all.filter(is_it).take(1).copied().collect()
    }
}

/// Numbers that somebody is to have.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// From the innermost pid namespace on; none where any will do.
    numbers: Vec<i32>,
    /// How many of these its creator gives.
    given: usize,
    /// Their pid namespaces, as the number of the first process there; none for that of the root.
    inits: Vec<Option<i32>>,
}

impl Wanted {
    /// Those of somebody in the pid namespace of a task.
    pub(crate) fn new(plan: &Plan, node: &Node, numbers: Vec<i32>, given: usize) -> Self {
        let above = |id: &u32| plan.namespaces.pid_ns_above(*id).flatten();
        let inits = std::iter::successors(node.pid_ns(), above).take(numbers.len());
        let init = |id: u32| {
            let init = plan.nodes.iter().find(|node| node.begins(id));
            init.map(|init| init.pid)
        };
        let mut inits: Vec<Option<i32>> = inits.map(init).collect();
        inits.resize(numbers.len(), None);
        Self {
            numbers,
            given,
            inits,
        }
    }

    /// Says in all pid namespaces above what the creator gives which number comes next. What is returned takes that back
    /// in the one of this process, where others would get numbers that are still remembered.
    pub(crate) fn announce(&self, crew: &mut Crew) -> Result<Option<Announced>, Error> {
        let mut announced = None;
        for (number, init) in self.numbers.iter().zip(&self.inits).skip(self.given) {
            let init = match init {
                Some(init) => crew.pid_of(*init),
                None => crew.inside(),
            };
            let set = announce(*number - 1, init);
            let set = set.map_err(|errno| Error::Task {
                operation: "setting the last pid for",
                pid: *number,
                errno,
            })?;
            announced = announced.or(set);
        }
        Ok(announced)
    }

    /// Those that the creator gives.
    pub(crate) fn to_be_given(&self) -> &[i32] {
        self.numbers.get(..self.given).unwrap_or_default()
    }

    /// Whether somebody has all of them.
    pub(crate) fn is_met(&self, task: &Stopped) -> Result<bool, Error> {
        let found = proc::status::read(&TaskDir::open(task.pid())?)?.ns_pid;
        let mut pairs = found.iter().rev().zip(&self.numbers);
        Ok(pairs.all(|(found, wanted)| found == wanted))
    }

    /// How it calls itself.
    pub(crate) fn own(&self) -> Option<i32> {
        self.numbers.first().copied()
    }

    /// The number in images.
    pub(crate) fn outermost(&self) -> i32 {
        self.numbers.last().copied().unwrap_or_default()
    }
}

/// A number that has been announced where this process is; dropped, the one that was given last before that counts.
#[derive(Debug)]
pub(crate) struct Announced {
    file: OwnedFd,
    before: Vec<u8>,
}

impl Drop for Announced {
    fn drop(&mut self) {
        // If not, numbers that were given a moment ago are given again, as on any busy machine.
        let _ = rustix::io::pwrite(&self.file, &self.before, 0);
    }
}

/// Sets which number was given last, in the pid namespace of a process or in that of this one.
fn announce(last: i32, init: Option<Pid>) -> Result<Option<Announced>, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let file: OwnedFd = match rustix::fs::open(FILE, flags, Mode::empty()) {
        // Not every kernel lets it be set.
        Err(Errno::NOENT) => return Ok(None),
        file => file?,
    };
    let text = last.to_string();
    let write = || rustix::io::pwrite(&file, text.as_bytes(), 0).map(drop);
    let Some(init) = init else {
        // Another restore would take for the last one what this one has set, or the other way round.
        flock(&file, FlockOperation::LockExclusive)?;
        let mut before = vec![0; 16];
        let len = rustix::io::pread(&file, &mut before, 0)?;
        before.truncate(len);
        write()?;
        return Ok(Some(Announced { file, before }));
    };
    let open = |pid| TaskDir::open(pid).and_then(|dir| ns::open(&dir, Kind::Pid));
    let lost = |_| Errno::SRCH;
    let own = open(rustix::process::getpid()).map_err(lost)?;
    let there = open(init).map_err(lost)?;
    join(&there, Kind::Pid)?;
    let written = aside(write);
    join(&own, Kind::Pid)?;
    written.map(|()| None)
}
