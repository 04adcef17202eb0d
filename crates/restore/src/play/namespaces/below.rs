//! User namespaces below that of the root: made by somebody in the one above, who tells those in there who they are.
//!
//! Tasks are born above them, where they may have any number, and enter them when everything is made that takes rights
//! above. Threads come after that: no process with several can enter one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use gelid_sys::Errno;
use gelid_sys::clone::flags::NEWUSER;
use gelid_sys::prctl::{PR_SET_DUMPABLE, PR_SET_SECUREBITS};
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::proc::{self, TaskDir};
use gelid_sys::syscall::nr;
use gelid_sys::{Pid, pidfd};
use gelid_tape::Arg;
use rustix::fs::OFlags;

use super::super::crew::Crew;
use super::super::script::{Object, Script};
use super::Stage;
use super::further::Made;
use super::maker::Maker;
use super::user::text;
use crate::Error;
use crate::plan::births::Who;
use crate::plan::{Life, Plan};
use crate::state::{Inside, Machine};

fn failed(operation: &'static str, pid: Pid) -> impl Fn(Errno) -> Error {
    let pid = pid.as_raw_pid();
    move |errno| Error::Task {
        operation,
        pid,
        errno,
    }
}

/// Makes those that do not come with a task, and has somebody in each of them that is there.
pub(super) fn make(stage: &mut Stage<'_>, base: i32, made: &mut Made) -> Result<(), Error> {
    let plan = stage.plan;
    let born: Vec<u32> = plan.births.first_users().collect();
    for id in plan.namespaces.users_in_order() {
        let parent = plan.namespaces.users_above(id);
        let waits = parent.is_some_and(|parent| made.users(parent).is_none());
        let comes_later = born.contains(&id) && made.users(id).is_none();
        if stage.agents.contains_key(&id) || waits || comes_later {
            continue;
        }
        let agent = Maker::born(stage, stage.agents.len() + 1)?;
        let enter = made
            .users(id)
            .or(parent.and_then(|parent| made.users(parent)));
        let mut script = Script::default();
        if let Some(number) = enter {
            enter_by(number, &mut script);
        }
        if made.users(id).is_none() {
            begin(plan, id, &mut script);
        }
        stay_visible(&mut script);
        agent.play(stage, script)?;
        if made.users(id).is_none() {
            let above = parent.and_then(|parent| stage.agents.get(&parent));
            let by = above.map_or(Who::Task(0), |agent| agent.who);
            tell(plan, id, (agent.pid, by), stage.crew)?;
            let namespace = agent.open(Kind::User)?;
            let added = made.add((Kind::User, id), namespace, base);
            added.map_err(failed("holding a user namespace", agent.pid))?;
        }
        stage.agents.insert(id, agent);
    }
    Ok(())
}

/// Those who have made what belongs to user namespaces: from them tasks there take descriptors, as from nobody above.
#[derive(Debug, Default)]
pub(crate) struct Keepers {
    all: Vec<Maker>,
    /// What they are known by, by user namespace.
    doors: BTreeMap<u32, OwnedFd>,
}

impl Keepers {
    /// Takes those who have done their work. What they are known by is at descriptors from `base` on.
    pub(super) fn of(stage: &mut Stage<'_>, base: i32) -> Result<Self, Error> {
        let mut keepers = Self::default();
        for (users, agent) in std::mem::take(&mut stage.agents) {
            agent.rest(stage);
            let failed = failed("keeping files for", agent.pid);
            let door = pidfd::open(agent.pid).map_err(&failed)?;
            let door = rustix::io::fcntl_dupfd_cloexec(door, base).map_err(failed)?;
            keepers.doors.insert(users, door);
            keepers.all.push(agent);
        }
        Ok(keepers)
    }

    /// The door for a task in one of them.
    pub(crate) fn door(&self, users: Option<u32>) -> Option<i32> {
        let door = users.and_then(|users| self.doors.get(&users));
        door.map(AsRawFd::as_raw_fd)
    }

    /// The door for what a task takes when it is no longer above its own.
    pub(crate) fn late_door(&self, life: &Life) -> Option<i32> {
        self.door(life.users())
    }

    /// Nobody is needed any more.
    pub(crate) fn end(self, crew: &mut Crew) -> Result<(), Error> {
        for agent in self.all {
            agent.end_resting(crew)?;
        }
        Ok(())
    }
}

