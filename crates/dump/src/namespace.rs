//! Namespaces of the tree: which there are, who is in which, and what is seen from inside. Sections 4.2 and 19 of
//! the format.

mod external;
mod ipc;
mod last;
mod links;
mod mnt;
mod nested;
pub(crate) mod net;
mod numbers;
mod time;
mod user;
mod users;
mod uts;

use std::os::fd::OwnedFd;

use gelid_image::messages::{GelidNamespaceEntry, TaskKobjIdsEntry};
use gelid_sys::ipc::shm::Segment;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::{Pid, proc};

use crate::records::Context;
use crate::survey::{Live, Task};
use crate::{Error, Options, Refusal};

pub(crate) use last::given as last_pid;
pub(crate) use links::{Kept, Links};
pub(crate) use mnt::{Automounter, MountTable};
pub use mnt::{MountRefusal, Mounts};
pub(crate) use nested::{ForChildren, Place, check_births, relate};
pub(crate) use numbers::{Number, Numbers, Users};
pub(crate) use time::check as check_clocks;
pub(crate) use users::check as check_users;

/// Kinds of which a task may have another than the root of its tree.
pub(crate) const NESTED: &[Kind] = &[
    Kind::Mnt,
    Kind::Net,
    Kind::Pid,
    Kind::Uts,
    Kind::Time,
    Kind::Cgroup,
    Kind::Ipc,
    Kind::User,
];

/// Kinds of which a task may be in the dumper's where the root is not.
const RETURNED: &[Kind] = &[Kind::Net, Kind::Uts, Kind::Time, Kind::Cgroup];

/// The kinds of namespace in the order of their ids.
const ORDER: [Kind; 8] = [
    Kind::Pid,
    Kind::Net,
    Kind::Ipc,
    Kind::Uts,
    Kind::Time,
    Kind::Mnt,
    Kind::User,
    Kind::Cgroup,
];

/// The namespaces of the dumper.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    inodes: [u64; 8],
}

impl Own {
    /// Those of the calling process.
    pub(crate) fn look() -> Result<Self, proc::Error> {
        let own = TaskDir::open(rustix::process::getpid())?;
        let inodes = inodes(&Links::free(&own))?;
        Ok(Self { inodes })
    }

    /// The inode of its namespace of a kind.
    pub(crate) fn inode(&self, kind: Kind) -> u64 {
        let place = ORDER.iter().position(|other| *other == kind);
        place.map_or(0, |place| self.inodes[place])
    }

    /// The ids of the dumper itself: number 1 of each kind of object.
    pub(crate) fn ids(&self) -> TaskKobjIdsEntry {
        let numbers = Instances::new(*self).own();
        entry([1; 4], numbers)
    }
}

/// What a single thread can leave without leaving the root and working directory that it shares, which is found
/// out by itself.
const LEFT_ALONE: [(Kind, &str); 4] = [
    (Kind::Net, "a network namespace"),
    (Kind::Ipc, "an ipc namespace"),
    (Kind::Uts, "a uts namespace"),
    (Kind::Cgroup, "a cgroup namespace"),
];

/// The namespaces that threads can leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OfThread([u64; 4]);

impl OfThread {
    /// Those of a thread, or of the leader of a process.
    pub(crate) fn look(thread: &TaskDir) -> Result<Self, proc::Error> {
        let mut inodes = [0; 4];
        for (inode, (kind, _)) in inodes.iter_mut().zip(LEFT_ALONE) {
            *inode = ns::id(thread, kind)?;
        }
        Ok(Self(inodes))
    }

    /// What is not the same.
    pub(crate) fn differs(self, other: Self) -> Option<&'static str> {
        let differs = |place: &usize| self.0[*place] != other.0[*place];
        (0..4).find(differs).map(|place| LEFT_ALONE[place].1)
    }
}

fn inodes(task: &Links<'_>) -> Result<[u64; 8], proc::Error> {
    let mut inodes = [0; 8];
    for (inode, kind) in inodes.iter_mut().zip(ORDER) {
        *inode = task.inode(kind)?;
    }
    Ok(inodes)
}

