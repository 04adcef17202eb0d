//! Namespaces that are neither the dumper's nor the root's: whose they are, which lies in which, and what tasks are
//! called there.

use std::collections::{HashMap, HashSet};

use gelid_image::messages::{GelidNamespaceEntry, GelidNumbersEntry, GelidPlaceEntry};
use gelid_sys::Pid;
use gelid_sys::namespace;
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::proc::status::Status;
use gelid_sys::proc::{self, TaskDir};

use super::{Instance, Instances, Links, Users};
use crate::survey::Task;
use crate::{Error, Refusal};

/// What a task is called below the root's pid namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of its pid namespace in images.
    pub(crate) pid_ns: u32,
    /// Of each thread, from the namespace below the root's on.
    threads: Vec<Vec<i32>>,
    pgid: Vec<i32>,
    sid: Vec<i32>,
}

impl Place {
    /// That of a process whose leader has this status; `depth` is how far the root's namespace is below the dumper's.
    pub(crate) fn new(pid_ns: u32, depth: usize, leader: &Status) -> Self {
        let below = |ids: &[i32]| ids.get(depth + 1..).unwrap_or_default().to_vec();
        Self {
            pid_ns,
            threads: vec![below(&leader.ns_pid)],
            pgid: below(&leader.ns_pgid),
            sid: below(&leader.ns_sid),
        }
    }

    /// Adds a thread.
    pub(crate) fn thread(&mut self, depth: usize, status: &Status) {
        let below = status.ns_pid.get(depth + 1..).unwrap_or_default();
        self.threads.push(below.to_vec());
    }

    /// True for the first process of a namespace.
    pub(super) fn is_init(&self) -> bool {
        self.own() == Some(1)
    }

    /// The number of the leader in the namespace itself.
    fn own(&self) -> Option<i32> {
        self.threads.first()?.last().copied()
    }

    /// For `pstree.img`.
    pub(crate) fn entry(&self) -> GelidPlaceEntry {
        let numbers = |ids: &Vec<i32>| ids.iter().map(|id| id.unsigned_abs()).collect();
        GelidPlaceEntry {
            pid_ns: self.pid_ns,
            threads: self
                .threads
                .iter()
                .map(|ids| GelidNumbersEntry {
                    number: numbers(ids),
                })
                .collect(),
            pgid: numbers(&self.pgid),
            sid: numbers(&self.sid),
        }
    }
}

/// Where children of a task are born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForChildren {
    /// Where it is itself.
    Own,
    /// In a pid namespace that has no process yet.
    New,
    /// In the one with this inode.
    Of(u64),
}

impl Instances {
    /// The pid namespace that children of a task are born into, if it is not that of the task; 0 if it has no process
    /// yet.
    pub(crate) fn numbers_for_children(
        &self,
        task: &Links<'_>,
        own: Option<u32>,
    ) -> Result<ForChildren, proc::Error> {
        let own = match self.met.iter().find(|met| Some(met.id) == own) {
            Some(met) => met.inode,
            None => self.own.inode(Kind::Pid),
        };
        if task.is(Kind::PidForChildren, own)? {
            return Ok(ForChildren::Own);
        }
        Ok(match task.inode(Kind::PidForChildren)? {
            0 => ForChildren::New,
            inode => ForChildren::Of(inode),
        })
    }

    /// True for one of which a task is in another than the root, and which is not the dumper's.
    pub(crate) fn is_nested(&self, id: u32) -> bool {
        self.met.iter().any(|met| met.id == id && !met.root)
    }

    /// The pid namespace of a process that has ended.
    pub(crate) fn pid_of(&mut self, task: &TaskDir, pid: Pid) -> Result<Option<u32>, proc::Error> {
        let inode = ns::id(task, Kind::Pid)?;
        if inode == self.own.inode(Kind::Pid) {
            return Ok(None);
        }
        let known = self.by_inode(inode);
        Ok(known.or_else(|| Some(self.meet(Kind::Pid, inode, pid, false))))
    }

