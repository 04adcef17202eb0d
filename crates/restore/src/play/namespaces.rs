//! New namespaces are filled. The root of the tree is in them already, and is the hand that does what only somebody
//! inside can do; everything else is done by this thread, which joins those that it can.

pub(crate) mod below;
pub(crate) mod further;
mod hand;
pub(crate) mod joined;
mod keeper;
mod maker;
pub(crate) mod mnt;
pub(crate) mod net;
pub(crate) mod time;
mod user;
mod uts;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use gelid_image::Dir;
use gelid_sys::clone::flags;
use gelid_sys::namespace::{self, join};
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::syscall::nr;
use gelid_sys::{Errno, Pid, pidfd};
use gelid_tape::Outcome;
use rustix::fs::{Mode, OFlags};

use self::below::Keepers;
use self::further::Made;
pub(crate) use self::hand::Hand;
use self::keeper::Keeper;
use self::maker::Maker;
use super::births;
use super::cgroup::Groups;
use super::crew::Crew;
use super::script::{Object, Script};
use crate::files::Mounted;
use crate::plan::births::Who;
use crate::plan::cgroup::BEGINNING;
use crate::plan::{Life, Plan};
use crate::{Error, Hook, Options};

/// What the makers of namespaces work with.
pub(crate) struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    crew: &'a mut Crew,
    root: Pid,
    /// Who makes what belongs to user namespaces below the root's, by these.
    agents: BTreeMap<u32, Maker>,
}

impl Stage<'_> {
    /// The root of the tree, as this process sees it.
    pub(crate) fn pid(&self) -> Pid {
        self.root
    }

    /// Has the root make system calls. It is in all of the new namespaces and may do everything there, and has the
    /// descriptors of this process.
    pub(crate) fn hand(&mut self, script: Script) -> Result<Outcome, Error> {
        self.hand_of(Who::Task(0), script)
    }

    /// The same for another task that has been born by now.
    fn hand_of(&mut self, who: Who, script: Script) -> Result<Outcome, Error> {
        let outcomes = self.crew.play(&[(who, script)])?;
        outcomes.into_iter().next().ok_or(Error::Task {
            operation: "playing a tape",
            pid: self.root.as_raw_pid(),
            errno: Errno::SRCH,
        })
    }

    /// Takes over a descriptor that the root has opened.
    pub(crate) fn take(&mut self, number: u64) -> Result<OwnedFd, Error> {
        let number = i32::try_from(number).unwrap_or(-1);
        let taken = pidfd::open(self.root).and_then(|root| pidfd::getfd(root, number));
        let taken = taken.map_err(self.failed("pidfd_getfd"))?;
        let mut script = Script::default();
        script.must(Object::Descriptor(number), nr::close, [number.into()]);
        self.hand(script)?;
        Ok(taken)
    }

    /// The context of a file system that belongs to the new namespaces.
    pub(crate) fn fsopen(&mut self, kind: &CStr) -> Result<OwnedFd, Error> {
        self.fsopen_by(Who::Task(0), kind)
    }

    /// The same for the namespaces of another task that has been born by now.
    pub(crate) fn fsopen_by(&mut self, who: Who, kind: &CStr) -> Result<OwnedFd, Error> {
        const FSOPEN_CLOEXEC: u64 = 1;
        let mut script = Script::default();
        let name = script.bytes(kind.to_bytes_with_nul());
        let args = [name.into(), FSOPEN_CLOEXEC.into()];
        let op = script.must(Object::Itself, nr::fsopen, args);
        // It has the descriptors of this process, as the root has.
        let outcome = self.hand_of(who, script)?;
        self.take(outcome.ok(op).unwrap_or(u64::MAX))
    }

    /// The same for a user namespace below the root's.
    fn fsopen_in(&mut self, users: u32, kind: &CStr) -> Result<OwnedFd, Error> {
        let agent = self.agents.get(&users).copied();
        let nobody = self.failed("opening a file system for nobody");
        let agent = agent.ok_or_else(|| nobody(Errno::SRCH))?;
        let inode = |namespace| namespace::inode(namespace).map_err(self.failed("fstat"));
        if inode(agent.open(Kind::Mnt)?)? == inode(self.open(Kind::Mnt)?)? {
            // It opens none where mounts belong to somebody above, and may have had no others to make.
            agent.make(self, Kind::Mnt)?;
        }
        self.fsopen_by(agent.who, kind)
    }

    /// Makes a namespace of a kind that the root is not to be in, for the user namespace that it belongs to. `own` is that
    /// of the root.
    pub(super) fn make(&mut self, kind: Kind, id: u32, own: &OwnedFd) -> Result<OwnedFd, Error> {
        let owner = self.plan.namespaces.owner(id);
        if let Some(agent) = owner.and_then(|owner| self.agents.get(&owner)).copied() {
            agent.make(self, kind)?;
            return agent.open(kind);
        }
        let flag = namespace::flag(kind);
        let mut script = Script::default();
        script.must(Object::Itself, nr::unshare, [flag.into()]);
        self.hand(script)?;
        let made = self.open(kind)?;
        let mut script = Script::default();
        let number = own.as_raw_fd();
        let args = [number.into(), flag.into()];
        script.must(Object::Descriptor(number), nr::setns, args);
        self.hand(script)?;
        Ok(made)
    }

    /// Brings a task that was born below the root's user namespace to mounts of its own there, until it gets those that
    /// it is to have: above them it may open no file system.
    fn leave_mounts(&mut self, index: usize) -> Result<(), Error> {
        let Life::Alive(alive) = &self.plan.lives[index] else {
            return Ok(());
        };
        let is_below = self.plan.births.users(index).born.is_some();
        if !is_below || alive.mount_namespace.is_none() {
            return Ok(());
        }
        let mut script = Script::default();
        script.must(Object::Itself, nr::unshare, [flags::NEWNS.into()]);
        self.hand_of(Who::Task(index), script).map(drop)
    }

    /// Opens one of the root's namespaces.
    pub(crate) fn open(&self, kind: Kind) -> Result<OwnedFd, Error> {
        Ok(ns::open(&TaskDir::open(self.root)?, kind)?)
    }

    /// Writes a file of the root in procfs.
    pub(crate) fn write(&self, file: &'static str, text: &[u8]) -> Result<(), Error> {
        write(self.root, file, text)
    }

    /// Runs something in a thread that has joined the root's namespaces of these kinds.
    pub(crate) fn inside<T: Send>(
        &self,
        kinds: &[Kind],
        job: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let namespaces: Result<Vec<_>, Error> = kinds
            .iter()
            .map(|kind| Ok((*kind, self.open(*kind)?)))
            .collect();
        let namespaces = namespaces?;
        let failed = self.failed("setns");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                for (kind, namespace) in &namespaces {
                    join(namespace, *kind).map_err(&failed)?;
                }
                job()
            });
            thread.join().unwrap_or_else(|_| Err(failed(Errno::IO)))
        })
    }

    fn failed(&self, operation: &'static str) -> impl Fn(Errno) -> Error + use<> {
        let pid = self.root.as_raw_pid();
        move |errno| Error::Task {
            operation,
            pid,
            errno,
        }
    }
}