fn enter_by(number: i32, script: &mut Script) {
    let args = [number.into(), NEWUSER.into()];
    script.must(Object::Itself, nr::setns, args);
}

/// A change of users has cleared it, and what nobody may look at has no maps to be written.
pub(crate) fn stay_visible(script: &mut Script) {
    let args = [PR_SET_DUMPABLE.into(), 1.into()];
    script.must(Object::Itself, nr::prctl, args);
}

/// Appends what makes a user namespace, as whoever has made it.
fn begin(plan: &Plan, id: u32, script: &mut Script) {
    become_creator(plan, id, script);
    script.must(Object::Itself, nr::unshare, [NEWUSER.into()]);
}

/// Appends what makes somebody the maker of a user namespace, who has to be known in the one above.
pub(crate) fn become_creator(plan: &Plan, id: u32, script: &mut Script) {
    const KEEP: Arg = Arg::Value(u64::MAX);
    let namespaces = &plan.namespaces;
    let Some(below) = namespaces.below.get(&id) else {
        return;
    };
    let above = below
        .parent
        .and_then(|parent| namespaces.below.get(&parent));
    let group = above.and_then(|above| above.maps.first_gid());
    if let Some(gid) = group {
        script.must(
            Object::Itself,
            nr::setresgid,
            [KEEP, u64::from(gid).into(), KEEP],
        );
    }
    if let Some(uid) = namespaces.uid_in(below.parent, below.creator) {
        const NO_SETUID_FIXUP: u64 = 1 << 2;
        let args = [PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0].map(Arg::Value);
        script.must(Object::Itself, nr::prctl, args);
        script.must(
            Object::Itself,
            nr::setresuid,
            [KEEP, u64::from(uid).into(), KEEP],
        );
    }
}

/// Tells the maps of a user namespace that a process is in, by somebody in the one above: nobody else may.
pub(crate) fn tell(
    plan: &Plan,
    id: u32,
    (process, by): (Pid, Who),
    crew: &mut Crew,
) -> Result<(), Error> {
    let Some((uids, gids)) = plan.namespaces.maps(id) else {
        return Ok(());
    };
    let below = plan.namespaces.below.get(&id);
    let denies = below.is_some_and(|below| below.maps.denies_groups);
    let dir = TaskDir::open(process)?;
    // With a denial, groups may be mapped by whoever may not set them.
    let denial: &[u8] = if denies { b"deny" } else { b"" };
    for (name, text) in [
        (b"uid_map\0".as_slice(), text(&uids).as_slice()),
        (b"setgroups\0", denial),
        (b"gid_map\0", text(&gids).as_slice()),
    ] {
        if !text.is_empty() {
            write((dir.as_fd(), name), text, by, crew)?;
        }
    }
    Ok(())
}

