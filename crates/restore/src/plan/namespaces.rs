//! Namespaces of the tree that are made with it. Sections 4.2 and 19 of the format.

pub(crate) mod below;
pub(crate) mod further;
pub(crate) mod joined;
pub(crate) mod mnt;
pub(crate) mod net;
pub(crate) mod time;
pub(crate) mod user;
pub(crate) mod uts;

use std::collections::{BTreeMap, BTreeSet};

use gelid_image::Dir;
use gelid_image::messages::{InventoryEntry, TaskKobjIdsEntry};
use gelid_sys::namespace;
use gelid_sys::proc::ns::Kind;

use rustix::process::Gid;

use self::below::Below;
use self::further::Further;
use self::mnt::{MountOptions, Mounts};
use self::net::{Net, NetOptions};
use super::tree::Node;
use super::{Life, Plan, PlanError};
use crate::play::Numbering;

/// Kinds of which a task may have another than the root of its tree.
const NESTED: &[Kind] = &[
    Kind::Mnt,
    Kind::Net,
    Kind::Pid,
    Kind::Uts,
    Kind::Time,
    Kind::Cgroup,
    Kind::Ipc,
    Kind::User,
];

/// Those of the root of the tree that are not the restorer's.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// By kind, the number in the images.
    root: Vec<(Kind, u32)>,
    /// Numbers of all network namespaces that tasks are in, but that of the restorer.
    network_ids: BTreeSet<u32>,
    /// Number of the network namespace of the dumper, which that of the restorer stands for.
    pub(crate) host_network: Option<u32>,
    /// What network namespaces are like, the root's first.
    pub(crate) networks: Vec<Net>,
    pub(crate) uts: Option<uts::Uts>,
    pub(crate) time: Option<time::Clocks>,
    pub(crate) user: Option<user::Users>,
    /// Numbers of the mount namespaces of other tasks.
    nested: BTreeSet<u32>,
    pub(crate) mounts: Option<Mounts>,
    /// The root is in some that the caller gives.
    is_joined: bool,
    /// What the caller gives as the pid namespace of the root.
    pub(crate) given_pids: Option<net::Given>,
    /// What the caller gives as the user namespace of the tree.
    pub(crate) given_users: Option<joined::GivenUsers>,
    /// Those of other tasks, of all other kinds.
    pub(crate) further: Further,
    /// Those that are neither the restorer's nor the root's, by their numbers.
    pub(crate) known: BTreeMap<u32, Nested>,
    /// User namespaces below that of the root.
    pub(crate) below: BTreeMap<u32, Below>,
    /// The number given last in the root's own pid namespace.
    pub(crate) last_pid: Option<u32>,
}

/// What is said of a nested namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nested {
    /// `CLONE_NEW*`
    flag: u64,
    /// Number of the one above, if that is not the root's.
    pub(crate) parent: Option<u32>,
    /// Number of the user namespace that it belongs to, if that is not the root's.
    pub(crate) owner: Option<u32>,
    /// Who has made a user namespace.
    creator: u32,
}

impl Namespaces {
    /// True if there is any.
    pub(crate) fn any(&self) -> bool {
        !self.root.is_empty()
            || !self.network_ids.is_empty()
            || !self.networks.is_empty()
            || self.is_joined
            || self.further.any()
            || !self.known.is_empty()
    }

    /// The number of the root's own namespace of a kind.
    pub(crate) fn root(&self, kind: Kind) -> Option<u32> {
        let mut own = self.root.iter();
        own.find(|(own, _)| *own == kind).map(|(_, id)| *id)
    }

    /// The `CLONE_NEW*` flags of all kinds.
    pub(crate) fn flags(&self) -> u64 {
        let own = self.root.iter().map(|(kind, _)| *kind);
        let made = own.filter(|kind| match kind {
            Kind::Net => self.given_network().is_none(),
            Kind::Pid => self.given_pids.is_none(),
            _ => true,
        });
        made.fold(0, |flags, kind| flags | namespace::flag(kind))
    }

    /// What the caller gives as the network namespace of the root.
    pub(crate) fn given_network(&self) -> Option<&net::Given> {
        let first = self.networks.first()?;
        match &first.contents {
            net::Contents::Given(given) if first.is_root => Some(given),
            _ => None,
        }
    }