/// Writes a file of a process in procfs.
fn write(process: Pid, file: &'static str, text: &[u8]) -> Result<(), Error> {
    let task = TaskDir::open(process)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&task, file, flags, Mode::empty());
    let written = opened.and_then(|opened| rustix::io::write(&opened, text));
    written.map(drop).map_err(|errno| Error::Task {
        operation: file,
        pid: process.as_raw_pid(),
        errno,
    })
}

/// What has come with namespaces.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    pub(crate) mounted: Option<Mounted>,
    pub(crate) keeper: Option<Keeper>,
    pub(crate) keepers: Keepers,
    pub(crate) further: Made,
}

/// Fills the namespaces of a tree whose root has just been born.
pub(crate) fn make(
    plan: &Plan,
    (dir, options, base): (&Dir, &Options, i32),
    groups: &Groups,
    networks: &mut net::Making,
    crew: &mut Crew,
) -> Result<Filled, Error> {
    let root = crew.root()?;
    let mut stage = Stage {
        plan,
        crew,
        root,
        agents: BTreeMap::new(),
    };
    if let Some(users) = &plan.namespaces.user {
        user::make(users, &mut stage)?;
    }
    if let Some(users) = plan.namespaces.outside() {
        // Pipes and the like are theirs.
        let (uid, gid) = (users.first_uid(), users.first_gid());
        if let (Some(uid), Some(gid)) = (uid, gid) {
            let owned = namespace::make_files_as(users.uid(uid), users.gid(gid));
            owned.map_err(stage.failed("setfsuid"))?;
        }
    }
    options
        .hooks
        .tell(Hook::SetupNamespaces, root.as_raw_pid())?;
    if plan.namespaces.root(Kind::Cgroup).is_some() {
        // It begins where its first process is.
        let enter = |from, to| groups.enter(&plan.cgroups, root.as_raw_pid(), from, to);
        let has_beginning = plan.cgroups.sets.contains_key(&BEGINNING);
        let beginning = has_beginning.then_some(BEGINNING);
        let own = plan.cgroups.threads.get(&plan.root()).copied();
        enter(None, beginning)?;
        let mut script = Script::default();
        script.must(Object::Itself, nr::unshare, [flags::NEWCGROUP.into()]);
        stage.hand(script)?;
        enter(beginning, own)?;
    } else {
        births::root::enter(plan, groups, stage.crew)?;
    }
    if let Some(clocks) = &plan.namespaces.time {
        time::make(clocks, &mut stage)?;
    }
    joined::bring(&options.join, &mut stage)?;
    // Sockets, queues and settings are those of the namespaces that this thread is in.
    for kind in [Kind::Uts, Kind::Ipc, Kind::Net] {
        if plan.namespaces.root(kind).is_some() {
            join(stage.open(kind)?, kind).map_err(stage.failed("setns"))?;
        }
    }
    let mut further = Made::default();
    joined::hold_users(plan, &options.join, base, &mut further)?;
    below::make(&mut stage, base, &mut further)?;
    further::make(groups, &mut stage, base, &mut further)?;
    births::early::bear(plan, &mut further, base, stage.crew)?;
    // Some user namespaces have come with those who were born.
    below::make(&mut stage, base, &mut further)?;
    further::make(groups, &mut stage, base, &mut further)?;
    networks.make(options, &mut stage)?;
    if let Some(names) = &plan.namespaces.uts {
        uts::make(names, &stage)?;
    }
    let mounts = plan.namespaces.mounts.as_ref();
    let others = networks.made();
    let mounted =
        mounts.map(|mounts| mnt::make(mounts, &mut stage, (dir, base), (&others, &further)));
    let mounted = mounted.transpose()?;
    let keepers = Keepers::of(&mut stage, base)?;
    if let Some(mounted) = &mounted {
        births::early::enter_root(mounted, stage.crew)?;
    }
    let users = plan.namespaces.user.as_ref();
    let keeper = users.map(|_| Keeper::born(&mut stage)).transpose()?;
    options
        .hooks
        .tell(Hook::PostSetupNamespaces, root.as_raw_pid())?;
    Ok(Filled {
        mounted,
        keeper,
        keepers,
        further,
    })
}

