//! The process tree, as `pstree.img` tells it: who is whose child, in which session and group.

use std::collections::HashMap;

use gelid_image::messages::PstreeEntry;
use gelid_image::{Dir, ImageKind};

use super::PlanError;
use super::place::Place;

/// Largest pid a kernel can be told to use (`PID_MAX_LIMIT`).
pub(super) const PID_MAX: u32 = 4 << 20;

/// A task and its place in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) pid: i32,
    /// Index of the parent; of the root there is none.
    pub(crate) parent: Option<usize>,
    pub(crate) pgid: i32,
    pub(crate) sid: i32,
    /// Thread ids, the leader's first.
    pub(crate) threads: Vec<i32>,
    /// In pid namespaces below the root's.
    pub(crate) place: Option<Place>,
    /// Number of the pid namespace that its children are born into, if it is another; 0 for a new one.
    pub(crate) pid_ns_for_children: Option<u32>,
}

impl Node {
    /// True for the leader of a session.
    pub(crate) fn leads_session(&self) -> bool {
        self.pid == self.sid
    }
}

/// Reads the tree: the root first, parents before their children.
pub(crate) fn read(dir: &Dir) -> Result<Vec<Node>, PlanError> {
    let entries: Vec<PstreeEntry> = dir.read_all(ImageKind::Pstree, ())?;
    nodes(&entries)
}

fn nodes(entries: &[PstreeEntry]) -> Result<Vec<Node>, PlanError> {
    let mut index = HashMap::with_capacity(entries.len());
    let mut ids = HashMap::new();
    let mut nodes: Vec<Node> = Vec::with_capacity(entries.len());
    for entry in entries {
        let pid = number(entry.pid, entry.pid)?;
        let parent = match (entry.ppid, nodes.is_empty()) {
            (0, true) => None,
            (0, false) => return Err(wrong(pid, "is a second root")),
            (ppid, _) => match index.get(&ppid) {
                Some(parent) => Some(*parent),
                None => return Err(wrong(pid, "comes before its parent")),
            },
        };
        let threads = threads(entry)?;
        for tid in &threads {
            if ids.insert(*tid, pid).is_some() {
                return Err(wrong(pid, "has an id that another task has too"));
            }
        }
        index.insert(entry.pid, nodes.len());
        nodes.push(Node {
            pid,
            parent,
            pgid: outside_is_zero(entry.pgid, entry.pid)?,
            sid: outside_is_zero(entry.sid, entry.pid)?,
            place: Node::place_of(pid, entry, threads.len())?,
            pid_ns_for_children: entry.pid_ns_for_children,
            threads,
        });
    }
    if nodes.is_empty() {
        return Err(PlanError::NoTasks);
    }
    Ok(nodes)
}

fn threads(entry: &PstreeEntry) -> Result<Vec<i32>, PlanError> {
    let pid = number(entry.pid, entry.pid)?;
    let mut threads = vec![pid];
    for tid in entry.threads.iter().skip(1) {
        threads.push(number(*tid, entry.pid)?);
    }
    Ok(threads)
}

fn number(id: u32, pid: u32) -> Result<i32, PlanError> {
    match i32::try_from(id) {
        Ok(number) if number > 0 && id <= PID_MAX => Ok(number),
        _ => Err(wrong(pid.cast_signed(), "has an id that no task can have")),
    }
}

fn outside_is_zero(id: u32, pid: u32) -> Result<i32, PlanError> {
    if id == 0 { Ok(0) } else { number(id, pid) }
}

fn wrong(pid: i32, what: &'static str) -> PlanError {
    PlanError::Tree { pid, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, ppid: u32) -> PstreeEntry {
        PstreeEntry {
            pid,
            ppid,
            pgid: pid,
            sid: 1,
            threads: vec![pid],
            ..PstreeEntry::default()
        }
    }

    #[test]
    fn parents_come_first_and_there_is_one_root() {
        let tree = nodes(&[entry(5, 0), entry(3, 5), entry(9, 3)]).unwrap();
        assert_eq!(tree[2].parent, Some(1));
        for bad in [
            &[][..],
            &[entry(0, 0)],
            &[entry(5, 0), entry(6, 0)],
            &[entry(5, 0), entry(6, 7), entry(7, 5)],
            &[entry(5, 0), entry(5, 5)],
            &[entry(u32::MAX, 0)],
        ] {
            nodes(bad).unwrap_err();
        }
    }
}