    /// Reads the images of all of them.
    pub(crate) fn read(&mut self, dir: &Dir) -> Result<(), PlanError> {
        for (kind, id) in self.root.clone() {
            match kind {
                Kind::Uts => self.uts = Some(uts::Uts::read(dir, id)?),
                Kind::Time => self.time = Some(time::Clocks::read(dir, id)?),
                Kind::User => self.user = Some(user::Users::read(dir, id)?),
                Kind::Pid => self.given_pids = joined::pids(dir, id)?,
                // Made anew.
                _ => {}
            }
        }
        self.below = below::read(dir, &self.known)?;
        self.further.read(dir)
    }

    /// The same of mount namespaces.
    pub(crate) fn read_mounts(
        &mut self,
        dir: &Dir,
        options: &MountOptions,
    ) -> Result<(), PlanError> {
        let Some(first) = self.root(Kind::Mnt) else {
            return Ok(());
        };
        let nested = self.nested.iter().copied();
        let ids: Vec<u32> = [first].into_iter().chain(nested).collect();
        self.mounts = Some(Mounts::read(dir, &ids, options)?);
        Ok(())
    }

    /// True if tasks have another mount namespace than the root has.
    pub(crate) fn has_nested_mounts(&self) -> bool {
        !self.nested.is_empty()
    }

    /// The pid namespace above one, if it is not the root's; `None` for one that nothing is said of.
    pub(crate) fn pid_ns_above(&self, id: u32) -> Option<Option<u32>> {
        let known = self.known.get(&id);
        let known = known.filter(|known| known.flag == namespace::flag(Kind::Pid));
        known.map(|known| known.parent)
    }

    /// True for the number of a user namespace below that of the root.
    pub(crate) fn is_users(&self, id: u32) -> bool {
        let known = self.known.get(&id);
        known.is_some_and(|known| known.flag == namespace::flag(Kind::User))
    }

    /// The mount namespace of a task, if it is not that of the root.
    pub(crate) fn nested_mounts(&self, ids: &TaskKobjIdsEntry) -> Option<u32> {
        ids.mnt_ns_id.filter(|id| self.nested.contains(id))
    }
}

impl Plan {
    /// Who gives the numbers.
    pub(crate) fn numbering(&self) -> Numbering {
        match self.births.is_nested() {
            _ if self.namespaces.given_pids.is_some() => Numbering::Given,
            _ if self.has_numbers() => Numbering::OfTree,
            true => Numbering::Above,
            false => Numbering::Outer,
        }
    }

    /// True if pids in the tree are others than those that the restorer sees.
    pub(crate) fn has_numbers(&self) -> bool {
        self.namespaces.root(Kind::Pid).is_some()
    }

    /// The groups, as the restorer knows them, that the root of a user namespace has to be born with.
    pub(crate) fn groups_at_birth(&self) -> Option<Vec<Gid>> {
        let users = self.namespaces.user.as_ref()?;
        let outside = |gid: &u32| user::outside(&users.gids, *gid);
        let groups = self.root_groups().iter().filter_map(outside);
        Some(groups.map(Gid::from_raw).collect())
    }

    /// User, group and groups of the root of a user namespace once it can do something there.
    pub(crate) fn creds_at_birth(&self) -> (u32, u32, Vec<u32>) {
        let users = self.namespaces.user.as_ref();
        let id = |first: Option<u32>| first.unwrap_or_default();
        let uid = id(users.and_then(user::Users::first_uid));
        let gid = id(users.and_then(user::Users::first_gid));
        (uid, gid, self.root_groups().to_vec())
    }

    fn root_groups(&self) -> &[u32] {
        match &self.lives[0] {
            Life::Alive(alive) => alive.threads[0].state.groups(),
            Life::Zombie { .. } => &[],
        }
    }
}

/// Finds out which namespaces tasks have, one after the other.
#[derive(Debug)]
pub(super) struct Reader {
    /// Of the dumper.
    host: Option<[Option<u32>; 8]>,
    /// Of the root.
    root: Option<[Option<u32>; 8]>,
    first: Option<TaskKobjIdsEntry>,
    pub(super) namespaces: Namespaces,
}

impl Reader {
    pub(super) fn new(inventory: &InventoryEntry) -> Self {
        let nested = inventory.namespaces.iter().map(|entry| {
            let nested = Nested {
                flag: entry.kind.into(),
                parent: entry.parent,
                owner: entry.owner,
                creator: entry.uid.unwrap_or_default(),
            };
            (entry.id, nested)
        });
        Self {
            host: inventory.root_ids.as_ref().map(ids),
            root: None,
            first: None,
            namespaces: Namespaces {
                known: nested.collect(),
                last_pid: inventory
                    .last_pid
                    .filter(|last| *last <= super::tree::PID_MAX),
                ..Namespaces::default()
            },
        }
    }

