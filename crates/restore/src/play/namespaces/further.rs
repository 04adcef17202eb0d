//! Namespaces of tasks beyond the root's: made before these are born, by somebody in the root's, and joined one by one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use gelid_sys::Errno;
use gelid_sys::clone::flags::NEWTIME;
use gelid_sys::namespace;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::syscall::nr;

use super::super::cgroup::Groups;
use super::super::crew::Crew;
use super::super::script::{Object, Script};
use super::maker::Maker;
use super::{Stage, time, uts};
use crate::Error;
use crate::plan::births::Who;
use crate::plan::namespaces::further;
use crate::plan::{Life, Plan};

/// Descriptors of namespaces, by kind and number; none for that of the restorer.
#[derive(Debug, Default)]
pub(crate) struct Made(BTreeMap<(Kind, Option<u32>), OwnedFd>);

/// Makes all of them. Their descriptors are from `base` on, so that tasks inherit them.
pub(super) fn make(
    groups: &Groups,
    stage: &mut Stage<'_>,
    base: i32,
    made: &mut Made,
) -> Result<(), Error> {
    let plan = stage.plan;
    let further = &plan.namespaces.further;
    let new = |one: &(Kind, Option<u32>)| !made.0.contains_key(one);
    let (agents, all): (Vec<_>, Vec<_>) = {
        let agent = |id: Option<u32>| {
            let owner = id.and_then(|id| plan.namespaces.owner(id));
            owner.map(|owner| stage.agents.get(&owner).copied())
        };
        let wanted = further.to_be_made().filter(new);
        let wanted = wanted.map(|(kind, id)| (agent(id), (kind, id)));
        // Those of user namespaces that are not there yet come later.
        let wanted = wanted.filter(|(agent, _)| !matches!(agent, Some(None)));
        wanted.map(|(agent, one)| (agent.flatten(), one)).unzip()
    };
    if all.is_empty() {
        return Ok(());
    }
    let own = Maker::born(stage, 0)?;
    let root = plan.cgroups.threads.get(&plan.root()).copied();
    let mut places = BTreeMap::new();
    for (agent, (kind, id)) in agents.into_iter().zip(all) {
        let maker = agent.unwrap_or(own);
        let namespace = match id {
            None => ns::open(&TaskDir::open(rustix::process::getpid())?, kind)?,
            Some(id) => {
                if kind == Kind::Cgroup {
                    // It begins where its first process is.
                    let beginning = plan.cgroups.beginnings.get(&id).copied();
                    let pid = maker.pid.as_raw_pid();
                    let place = places.insert(pid, beginning).unwrap_or(root);
                    groups.enter(&plan.cgroups, pid, place, beginning)?;
                }
                maker.make(stage, kind)?;
                if let Some(clocks) = further.clocks.get(&id).filter(|_| kind == Kind::Time) {
                    time::set(clocks, maker.pid)?;
                }
                let namespace = maker.open(kind)?;
                if let Some(names) = further.uts.get(&id).filter(|_| kind == Kind::Uts) {
                    inside(stage, &namespace, kind, || uts::make(names, stage))?;
                }
                namespace
            }
        };
        let namespace = rustix::io::fcntl_dupfd_cloexec(namespace, base);
        let namespace = namespace.map_err(stage.failed("holding a namespace"))?;
        made.0.insert((kind, id), namespace);
    }
    own.end(stage)
}

/// Runs something in a thread that has joined a namespace.
fn inside<T: Send>(
    stage: &Stage<'_>,
    namespace: &OwnedFd,
    kind: Kind,
    job: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    namespace::inside(namespace, kind, stage.failed("setns"), job)
}

impl Made {
    /// Adds one, whose descriptor is from `base` on.
    pub(super) fn add(
        &mut self,
        (kind, id): (Kind, u32),
        namespace: OwnedFd,
        base: i32,
    ) -> Result<(), Errno> {
        let namespace = rustix::io::fcntl_dupfd_cloexec(namespace, base)?;
        self.0.insert((kind, Some(id)), namespace);
        Ok(())
    }

