//! Namespaces of the tree that are made with it. Sections 4.2 and 19 of the format.

use gelid_image::Dir;
use gelid_image::messages::{InventoryEntry, TaskKobjIdsEntry};
use gelid_sys::namespace;
use gelid_sys::proc::ns::Kind;

use super::PlanError;

/// Kinds that a tree may have its own of.
const SUPPORTED: &[Kind] = &[Kind::Pid];

/// Kinds of which a task may have another than the root of its tree.
const NESTED: &[Kind] = &[];

/// Those of the root of the tree that are not the restorer's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Namespaces {
    /// By kind, the number in the images.
    root: Vec<(Kind, u32)>,
}

impl Namespaces {
    /// True if there is any.
    pub(crate) fn any(&self) -> bool {
        !self.root.is_empty()
    }

    /// The number of the root's own namespace of a kind.
    pub(crate) fn root(&self, kind: Kind) -> Option<u32> {
        let mut own = self.root.iter();
        own.find(|(own, _)| *own == kind).map(|(_, id)| *id)
    }

    /// The `CLONE_NEW*` flags of all kinds.
    pub(crate) fn flags(&self) -> u64 {
        let own = self.root.iter();
        own.fold(0, |flags, (kind, _)| flags | namespace::flag(*kind))
    }

    /// Reads the images of all of them.
    pub(crate) fn read(&mut self, dir: &Dir) -> Result<(), PlanError> {
        let _ = dir;
        Ok(())
    }
}

/// Finds out which namespaces tasks have, one after the other.
#[derive(Debug)]
pub(super) struct Reader {
    /// Of the dumper.
    host: Option<[Option<u32>; 8]>,
    /// Of the root.
    root: Option<[Option<u32>; 8]>,
    pub(super) namespaces: Namespaces,
}

impl Reader {
    pub(super) fn new(inventory: &InventoryEntry) -> Self {
        Self {
            host: inventory.root_ids.as_ref().map(ids),
            root: None,
            namespaces: Namespaces::default(),
        }
    }

    /// Takes note of those of a task; the root comes first.
    pub(super) fn task(&mut self, pid: i32, task: &TaskKobjIdsEntry) -> Result<(), PlanError> {
        // Sets without them are from before there was anything but the host's.
        let Some(host) = self.host else { return Ok(()) };
        let own = ids(task);
        let root = *self.root.get_or_insert(own);
        let unsupported = |kind: Kind| PlanError::Namespace {
            pid,
            kind: kind.name(),
        };
        for (place, kind) in KINDS.into_iter().enumerate() {
            if own[place] != root[place] && !NESTED.contains(&kind) {
                return Err(unsupported(kind));
            }
        }
        if self.namespaces.any() || own == host {
            return Ok(());
        }
        for (place, kind) in KINDS.into_iter().enumerate() {
            if let Some(id) = own[place].filter(|_| own[place] != host[place]) {
                if !SUPPORTED.contains(&kind) {
                    return Err(unsupported(kind));
                }
                self.namespaces.root.push((kind, id));
            }
        }
        if self.namespaces.root(Kind::Pid).is_some() && pid != 1 {
            return Err(PlanError::Tree {
                pid,
                what: "is the root in a pid namespace of its own, but not the first process there",
            });
        }
        Ok(())
    }
}

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
        host.task(70, &entry(1, 6)).unwrap();
        assert!(!host.namespaces.any());
        let mut own = reader();
        own.task(1, &entry(9, 6)).unwrap();
        own.task(2, &entry(9, 6)).unwrap();
        assert_eq!(own.namespaces.root(Kind::Pid), Some(9));
        assert_eq!(own.namespaces.root(Kind::Mnt), None);
        assert_eq!(own.namespaces.flags(), gelid_sys::clone::flags::NEWPID);
        // Deeper ones.
        own.task(3, &entry(1, 6)).unwrap_err();
        own.task(3, &entry(10, 6)).unwrap_err();
    }

    #[test]
    fn only_the_first_process_makes_a_pid_namespace() {
        reader().task(2, &entry(9, 6)).unwrap_err();
    }
}