    /// Namespaces that a task is in, and the root is not.
    pub(super) fn further(&self, task: &TaskKobjIdsEntry) -> Vec<(Kind, Option<u32>)> {
        let root = self.first.as_ref();
        root.map_or_else(Vec::new, |root| self.namespaces.further.of_task(task, root))
    }

    /// Takes note of those of a task; the root comes first.
    pub(super) fn task(&mut self, node: &Node, task: &TaskKobjIdsEntry) -> Result<(), PlanError> {
        let pid = node.pid;
        // Sets without them are from before there was anything but the host's.
        let Some(host) = self.host else { return Ok(()) };
        let own = ids(task);
        let root = *self.root.get_or_insert(own);
        let unsupported = |kind: Kind| PlanError::Namespace {
            pid,
            kind: kind.name(),
        };
        self.first.get_or_insert_with(|| task.clone());
        if let Some(id) = task.time_ns_for_children_id {
            self.namespaces.further.leave_clocks(id);
        }
        let network = |ids: [Option<u32>; 8]| ids[NET];
        self.namespaces.host_network = network(host);
        if let Some(id) = network(own).filter(|_| network(own) != network(host)) {
            self.namespaces.network_ids.insert(id);
        }
        for (place, kind) in KINDS.into_iter().enumerate() {
            if own[place] == root[place] {
                continue;
            }
            if !NESTED.contains(&kind) {
                return Err(unsupported(kind));
            }
            // Its numbers are told with the tree.
            let is_placed = own[place] == node.pid_ns();
            if kind == Kind::Pid && !is_placed {
                return Err(unsupported(kind));
            }
            let is_known = own[place].is_some_and(|id| self.namespaces.is_users(id));
            if kind == Kind::User && !is_known {
                return Err(unsupported(kind));
            }
            if kind == Kind::Mnt {
                // Such a one can be made only by a root that has one itself, and nobody leaves one again.
                let nested = own[place].filter(|_| own[place] != host[place]);
                let has = self.namespaces.root(kind).is_some();
                let nested = nested.filter(|_| has).ok_or_else(|| unsupported(kind))?;
                self.namespaces.nested.insert(nested);
            }
            if further::KINDS.contains(&kind) {
                let id = own[place].filter(|_| own[place] != host[place]);
                if kind == Kind::Ipc && id.is_none() {
                    return Err(unsupported(kind));
                }
                self.namespaces.further.note(kind, id);
            }
        }
        if !self.namespaces.root.is_empty() || own == host || own != root {
            return Ok(());
        }
        for (place, kind) in KINDS.into_iter().enumerate() {
            if let Some(id) = own[place].filter(|_| own[place] != host[place]) {
                self.namespaces.root.push((kind, id));
            }
        }
        Ok(())
    }
}

impl Plan {
    /// Plans the mounts of the tree.
    pub(crate) fn read_mounts(
        &mut self,
        dir: &Dir,
        options: &MountOptions,
    ) -> Result<(), PlanError> {
        self.namespaces.read_mounts(dir, options)?;
        let mounts = self.namespaces.mounts.iter();
        for filesystem in mounts.flat_map(|mounts| &mounts.filesystems) {
            if let mnt::Origin::New(new) = &filesystem.origin
                && let Some(id) = new.pid_ns
                && !self.nodes.iter().any(|node| node.begins(id))
            {
                return Err(PlanError::Mount {
                    id: 0,
                    point: new.name.clone(),
                    what: "it shows a pid namespace that nobody is in".into(),
                });
            }
            if let mnt::Origin::New(new) = &filesystem.origin
                && let Some(automount) = &new.automount
            {
                self.check_automount(automount)?;
            }
        }
        Ok(())
    }

    /// Sees that an automounter has a daemon, and is where it may be.
    fn check_automount(&self, automount: &mnt::Automount) -> Result<(), PlanError> {
        let wrong = |what: &str| PlanError::Mount {
            id: 0,
            point: "an autofs".into(),
            what: what.into(),
        };
        if self.namespaces.outside().is_some() {
            return Err(wrong("there are no automounters in user namespaces"));
        }
        let is_known = self.daemon(automount).is_some() && self.pipe_of(automount).is_some();
        if automount.is_asked && !is_known {
            return Err(wrong("its daemon is not in the tree"));
        }
        Ok(())
    }