/// Where processes are born that stand in for those of the tree.
#[derive(Debug)]
pub(crate) struct Birthplace {
    tree: OwnedFd,
    own: OwnedFd,
    /// The procfs of the tree is that of this process, where processes have the numbers that this process sees.
    pub(crate) by_own_proc: bool,
}

impl Birthplace {
    /// The pid namespace of the tree, if it is not that of this process.
    pub(crate) fn of(plan: &Plan, crew: &mut Crew) -> Result<Option<Self>, Error> {
        if !plan.has_numbers() {
            return Ok(None);
        }
        let tree = ns::open(&TaskDir::open(crew.root()?)?, Kind::Pid)?;
        Self::at(tree, plan).map(Some)
    }

    /// One that is there already.
    fn at(tree: OwnedFd, plan: &Plan) -> Result<Self, Error> {
        Ok(Self {
            tree,
            own: ns::open(&TaskDir::open(rustix::process::getpid())?, Kind::Pid)?,
            by_own_proc: plan.namespaces.root(Kind::Mnt).is_none(),
        })
    }

    /// What tells it from others.
    pub(crate) fn inode(&self) -> Option<u64> {
        namespace::inode(&self.tree).ok()
    }

    /// Has children of this thread born there until what is returned is dropped. No thread can be started meanwhile.
    pub(crate) fn enter(&self) -> Result<Inside<'_>, Errno> {
        join(self.tree.as_fd(), Kind::Pid)?;
        Ok(Inside(self))
    }
}

/// Children are born among the processes of the tree.
#[derive(Debug)]
pub(crate) struct Inside<'b>(&'b Birthplace);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // It is the thread's own, which it may join at any time; if not, the next thread or child cannot be made.
        let _ = join(self.0.own.as_fd(), Kind::Pid);
    }
}