    /// The number of a namespace that some task is in.
    pub(crate) fn by_inode(&self, inode: u64) -> Option<u32> {
        let found = self.met.iter().find(|met| met.inode == inode);
        found.map(|met| met.id)
    }

    /// A task may be in a pid namespace below the root's.
    pub(crate) fn has_nested_numbers(&self) -> bool {
        let nested = |instance: &Instance| instance.kind == Kind::Pid && !instance.root;
        self.met.iter().any(nested)
    }
}

/// Finds out whose nested namespaces are, and which pid namespace is above which; refuses those that a restore could
/// not make.
pub(crate) fn relate(
    instances: &mut Instances,
    tasks: &[Task],
    users: &Users,
) -> Result<Vec<GelidNamespaceEntry>, Error> {
    super::users::find_owners(instances)?;
    let (met, own) = (&instances.met, &instances.own);
    let nested = met.iter().filter(|instance| !instance.root);
    let mut entries = Vec::new();
    for instance in nested {
        let inodes = Inodes::look(instance)?;
        let task = tasks.iter().find(|task| task.living == instance.task);
        let refused = || Refusal::Nested {
            pid: instance.task,
            comm: task.map(Task::comm).unwrap_or_default(),
            kind: instance.kind.name(),
        };
        let of_tree = |kind: Kind, inode: u64| {
            let root = met.iter().find(|other| other.root && other.kind == kind);
            inode == own.inode(kind) || root.is_some_and(|root| root.inode == inode)
        };
        let nested = |inode: u64| {
            let above = met.iter().find(|other| other.inode == inode);
            Ok::<_, Error>(above.ok_or_else(refused)?.id)
        };
        let owner = match of_tree(Kind::User, inodes.owner) {
            true => None,
            false => Some(nested(inodes.owner)?),
        };
        let parent = match inodes.parent {
            Some(inode) if !of_tree(instance.kind, inode) => Some(nested(inode)?),
            _ => None,
        };
        let mut entry = GelidNamespaceEntry {
            id: instance.id,
            kind: namespace::flag(instance.kind) as u32,
            parent,
            owner,
            uid: None,
        };
        if instance.kind == Kind::User {
            // The root's children can be in one beside its own, but nobody in its own can make one there.
            let root = met.iter().find(|met| met.root && met.kind == Kind::User);
            if owner.is_none() && root.is_some_and(|root| root.inode != inodes.owner) {
                return Err(refused().into());
            }
            entry = GelidNamespaceEntry {
                parent: owner,
                owner: None,
                uid: Some(users.uid(inodes.creator.unwrap_or_default())),
                ..entry
            };
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// What the kernel tells of a namespace.
pub(super) struct Inodes {
    /// Of a user namespace the one above.
    pub(super) owner: u64,
    parent: Option<u64>,
    /// Who has made a user namespace.
    creator: Option<u32>,
}

impl Inodes {
    pub(super) fn look(instance: &Instance) -> Result<Self, Error> {
        let (pid, kind) = (instance.task, instance.kind.name());
        let failed = |errno| Error::Join { pid, kind, errno };
        let namespace = instance.open()?;
        let owner = namespace::owner(&namespace).map_err(failed)?;
        let parent = match instance.kind {
            Kind::Pid => Some(namespace::parent(&namespace).map_err(failed)?),
            _ => None,
        };
        let creator = match instance.kind {
            Kind::User => Some(namespace::creator(&namespace).map_err(failed)?),
            _ => None,
        };
        let inode = |namespace| namespace::inode(namespace).map_err(failed);
        Ok(Self {
            owner: inode(&owner)?,
            parent: parent.as_ref().map(inode).transpose()?,
            creator,
        })
    }
}

/// Refuses what whoever begins a pid namespace, and all above, cannot have: they are born before there are files.
fn check_above(tasks: &[Task]) -> Result<(), Error> {
    let mut above: HashSet<i32> = HashSet::new();
    // Parents come before their children.
    for task in tasks.iter().rev() {
        let begins = task.place.as_ref().is_some_and(Place::is_init);
        if begins || above.contains(&task.pid.as_raw_pid()) {
            above.insert(task.pid.as_raw_pid());
            above.insert(task.ppid);
        }
    }
    let leads = |sid: i32| {
        tasks
            .iter()
            .any(|task| task.stat.sid == sid && task.stat.pid == sid)
    };
    let tables = |task: &Task| {
        let ids = task.live.as_ref().map(|live| &live.ids);
        ids.map(|ids| (ids.files_id, ids.fs_id))
    };
    for task in tasks {
        let pid = task.pid;
        if !above.contains(&pid.as_raw_pid()) {
            continue;
        }
        let odd = |what| {
            let comm = task.comm();
            Error::from(Refusal::OddNumbers { pid, comm, what })
        };
        let stat = &task.stat;
        if stat.tty_nr != 0 && stat.sid != stat.pid && leads(stat.sid) {
            return Err(odd(
                "begins a pid namespace, or is above one, with the terminal of its session",
            ));
        }
        let Some((files, fs)) = tables(task) else {
            continue;
        };
        let others = tasks.iter().filter(|other| other.pid != pid);
        let mut others = others.filter(|other| above.contains(&other.pid.as_raw_pid()));
        let shares = |other: &Task| tables(other).is_some_and(|own| own.0 == files || own.1 == fs);
        if others.any(shares) {
            return Err(odd(
                "begins a pid namespace, or is above one, and shares descriptors or directories",
            ));
        }
    }
    Ok(())
}

/// Refuses pid namespaces that a restore could not make: without their first process, or with one whose parent is not
/// where the namespace begins.
pub(crate) fn check_births(tasks: &[Task], entries: &[GelidNamespaceEntry]) -> Result<(), Error> {
    let by_pid: HashMap<i32, &Task> = tasks
        .iter()
        .map(|task| (task.pid.as_raw_pid(), task))
        .collect();
    let pid_ns = |task: &Task| task.place.as_ref().map(|place| place.pid_ns);
    let has_init = |id: u32| {
        let mut inits = tasks.iter().filter_map(|task| task.place.as_ref());
        inits.any(|place| place.pid_ns == id && place.is_init())
    };
    let lives = |id: u32| {
        let mut alive = tasks.iter().filter(|task| task.live.is_some());
        alive.any(|task| pid_ns(task) == Some(id))
    };
    for task in tasks {
        let own = pid_ns(task);
        let (pid, comm) = (task.pid, task.comm());
        let odd = |what| Refusal::OddNumbers { pid, comm, what };
        if let Some(id) = task.pid_ns_for_children.filter(|id| *id != 0)
            && !(has_init(id) && lives(id))
        {
            return Err(odd("would have its children in a pid namespace that has ended").into());
        }
        let above = by_pid.get(&task.ppid).copied();
        let of_parent = above.and_then(pid_ns);
        let Some(id) = own.filter(|_| own != of_parent) else {
            if own.is_none() && of_parent.is_some() {
                return Err(odd("is a child of a process in a deeper pid namespace").into());
            }
            continue;
        };
        let entry = entries.iter().find(|entry| entry.id == id);
        let parent = entry.and_then(|entry| entry.parent);
        let is_init = task.place.as_ref().is_some_and(Place::is_init);
        if !has_init(id) {
            return Err(odd("is in a pid namespace whose first process is not in the tree").into());
        }
        if is_init && parent != of_parent {
            return Err(
                odd("begins a pid namespace somewhere else than where its parent is").into(),
            );
        }
        if !is_init {
            return Err(odd("was put into a pid namespace by somebody outside of that").into());
        }
    }
    check_above(tasks)
}