    /// Somebody in the process group of an automounter's daemon.
    pub(crate) fn daemon(&self, automount: &mnt::Automount) -> Option<usize> {
        let members = self.nodes.iter().zip(&self.lives).enumerate();
        let mut members = members.filter(|(_, (node, life))| {
            node.pgid == automount.group && node.place.is_none() && matches!(life, Life::Alive(_))
        });
        members.next().map(|(index, _)| index)
    }

    /// The pipe that an automounter asks by: images of others name a descriptor of the one who leads the group.
    pub(crate) fn pipe_of(&self, automount: &mnt::Automount) -> Option<u32> {
        if automount.pipe.is_some() {
            return automount.pipe;
        }
        let mut alive = self.alive();
        let (_, leader) = alive.find(|(node, _)| node.pid == automount.group)?;
        let table = self.files.table(leader.files?);
        let mut slots = table.iter();
        let number = automount.read_fd.or(automount.number);
        let slot = slots.find(|slot| Some(slot.fd) == number)?;
        self.files.pipe_of(slot.id)
    }

    /// Reads what network namespaces are like.
    ///
    /// # Errors
    ///
    /// [`PlanError`]: what is missing, damaged or contradictory.
    pub fn read_networks(&mut self, dir: &Dir, options: &NetOptions) -> Result<(), PlanError> {
        let namespaces = &mut self.namespaces;
        let root = namespaces.root(Kind::Net);
        let mut ids = std::mem::take(&mut namespaces.network_ids);
        let host = namespaces.host_network;
        let of_files = self.files.networks().into_iter();
        ids.extend(of_files.filter(|id| Some(*id) != host && net::is_there(dir, *id)));
        let others = ids.iter().filter(|id| Some(**id) != root);
        for id in root.iter().chain(others) {
            let is_root = Some(*id) == root;
            namespaces
                .networks
                .push(Net::read(dir, *id, is_root, options)?);
        }
        if root.is_none()
            && let Some(path) = &options.join
        {
            let joined = Net::joined(host.unwrap_or_default(), path);
            namespaces.networks.insert(0, joined);
        }
        namespaces.network_ids = ids;
        Ok(())
    }
}

/// The place of network namespaces among them.
const NET: usize = 1;

/// The kinds in the order of [`ids`].
const KINDS: [Kind; 8] = [
    Kind::Pid,
    Kind::Net,
    Kind::Ipc,
    Kind::Uts,
    Kind::Time,
    Kind::Mnt,
    Kind::User,
    Kind::Cgroup,
];

fn ids(task: &TaskKobjIdsEntry) -> [Option<u32>; 8] {
    [
        task.pid_ns_id,
        task.net_ns_id,
        task.ipc_ns_id,
        task.uts_ns_id,
        task.time_ns_id,
        task.mnt_ns_id,
        task.user_ns_id,
        task.cgroup_ns_id,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(pid: i32) -> Node {
        Node {
            pid,
            parent: None,
            pgid: pid,
            sid: pid,
            threads: vec![pid],
            place: None,
            pid_ns_for_children: None,
        }
    }

    fn entry(pid_ns: u32, mnt_ns: u32) -> TaskKobjIdsEntry {
        TaskKobjIdsEntry {
            pid_ns_id: Some(pid_ns),
            mnt_ns_id: Some(mnt_ns),
            ..TaskKobjIdsEntry::default()
        }
    }

    fn reader() -> Reader {
        Reader::new(&InventoryEntry {
            root_ids: Some(entry(1, 6)),
            ..InventoryEntry::default()
        })
    }

    #[test]
    fn the_roots_own_are_found() {
        let mut host = reader();
        host.task(&node(70), &entry(1, 6)).unwrap();
        assert!(!host.namespaces.any());
        let mut own = reader();
        own.task(&node(1), &entry(9, 6)).unwrap();
        own.task(&node(2), &entry(9, 6)).unwrap();
        assert_eq!(own.namespaces.root(Kind::Pid), Some(9));
        assert_eq!(own.namespaces.root(Kind::Mnt), None);
        assert_eq!(own.namespaces.flags(), gelid_sys::clone::flags::NEWPID);
        // Deeper ones.
        own.task(&node(3), &entry(1, 6)).unwrap_err();
        own.task(&node(3), &entry(10, 6)).unwrap_err();
    }
}
