//! User namespaces below that of the root: which there are, and whether a restore can bring everybody into his.

use std::collections::{HashMap, HashSet};

use gelid_image::messages::{GelidNamespaceEntry, TaskKobjIdsEntry};
use gelid_sys::namespace;
use gelid_sys::proc::ns::Kind;

use super::nested::Inodes;
use super::{Instance, Instances, Place};
use crate::survey::{Live, Task};
use crate::{Error, Refusal};

/// Adds the user namespaces that others of the tree belong to and that no process is in.
pub(super) fn find_owners(instances: &mut Instances) -> Result<(), Error> {
    let root = instances.met.iter().find(|met| is_of_root(met));
    let root = root.map(|root| root.inode);
    let mut next = 0;
    while next < instances.met.len() {
        let instance = instances.met[next].clone();
        next += 1;
        if instance.root {
            continue;
        }
        let owner = Inodes::look(&instance)?.owner;
        if owner == instances.own.inode(Kind::User)
            || Some(owner) == root
            || instances.by_inode(owner).is_some()
        {
            continue;
        }
        let (kind, steps) = instance.above.unwrap_or((instance.kind, 0));
        let id = instances.meet(Kind::User, owner, instance.task, false);
        let found = instances.met.iter_mut().find(|met| met.id == id);
        if let Some(found) = found {
            found.above = Some((kind, steps + 1));
        }
    }
    Ok(())
}

fn is_of_root(instance: &Instance) -> bool {
    instance.root && instance.kind == Kind::User
}

/// What is said of nested namespaces.
struct Known<'a> {
    entries: HashMap<u32, &'a GelidNamespaceEntry>,
}

impl Known<'_> {
    fn users(&self, live: &Live) -> Option<u32> {
        live.ids
            .user_ns_id
            .filter(|id| self.entries.contains_key(id))
    }

    /// The user namespace above one.
    fn above(&self, users: u32) -> Option<u32> {
        self.entries.get(&users)?.parent
    }

    fn owner(&self, id: u32) -> Option<u32> {
        self.entries.get(&id)?.owner
    }

    /// Whether somebody in `above` may do everything in `users`; `None` is that of the root.
    fn rules(&self, above: Option<u32>, users: Option<u32>) -> bool {
        let mut at = users;
        loop {
            match at {
                _ if at == above => return true,
                None => return false,
                Some(users) => at = self.above(users),
            }
        }
    }
}

/// Refuses tasks that a restore could not bring into their user namespaces: all are born above them and enter them at
/// last, but those who begin a pid namespace that belongs to one, and whoever is born of these.
pub(crate) fn check(
    tasks: &[Task],
    entries: &[GelidNamespaceEntry],
    instances: &Instances,
) -> Result<(), Error> {
    let flag = namespace::flag(Kind::User) as u32;
    if entries.iter().all(|entry| entry.kind != flag) {
        return Ok(());
    }
    let known = Known {
        entries: entries.iter().map(|entry| (entry.id, entry)).collect(),
    };
    check_clocks(&known, instances)?;
    // Who is in which at birth, and when bearing others.
    let mut bears: HashMap<i32, Option<u32>> = HashMap::new();
    let mut made = HashSet::new();
    let root = tasks.first().and_then(|root| root.live.as_ref());
    for task in tasks {
        let bearer = bears.get(&task.ppid).copied().flatten();
        let begun = begins(task, &known);
        let born = match begun {
            Some(users) if known.above(users) == bearer => Some(users),
            _ => bearer,
        };
        if let Some(users) = bearer {
            check_groups(task, users, tasks, instances)?;
        }
        let at_births = births(task, tasks, born, &known, &mut made)?;
        bears.insert(task.pid.as_raw_pid(), at_births);
        let Some(live) = &task.live else { continue };
        let users = known.users(live);
        if !known.rules(born, users) {
            return Err(odd(task, "is above the user namespace of its parent"));
        }
        if users != born {
            check_tables(task, live, tasks)?;
        }
        if let (Some(root), true) = (root, at_births.is_some()) {
            check_inside(task, (&live.ids, &root.ids), at_births, &known)?;
        }
        if let Some(id) = task.pid_ns_for_children.filter(|id| *id != 0)
            && !known.rules(users, known.owner(id))
        {
            return Err(odd(
                task,
                "has its children in a pid namespace that its user namespace has no rights to",
            ));
        }
    }
    Ok(())
}