    /// The number of the descriptor of a user namespace.
    pub(crate) fn users(&self, id: u32) -> Option<i32> {
        let found = self.0.get(&(Kind::User, Some(id)));
        found.map(AsRawFd::as_raw_fd)
    }

    /// Numbers of descriptors that are needed when tables of descriptors are filled already.
    pub(crate) fn kept(&self) -> Vec<i32> {
        let kept = self.of(Kind::User).map(|(_, fd)| fd.as_raw_fd());
        kept.collect()
    }

    /// Opens those of a kind, with their numbers.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        let all = self.0.iter().filter(move |((other, _), _)| *other == kind);
        all.filter_map(|((_, id), fd)| Some(((*id)?, fd.as_fd())))
    }

    /// One of them.
    pub(crate) fn one(&self, kind: Kind, id: u32) -> Option<BorrowedFd<'_>> {
        self.0.get(&(kind, Some(id))).map(AsFd::as_fd)
    }

    /// Has a task join those of some kinds, where these are not the root's.
    fn join(&self, plan: &Plan, index: usize, kinds: &[Kind]) -> Script {
        let mut script = Script::default();
        if let Life::Alive(alive) = &plan.lives[index] {
            let wanted = alive
                .further
                .iter()
                .filter(|(kind, _)| kinds.contains(kind));
            for (kind, id) in wanted {
                if let Some(found) = self.0.get(&(*kind, *id)) {
                    let args = [found.as_raw_fd().into(), namespace::flag(*kind).into()];
                    script.must(Object::Itself, nr::setns, args);
                }
            }
        }
        script
    }

    /// Has tasks that are born, and bear nobody yet, leave to their children what clocks these are to have.
    pub(crate) fn leave_clocks(
        &self,
        plan: &Plan,
        wave: &[Who],
        crew: &mut Crew,
    ) -> Result<(), Error> {
        for who in wave {
            let Who::Task(index) = who else { continue };
            let Some((_, clocks)) = plan.clocks_left(*index) else {
                continue;
            };
            let mut script = self.join(plan, *index, &[Kind::Time]);
            script.must(Object::Itself, nr::unshare, [NEWTIME.into()]);
            crew.play(&[(*who, script)])?;
            time::set(clocks, crew.body(*who)?.pid)?;
        }
        Ok(())
    }

    /// Has tasks join their namespaces, once all are born.
    pub(crate) fn scatter(&self, plan: &Plan, crew: &mut Crew) -> Result<(), Error> {
        if !plan.namespaces.further.any() {
            return Ok(());
        }
        let mut work = Vec::new();
        for index in 0..plan.lives.len() {
            let kinds: &[Kind] = match plan.clocks_left(index) {
                // It has been among its clocks before it left others.
                Some(_) => &[Kind::Uts, Kind::Ipc, Kind::Cgroup],
                None => &further::KINDS,
            };
            let script = self.join(plan, index, kinds);
            if !script.tape.is_empty() {
                work.push((Who::Task(index), script));
            }
        }
        crew.play(&work)?;
        check_clocks(plan, crew)
    }
}

/// Sees that those have the same clocks that had: some have inherited them.
fn check_clocks(plan: &Plan, crew: &mut Crew) -> Result<(), Error> {
    let mut seen: BTreeMap<Option<u32>, u64> = BTreeMap::new();
    for (index, life) in plan.lives.iter().enumerate() {
        let Life::Alive(alive) = life else { continue };
        let pid = crew.body(Who::Task(index))?.pid;
        let mut of = alive.further.iter();
        let id = of.find(|(kind, _)| *kind == Kind::Time);
        let id = id.map_or(plan.namespaces.root(Kind::Time), |(_, id)| *id);
        let task = TaskDir::open(pid)?;
        let of_children = alive.clocks_for_children.or(id);
        for (id, kind) in [(id, Kind::Time), (of_children, Kind::TimeForChildren)] {
            let inode = ns::id(&task, kind)?;
            if *seen.entry(id).or_insert(inode) != inode {
                return Err(Error::Task {
                    operation: "giving its clocks to",
                    pid: pid.as_raw_pid(),
                    errno: Errno::XDEV,
                });
            }
        }
    }
    Ok(())
}
