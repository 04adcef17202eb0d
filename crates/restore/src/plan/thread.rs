//! Threads, and what one may have that the others of its process have not: descriptors and directories
//! (`unshare(2)` in a thread).

use std::collections::{HashMap, HashSet};

use gelid_image::messages::CoreEntry;
use gelid_sys::signal::SigSet;

use super::{Alive, Life, PlanError, cgroup};
use crate::files::{Directories, FilesPlan};
use crate::state::ThreadState;
use crate::state::seccomp::Restraint;

/// A thread to be restored.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) tid: i32,
    /// Its set of cgroups.
    pub(crate) cg_set: Option<u32>,
    pub(crate) state: ThreadState,
    /// What it is forbidden.
    pub(crate) restraint: Restraint,
    pub(crate) apart: Apart,
}

/// What a thread has of its own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Apart {
    /// The descriptor table.
    pub(crate) files: Option<u32>,
    /// Directories and umask.
    pub(crate) fs: Option<Directories>,
    has_fs: bool,
}

impl Apart {
    /// True if there is anything.
    pub(crate) fn is_any(&self) -> bool {
        self.files.is_some() || self.has_fs
    }
}

impl Alive {
    /// Some thread has descriptors or directories of its own.
    pub(crate) fn has_apart(&self) -> bool {
        self.threads.iter().any(|thread| thread.apart.is_any())
    }

    /// Signals that will be pending for the process or any of its threads.
    pub(crate) fn pending(&self) -> SigSet {
        let threads = self.threads.iter().map(|thread| thread.state.pending());
        let all = threads.fold(self.process.pending().0, |all, set| all | set.0);
        SigSet(all)
    }
}

impl Thread {
    /// The thread of a record. A leader has nothing of its own: all is its process's.
    pub(super) fn new(
        (tid, core): (i32, &CoreEntry),
        is_leader: bool,
        state: ThreadState,
        restraint: Restraint,
    ) -> Self {
        let record = core.thread_core.as_ref().filter(|_| !is_leader);
        let gelid = record.and_then(|thread| thread.gelid.as_ref());
        Self {
            tid,
            cg_set: cgroup::set_of(core),
            state,
            restraint,
            apart: Apart {
                files: gelid.and_then(|gelid| gelid.files_id),
                fs: None,
                has_fs: gelid.is_some_and(|gelid| gelid.own_fs == Some(true)),
            },
        }
    }
}

/// The tables of all tasks, whose `files` are those of processes, and of threads, each of which has one alone.
pub(super) fn tables(lives: &[Life], files: &HashMap<u32, usize>) -> Result<Vec<u32>, PlanError> {
    let own = threads(lives).filter_map(|thread| Some((thread.tid, thread.apart.files?)));
    unite(files.keys().copied().collect(), own)
}

/// Adds the tables of threads, none of which anybody else may have.
fn unite(
    mut all: HashSet<u32>,
    own: impl Iterator<Item = (i32, u32)>,
) -> Result<Vec<u32>, PlanError> {
    for (pid, id) in own {
        if !all.insert(id) {
            return Err(PlanError::Core {
                pid,
                what: "the descriptors of its own are those of others too",
            });
        }
    }
    Ok(all.into_iter().collect())
}

/// Reads the directories that threads have alone.
pub(super) fn directories(lives: &mut [Life], files: &FilesPlan) -> Result<(), PlanError> {
    for life in lives {
        let Life::Alive(alive) = life else { continue };
        for thread in &mut alive.threads {
            if thread.apart.has_fs {
                thread.apart.fs = Some(files.fs(thread.tid)?);
            }
        }
    }
    Ok(())
}

fn threads(lives: &[Life]) -> impl Iterator<Item = &Thread> {
    let alive = lives.iter().filter_map(|life| match life {
        Life::Alive(alive) => Some(alive),
        Life::Zombie { .. } => None,
    });
    alive.flat_map(|alive| &alive.threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_has_the_table_of_a_thread() {
        let processes = || HashSet::from([2, 3]);
        let mut all = unite(processes(), [(7, 4), (8, 5)].into_iter()).unwrap();
        all.sort_unstable();
        assert_eq!(all, [2, 3, 4, 5]);
        for own in [[(7, 4), (8, 4)], [(7, 2), (8, 4)]] {
            let error = unite(processes(), own.into_iter()).unwrap_err();
            assert!(matches!(error, PlanError::Core { .. }), "{error}");
        }
    }
}
