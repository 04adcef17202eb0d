//! Which tasks share tables and address spaces, and what all tasks have in common.

use std::collections::HashMap;

use super::{Life, Plan};

impl Plan {
    /// True if another task has the same descriptor table.
    pub(crate) fn shares_files(&self, index: usize) -> bool {
        self.shared_files.contains(&index)
    }

    /// True if the task shares an address space, whoever builds it.
    pub(crate) fn shares_space_with_any(&self, index: usize) -> bool {
        let guest = |life: &Life| matches!(life, Life::Alive(alive) if !alive.builds);
        self.shares_space(index) || guest(&self.lives[index])
    }

    /// True if another task lives in the address space that this one builds.
    pub(crate) fn shares_space(&self, index: usize) -> bool {
        self.shared_spaces.contains(&index)
    }

    /// True if any thread is under seccomp.
    pub(crate) fn is_restrained(&self) -> bool {
        let mut threads = self.alive().flat_map(|(_, alive)| &alive.threads);
        threads.any(|thread| thread.restraint.is_any())
    }

    /// True if the task is to join its mount namespace. Whoever was born below the root's user namespace may not join that
    /// of the root, and is in it if its parent was.
    pub(crate) fn enters_mounts(&self, index: usize) -> bool {
        let own = |index: usize| match &self.lives[index] {
            Life::Alive(alive) => alive.mount_namespace,
            Life::Zombie { .. } => None,
        };
        let parent = self.nodes[index].parent.and_then(own);
        let is_below = self.births.users(index).born.is_some();
        let is_there = is_below && own(index).is_none() && parent.is_none();
        self.namespaces.has_nested_mounts() && !is_there
    }

    /// True if the task is to join its mount namespace before it bears others, since these share its directories.
    pub(crate) fn enters_mounts_early(&self, index: usize) -> bool {
        self.shared_directories.contains(&index) && self.namespaces.has_nested_mounts()
    }
}

/// True for the first task that is met with a table.
pub(super) fn first(seen: &mut HashMap<u32, usize>, id: u32, task: usize) -> bool {
    *seen.entry(id).or_insert(task) == task
}
