//! Threads, and what one may have that the others of its process have not: descriptors and directories
//! (`unshare(2)` in a thread).

use std::collections::{HashMap, HashSet};

use gelid_image::messages::CoreEntry;
use gelid_sys::signal::SigSet;

use super::tree::Node;
use super::{Alive, Life, PlanError, cgroup};
use crate::files::{Directories, FilesPlan};
use crate::state::seccomp::{self, Filters, Restraint, Told};
use crate::state::{self, ThreadState};

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

/// What the image of a thread holds, before it is known what others of its process are forbidden.
#[derive(Debug)]
pub(super) struct Record {
    tid: i32,
    cg_set: Option<u32>,
    state: ThreadState,
    seccomp: Told,
    apart: Apart,
}

impl Record {
    /// Reads that of a thread of a process. A leader has nothing of its own: all is its process's.
    pub(super) fn read((pid, tid): (i32, i32), core: &CoreEntry) -> Result<Self, state::Error> {
        let record = core.thread_core.as_ref().filter(|_| tid != pid);
        let gelid = record.and_then(|thread| thread.gelid.as_ref());
        Ok(Self {
            tid,
            cg_set: cgroup::set_of(core),
            state: ThreadState::read(pid, tid, core)?,
            seccomp: Told::of(core),
            apart: Apart {
                files: gelid.and_then(|gelid| gelid.files_id),
                fs: None,
                has_fs: gelid.is_some_and(|gelid| gelid.own_fs == Some(true)),
            },
        })
    }
}

/// The threads of a process, whose records come in their order, and the number of filters that all of them have.
pub(super) fn all(
    node: &Node,
    records: Vec<Record>,
    filters: &mut Filters,
) -> Result<(Vec<Thread>, usize), state::Error> {
    let told: Vec<_> = records
        .iter()
        .map(|record| (record.tid, record.seccomp))
        .collect();
    let restraints = filters.of_process(&told)?;
    let common = seccomp::common(&restraints);
    let threads = records.into_iter().zip(restraints).enumerate();
    let threads = threads.map(|(index, (record, restraint))| Thread {
        tid: record.tid,
        cg_set: record.cg_set,
        state: record.state.called(node.own(index)),
        restraint,
        apart: record.apart,
    });
    Ok((threads.collect(), common))
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