fn odd(task: &Task, what: &'static str) -> Error {
    let (pid, comm) = (task.pid, task.comm());
    Refusal::OddNumbers { pid, comm, what }.into()
}

/// The user namespace of the pid namespace that a task begins.
fn begins(task: &Task, known: &Known<'_>) -> Option<u32> {
    let place = task.place.as_ref().filter(|place| Place::is_init(place))?;
    known.owner(place.pid_ns)
}

/// Which one a task has to be in when it bears its children.
fn births(
    task: &Task,
    tasks: &[Task],
    born: Option<u32>,
    known: &Known<'_>,
    made: &mut HashSet<u32>,
) -> Result<Option<u32>, Error> {
    let children = tasks
        .iter()
        .filter(|child| child.ppid == task.pid.as_raw_pid());
    let wanted: Vec<u32> = children.filter_map(|child| begins(child, known)).collect();
    let own = task.live.as_ref().and_then(|live| known.users(live));
    for now in [born, own] {
        let mut later = made.clone();
        let can = |users: &u32| {
            Some(*users) == now || (known.above(*users) == now && later.insert(*users))
        };
        if wanted.iter().all(can) {
            *made = later;
            return Ok(now);
        }
    }
    Err(odd(
        task,
        "has children that begin pid namespaces of a user namespace that it could not have made",
    ))
}

/// Who is born where nobody can set groups has those of its parent.
fn check_groups(
    task: &Task,
    users: u32,
    tasks: &[Task],
    instances: &Instances,
) -> Result<(), Error> {
    let mut parents = tasks.iter();
    let parent = parents.find(|parent| parent.pid.as_raw_pid() == task.ppid);
    let groups = |task: &Task| {
        let mut groups = task.live.as_ref()?.status.groups.clone();
        groups.sort_unstable();
        Some(groups)
    };
    let pair = groups(task).zip(parent.and_then(groups));
    if pair.is_none_or(|(own, of_parent)| own == of_parent) {
        return Ok(());
    }
    let users = instances.met.iter().find(|met| met.id == users);
    let denies = users.map(super::user::denies_groups).transpose()?;
    match denies.unwrap_or_default() {
        true => Err(odd(
            task,
            "has other groups than its parent in a user namespace where nobody can set any (setgroups(2) is denied)",
        )),
        false => Ok(()),
    }
}

/// What is left by a task for its children belongs to the user namespace of the task.
fn check_clocks(known: &Known<'_>, instances: &Instances) -> Result<(), Error> {
    for instance in &instances.met {
        let left = instance.kind == Kind::Time && instance.parent.is_some();
        if let (Some(pid), Some(_)) = (instance.parent, known.owner(instance.id).filter(|_| left)) {
            let why = "has given its children clocks that belong to a user namespace below that of the root";
            return Err(Refusal::Clocks { pid, why }.into());
        }
    }
    Ok(())
}

/// Nobody enters a user namespace who shares root and working directory with another process.
fn check_tables(task: &Task, live: &Live, tasks: &[Task]) -> Result<(), Error> {
    let mut others = tasks.iter().filter(|other| other.pid != task.pid);
    let shares = |other: &Task| {
        let other = other.live.as_ref();
        other.is_some_and(|other| other.ids.fs_id == live.ids.fs_id)
    };
    match others.any(shares) {
        true => Err(odd(
            task,
            "is in a user namespace of its own, and shares its working directory with another process",
        )),
        false => Ok(()),
    }
}

/// Who is in a user namespace already when everybody else joins what he is in can join only what belongs to that.
fn check_inside(
    task: &Task,
    (own, root): (&TaskKobjIdsEntry, &TaskKobjIdsEntry),
    users: Option<u32>,
    known: &Known<'_>,
) -> Result<(), Error> {
    let kinds = |ids: &TaskKobjIdsEntry| {
        [
            ids.net_ns_id,
            ids.ipc_ns_id,
            ids.uts_ns_id,
            ids.mnt_ns_id,
            ids.cgroup_ns_id,
            ids.time_ns_id,
        ]
    };
    let other = |(own, root): &(Option<u32>, Option<u32>)| own != root;
    let mut others = kinds(own).into_iter().zip(kinds(root)).filter(other);
    let out_of_reach = |(own, _): (Option<u32>, Option<u32>)| {
        let owner = own.and_then(|id| known.owner(id));
        !known.rules(users, owner)
    };
    match others.any(out_of_reach) {
        true => Err(odd(
            task,
            "is born in a user namespace below that of the root, and is in namespaces of neither",
        )),
        false => Ok(()),
    }
}