/// Ids of the tables of a task (memory, descriptors, directories, handlers) and of its namespaces.
pub(crate) fn entry(tables: [u32; 4], namespaces: [Option<u32>; 8]) -> TaskKobjIdsEntry {
    let [vm_id, files_id, fs_id, sighand_id] = tables;
    let [pid, net, ipc, uts, time, mnt, user, cgroup] = namespaces;
    TaskKobjIdsEntry {
        vm_id,
        files_id,
        fs_id,
        sighand_id,
        pid_ns_id: pid,
        net_ns_id: net,
        ipc_ns_id: ipc,
        uts_ns_id: uts,
        mnt_ns_id: mnt,
        user_ns_id: user,
        cgroup_ns_id: cgroup,
        time_ns_id: time,
        time_ns_for_children_id: None,
    }
}

/// A namespace of the tree that is not the dumper's.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) kind: Kind,
    /// Its number in images.
    pub(crate) id: u32,
    pub(crate) inode: u64,
    /// A process in it, as the dumper sees it.
    pub(crate) task: Pid,
    /// The root of the tree is in it.
    pub(crate) root: bool,
    /// For clocks: a process whose children are born in it.
    pub(crate) parent: Option<Pid>,
    /// Of a user namespace without a process: it is so many owners above this namespace of the process.
    above: Option<(Kind, usize)>,
}

impl Instance {
    /// A descriptor of it.
    pub(crate) fn open(&self) -> Result<OwnedFd, Error> {
        let task = TaskDir::open(self.task)?;
        let Some((kind, steps)) = self.above else {
            return Ok(ns::open(&task, self.kind)?);
        };
        let failed = |errno| Error::Join {
            pid: self.task,
            kind: self.kind.name(),
            errno,
        };
        let mut at = ns::open(&task, kind)?;
        for _ in 0..steps {
            at = gelid_sys::namespace::owner(at).map_err(failed)?;
        }
        Ok(at)
    }

    /// Runs something in a thread that has joined it, and nothing else: with all capabilities of the dumper.
    pub(crate) fn inside<T: Send>(
        &self,
        job: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let namespace = self.open()?;
        let (pid, kind) = (self.task, self.kind.name());
        let failed = |errno| Error::Join { pid, kind, errno };
        gelid_sys::namespace::inside(namespace, self.kind, failed, job)
    }
}

/// Gives out ids of namespaces.
#[derive(Debug)]
pub(crate) struct Instances {
    own: Own,
    met: Vec<Instance>,
    next: u32,
    /// A kind of which a task is in the dumper's, and the root is not.
    returned: Option<Kind>,
}

impl Instances {
    pub(crate) fn new(own: Own) -> Self {
        // Kinds that the kernel lacks take no number.
        let there = own.inodes.iter().filter(|inode| **inode != 0).count();
        Self {
            own,
            met: Vec::new(),
            next: there as u32 + 1,
            returned: None,
        }
    }

    /// The ids of the dumper's.
    fn own(&self) -> [Option<u32>; 8] {
        let mut next = 0;
        self.own.inodes.map(|inode| {
            (inode != 0).then(|| {
                next += 1;
                next
            })
        })
    }

    /// The ids of those of a process; the root comes first.
    pub(crate) fn of(
        &mut self,
        task: &Links<'_>,
        root: bool,
    ) -> Result<[Option<u32>; 8], proc::Error> {
        let inodes = inodes(task)?;
        let mut ids = self.own();
        for (place, inode) in inodes.into_iter().enumerate() {
            if inode == self.own.inodes[place] {
                let kind = ORDER[place];
                let left = |met: &Instance| met.root && met.kind == kind;
                if !RETURNED.contains(&kind) && self.met.iter().any(left) {
                    self.returned = Some(kind);
                }
                continue;
            }
            let known = self.met.iter().find(|instance| instance.inode == inode);
            ids[place] = Some(match known {
                Some(known) => known.id,
                None => self.meet(ORDER[place], inode, task.pid(), root),
            });
        }
        Ok(ids)
    }