/// Has a task write a file; the directory is one that it and this process have in common.
fn write(
    (dir, name): (BorrowedFd<'_>, &[u8]),
    text: &[u8],
    by: Who,
    crew: &mut Crew,
) -> Result<(), Error> {
    let flags = u64::from((OFlags::WRONLY | OFlags::CLOEXEC).bits());
    let mut script = Script::default();
    let name = script.bytes(name);
    let args = [dir.as_raw_fd().into(), name.into(), flags.into()];
    let op = script.must(Object::Itself, nr::openat, args);
    let outcomes = crew.play(&[(by, script)])?;
    let opened = outcomes.first().and_then(|outcome| outcome.ok(op).ok());
    let opened = Arg::Value(opened.unwrap_or(u64::MAX));
    let mut script = Script::default();
    let data = script.bytes(text);
    let args = [opened, data.into(), (text.len() as u64).into()];
    script.must(Object::Itself, nr::write, args);
    script.must(Object::Itself, nr::close, [opened]);
    crew.play(&[(by, script)]).map(drop)
}

/// Takes note of the user namespace that has come with a task.
pub(crate) fn take(
    plan: &Plan,
    who: Who,
    made: &mut Made,
    base: i32,
    crew: &mut Crew,
) -> Result<(), Error> {
    let Who::Task(index) = who else { return Ok(()) };
    let users = plan.births.users(index);
    let Some(id) = users.born.filter(|_| users.is_first) else {
        return Ok(());
    };
    let pid = crew.body(who)?.pid;
    let namespace = ns::open(&TaskDir::open(pid)?, Kind::User)?;
    let added = made.add((Kind::User, id), namespace, base);
    added.map_err(failed("holding a user namespace", pid))
}

/// Appends what brings a task, which is to bear others there, to its user namespace before that.
pub(crate) fn enter_early(plan: &Plan, index: usize, made: &Made, script: &mut Script) {
    let users = plan.births.users(index);
    if users.bears != users.born
        && let Some(number) = users.bears.and_then(|id| made.users(id))
    {
        keep_groups(plan, index, script);
        enter_by(number, script);
        stay_visible(script);
    }
}

/// Appends what gives a task its groups while it can have them, as those will have whom it bears where nobody can.
fn keep_groups(plan: &Plan, index: usize, script: &mut Script) {
    let (users, namespaces) = (plan.births.users(index), &plan.namespaces);
    let below = users.bears.and_then(|id| namespaces.below.get(&id));
    let Life::Alive(alive) = &plan.lives[index] else {
        return;
    };
    if !below.is_some_and(|below| below.maps.denies_groups) {
        return;
    }
    let groups = alive.threads[0].state.groups();
    let groups = groups.iter().map(|gid| namespaces.gid_in(users.born, *gid));
    if let Some(groups) = groups.collect::<Option<Vec<u32>>>() {
        let bytes: Vec<u8> = groups.iter().flat_map(|id| id.to_ne_bytes()).collect();
        let data = script.bytes(&bytes);
        // It may be that it has them, and could not set them. That is seen to at the end.
        script.call(nr::setgroups, [(groups.len() as u64).into(), data.into()]);
    }
}

/// Has all tasks that live in one enter it, as those users that they are to be.
pub(crate) fn enter(
    plan: &Plan,
    made: &Made,
    machine: &Machine,
    crew: &mut Crew,
) -> Result<(), Error> {
    if plan.namespaces.below.is_empty() {
        return Ok(());
    }
    let (mut work, mut leave) = (Vec::new(), Vec::new());
    for (index, life) in plan.lives.iter().enumerate() {
        let Life::Alive(alive) = life else { continue };
        let who = Who::Task(index);
        let mut script = Script::default();
        for number in made.kept() {
            // Those who share a table close it but once.
            script.call(nr::close, [number.into()]);
        }
        leave.push((who, script));
        let Some(own) = alive.users else { continue };
        let now = plan.births.users(index).bears;
        let mut script = Script::default();
        let denies = |id: u32| plan.namespaces.below.get(&id);
        let denies = now.and_then(denies).is_some_and(|it| it.maps.denies_groups);
        let uid = |uid| plan.namespaces.uid_in(now, uid);
        let gid = |gid| plan.namespaces.gid_in(now, gid);
        let inside = now.map(|_| Inside {
            uid: &uid,
            gid: &gid,
            denies_groups: denies,
        });
        let state = &alive.threads[0].state;
        state.write_users(&mut script.tape, machine, inside.as_ref());
        if now != Some(own)
            && let Some(number) = made.users(own)
        {
            enter_by(number, &mut script);
        }
        stay_visible(&mut script);
        work.push((who, script));
    }
    crew.play(&work)?;
    crew.play(&leave)?;
    check(plan, crew)
}

/// Sees that all are who they are to be: somebody may have been born as another who is not known in there.
fn check(plan: &Plan, crew: &mut Crew) -> Result<(), Error> {
    let users = plan.namespaces.user.as_ref();
    for (index, life) in plan.lives.iter().enumerate() {
        let Life::Alive(alive) = life else { continue };
        if alive.users.is_none() {
            continue;
        }
        let Some((uids, gids, groups)) = alive.threads[0].state.ids() else {
            continue;
        };
        let uid = |id: u32| users.map_or(id, |users| users.uid(id));
        let gid = |id: u32| users.map_or(id, |users| users.gid(id));
        let pid = crew.body(Who::Task(index))?.pid;
        let mut status = proc::status::read(&TaskDir::open(pid)?)?;
        let mut groups: Vec<u32> = groups.iter().map(|id| gid(*id)).collect();
        groups.sort_unstable();
        status.groups.sort_unstable();
        if (uids.map(uid), gids.map(gid), groups) != (status.uid, status.gid, status.groups) {
            return Err(failed("giving users and groups to", pid)(Errno::PERM));
        }
    }
    Ok(())
}
