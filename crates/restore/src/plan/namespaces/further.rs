//! Namespaces of tasks beyond the root's that are joined one by one: host names, clocks, cgroups, System V IPC.

use std::collections::{BTreeMap, BTreeSet};

use gelid_image::Dir;
use gelid_image::messages::TaskKobjIdsEntry;
use gelid_sys::proc::ns::Kind;

use super::time::Clocks;
use super::uts::Uts;
use crate::plan::{Life, Plan, PlanError};

/// Their kinds.
pub(crate) const KINDS: [Kind; 4] = [Kind::Uts, Kind::Ipc, Kind::Time, Kind::Cgroup];

/// Those of which a task has another than the root.
#[derive(Debug, Default)]
pub(crate) struct Further {
    /// By kind, their numbers in the images; none for that of the restorer.
    all: BTreeSet<(Kind, Option<u32>)>,
    /// Clocks that a task leaves to its children.
    left: BTreeSet<u32>,
    pub(crate) uts: BTreeMap<u32, Uts>,
    pub(crate) clocks: BTreeMap<u32, Clocks>,
}

impl Further {
    pub(crate) fn any(&self) -> bool {
        !self.all.is_empty() || !self.left.is_empty()
    }

    /// Takes note of one that a task is in.
    pub(super) fn note(&mut self, kind: Kind, id: Option<u32>) {
        self.all.insert((kind, id));
    }

    /// Takes note of the clocks that a task leaves to its children.
    pub(super) fn leave_clocks(&mut self, id: u32) {
        self.left.insert(id);
    }

    /// Reads what is in them.
    pub(super) fn read(&mut self, dir: &Dir) -> Result<(), PlanError> {
        for id in self.of(Kind::Uts).flatten().collect::<Vec<_>>() {
            self.uts.insert(id, Uts::read(dir, id)?);
        }
        let clocks = self.of(Kind::Time).flatten();
        for id in clocks
            .chain(self.left.iter().copied())
            .collect::<BTreeSet<_>>()
        {
            self.clocks.insert(id, Clocks::read(dir, id)?);
        }
        Ok(())
    }

    /// Those of a kind.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = Option<u32>> {
        let all = self.all.iter().filter(move |(other, _)| *other == kind);
        all.map(|(_, id)| *id)
    }

    /// Those that nobody leaves to their members.
    pub(crate) fn to_be_made(&self) -> impl Iterator<Item = (Kind, Option<u32>)> {
        let left = |(kind, id): &(Kind, Option<u32>)| {
            *kind == Kind::Time && id.is_some_and(|id| self.left.contains(&id))
        };
        self.all.iter().filter(move |one| !left(one)).copied()
    }

    /// Those that a task is in, and the root is not.
    pub(crate) fn of_task(
        &self,
        ids: &TaskKobjIdsEntry,
        root: &TaskKobjIdsEntry,
    ) -> Vec<(Kind, Option<u32>)> {
        let id = |kind, ids: &TaskKobjIdsEntry| match kind {
            Kind::Uts => ids.uts_ns_id,
            Kind::Ipc => ids.ipc_ns_id,
            Kind::Time => ids.time_ns_id,
            _ => ids.cgroup_ns_id,
        };
        let other = KINDS
            .iter()
            .filter(|kind| id(**kind, ids) != id(**kind, root));
        let known = |kind: Kind| {
            let id = id(kind, ids);
            let known = self.all.contains(&(kind, id));
            (kind, id.filter(|_| known))
        };
        other.map(|kind| known(*kind)).collect()
    }
}

impl Plan {
    /// The clocks that a task leaves to its children, with their number.
    pub(crate) fn clocks_left(&self, index: usize) -> Option<(u32, &Clocks)> {
        let Life::Alive(alive) = self.lives.get(index)? else {
            return None;
        };
        let id = alive.clocks_for_children?;
        Some((id, self.namespaces.further.clocks.get(&id)?))
    }
}