    fn meet(&mut self, kind: Kind, inode: u64, task: Pid, root: bool) -> u32 {
        let id = self.next;
        self.next += 1;
        self.met.push(Instance {
            kind,
            id,
            inode,
            task,
            root,
            parent: None,
            above: None,
        });
        id
    }

    /// The time namespace that children of a process are born into, if it is not its own.
    pub(crate) fn for_children(
        &mut self,
        task: &Links<'_>,
        own: Option<u32>,
    ) -> Result<Option<u32>, proc::Error> {
        let inode = task.inode(Kind::TimeForChildren)?;
        if inode == self.own.inode(Kind::Time) {
            return Ok(None);
        }
        let known = self.met.iter().find(|instance| instance.inode == inode);
        let id = match known {
            Some(known) => known.id,
            None => self.meet(Kind::Time, inode, task.pid(), false),
        };
        let found = self.met.iter_mut().find(|instance| instance.id == id);
        if let Some(instance) = found {
            instance.parent.get_or_insert(task.pid());
        }
        Ok(Some(id).filter(|id| Some(*id) != own))
    }

    /// The first kind that cannot be dumped, since the root is in another.
    fn unsupported(&self) -> Option<Kind> {
        // Mounts are put together beside those of the root.
        let own_mounts = |one: &Instance| one.kind == Kind::Mnt && one.root;
        let has_mounts = self.met.iter().any(own_mounts);
        let nested = |instance: &&Instance| {
            let odd = instance.kind == Kind::Mnt && !has_mounts;
            !instance.root && (odd || !NESTED.contains(&instance.kind))
        };
        let nested = self.met.iter().find(nested).map(|found| found.kind);
        nested.or(self.returned)
    }

    /// The root has a pid namespace of its own.
    pub(crate) fn has_numbers(&self) -> bool {
        let pid = |instance: &Instance| instance.kind == Kind::Pid && instance.root;
        self.met.iter().any(pid)
    }

    /// The root has a user namespace of its own.
    pub(crate) fn has_users(&self) -> bool {
        let user = |instance: &Instance| instance.kind == Kind::User && instance.root;
        self.met.iter().any(user)
    }

    /// All that were met.
    pub(crate) fn into_met(self) -> Vec<Instance> {
        self.met
    }
}

/// What is known of the namespaces of a frozen tree.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) instances: Vec<Instance>,
    pub(crate) numbers: Numbers,
    pub(crate) users: Users,
    /// What is to be said of namespaces that are not the root's.
    pub(crate) nested: Vec<GelidNamespaceEntry>,
    /// The number given last in the root's own pid namespace.
    pub(crate) last_pid: Option<i32>,
}

impl Census {
    /// Those of a kind.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &Instance> {
        self.instances
            .iter()
            .filter(move |instance| instance.kind == kind)
    }

    /// Asks from among the processes of the tree, where numbers are the tree's own: by a child of the dumper. `None` where
    /// they are not others, or if that did not work.
    pub(crate) fn ask_inside<const N: usize>(
        &self,
        job: impl FnOnce() -> rustix::io::Result<[i32; N]> + Send,
    ) -> Option<[i32; N]> {
        let namespace = self.root(Kind::Pid)?;
        let asked = namespace.inside(|| Ok(gelid_sys::aside::ask(job)));
        asked.ok()?.ok()
    }

    /// The IPC namespace of a task, if it is not the dumper's.
    pub(crate) fn ipc_of(&self, task: &Task) -> Option<&Instance> {
        let id = task.live.as_ref()?.ids.ipc_ns_id?;
        self.of(Kind::Ipc).find(|instance| instance.id == id)
    }

    /// A task is in a user namespace below that of the root.
    pub(crate) fn is_below(&self, live: &Live) -> bool {
        let id = live.ids.user_ns_id;
        let mut below = self.of(Kind::User).filter(|users| !users.root);
        below.any(|users| Some(users.id) == id)
    }

    /// There are pid namespaces below that of the root.
    pub(crate) fn has_nested_numbers(&self) -> bool {
        self.of(Kind::Pid).any(|instance| !instance.root)
    }

    /// The number of a namespace of a kind, if it is neither the dumper's nor the root's.
    pub(crate) fn nested_by_inode(&self, kind: Kind, inode: u64) -> Option<u32> {
        let mut nested = self.of(kind).filter(|instance| !instance.root);
        let found = nested.find(|instance| instance.inode == inode);
        found.map(|instance| instance.id)
    }

    /// That of the root, if it is not the dumper's.
    pub(crate) fn root(&self, kind: Kind) -> Option<&Instance> {
        self.of(kind).find(|instance| instance.root)
    }
}

/// Refuses a root whose namespaces cannot be dumped, before it is disturbed.
pub(crate) fn check_root(
    options: &Options,
    comm: &str,
    dir: &TaskDir,
    own: &Own,
) -> Result<(), Error> {
    let pid = options.tree;
    let mut instances = Instances::new(*own);
    instances.of(&Links::free(dir), true)?;
    refuse(&instances, pid, comm)?;
    if instances.has_numbers() {
        let status = proc::status::read(dir)?;
        let pids = instances.met.iter().find(|met| met.kind == Kind::Pid);
        if !pids.is_some_and(|pids| is_external(pids, options)) {
            numbers::check_init(&status, pid, comm)?;
        }
    }
    let mut met = instances.met.iter();
    match met.find(|instance| instance.kind == Kind::Mnt) {
        Some(instance) => mnt::check(instance, options),
        None => Ok(()),
    }
}

/// The caller gives it back on restore.
fn is_external(instance: &Instance, options: &Options) -> bool {
    external::key(&options.external, instance.kind, instance.inode).is_some()
}

/// Refuses what cannot be dumped of the namespaces met so far, the last of them those of `pid`.
pub(crate) fn refuse(instances: &Instances, pid: Pid, comm: &str) -> Result<(), Refusal> {
    match instances.unsupported() {
        None => Ok(()),
        Some(kind) => Err(Refusal::Nested {
            pid,
            comm: comm.to_owned(),
            kind: kind.name(),
        }),
    }
}

/// Has the calling thread join what sockets and queues are looked at in.
pub(crate) fn join(census: &Census) -> Result<(), Error> {
    for instance in [census.root(Kind::Net), census.root(Kind::Ipc)]
        .into_iter()
        .flatten()
    {
        let (pid, kind) = (instance.task, instance.kind.name());
        let failed = |errno| Error::Join { pid, kind, errno };
        gelid_sys::namespace::join(instance.open()?, instance.kind).map_err(failed)?;
    }
    Ok(())
}

/// Writes the rules of the firewall, before there are any that keep packets away from connections.
pub(crate) fn dump_rules(context: Context<'_>, census: &Census) -> Result<(), Error> {
    let mut networks = census.of(Kind::Net);
    networks.try_for_each(|instance| net::dump_rules(instance, context))
}

/// Writes the images of all namespaces. The tree must be frozen.
pub(crate) fn dump(context: Context<'_>, census: &Census) -> Result<Found, Error> {
    time::dump(census, context)?;
    for instance in &census.instances {
        match instance.kind {
            Kind::Net => net::dump(instance, context, census)?,
            Kind::Uts => uts::dump(instance, context)?,
            Kind::User => user::dump(instance, context, census)?,
            Kind::Pid => external::dump_pids(instance, context)?,
            // One that is simply made anew has no image, and where a cgroup namespace begins is said with the groups;
            // the rest has its own place here.
            _ => {}
        }
    }
    let (mounts, automounters) = mnt::dump(context.staging, context.options, census)?;
    let mut segments = Vec::new();
    for instance in census.of(Kind::Ipc) {
        let all = ipc::dump(instance, context, census)?;
        segments.push((instance.clone(), all));
    }
    Ok(Found {
        mounts,
        automounters,
        segments,
    })
}

/// What others need to know of namespaces.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) mounts: MountTable,
    pub(crate) automounters: Vec<Automounter>,
    /// Shared memory in the IPC namespaces of the tree.
    pub(crate) segments: Vec<(Instance, Vec<Segment>)>,
}
