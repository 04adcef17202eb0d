//! Pids and users as the tree's own namespaces tell them.

use std::collections::HashMap;

use gelid_sys::Pid;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, IdRange};
use gelid_sys::proc::status::Status;
use rustix::fs::Stat;

use crate::{Error, Refusal};

/// The numbers of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    /// In the pid namespace of the root, as images have it.
    pub(crate) image: i32,
    /// As it knows itself.
    pub(crate) own: i32,
}

impl Number {
    /// That of a thread in the pid namespace of the dumper.
    pub(crate) fn same(tid: Pid) -> Self {
        let number = tid.as_raw_pid();
        Self {
            image: number,
            own: number,
        }
    }
}

/// Numbers of tasks, groups and sessions, by what the dumper sees. Without a pid namespace they are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    known: Option<Known>,
    /// Numbers in images by those in pid namespaces below the root's.
    nested: HashMap<(u32, i32), i32>,
}

#[derive(Debug, Clone)]
struct Known {
    /// How many namespaces the root's is below that of the dumper.
    depth: usize,
    by_outer: HashMap<i32, i32>,
}

impl Numbers {
    /// Those of a tree in a pid namespace of its own; `root` is the status of its root.
    pub(crate) fn inside(root: &Status) -> Self {
        let known = Known {
            depth: root.ns_pid.len().saturating_sub(1),
            by_outer: HashMap::new(),
        };
        Self {
            known: Some(known),
            nested: HashMap::new(),
        }
    }

    /// Takes note of what a task is called in its own pid namespace, below the root's.
    pub(crate) fn note_nested(&mut self, pid_ns: u32, number: Number) {
        self.nested.insert((pid_ns, number.own), number.image);
    }

    /// The number in images of whom a pid namespace below the root's calls so; 0 for nobody known.
    pub(crate) fn nested(&self, pid_ns: u32, own: i32) -> i32 {
        let found = self.nested.get(&(pid_ns, own));
        found.copied().unwrap_or_default()
    }

    /// True if the numbers are not those that the dumper sees.
    pub(crate) fn differ(&self) -> bool {
        self.known.is_some()
    }

    /// How far the pid namespace of the root is below that of the dumper.
    pub(crate) fn depth(&self) -> usize {
        self.known.as_ref().map_or(0, |known| known.depth)
    }

    /// Takes note of the numbers of a thread.
    pub(crate) fn note(&mut self, tid: Pid, status: &Status) -> Result<Number, Refusal> {
        let Some(known) = &mut self.known else {
            let same = Number::same(tid);
            let own = status.ns_pid.last().copied();
            return Ok(Number {
                own: own.unwrap_or(same.own),
                ..same
            });
        };
        let at = |ids: &[i32]| Some((*ids.first()?, *ids.get(known.depth)?));
        let all = [&status.ns_pid, &status.ns_pgid, &status.ns_sid];
        let pairs: Vec<_> = all.into_iter().filter_map(|ids| at(ids)).collect();
        let number = at(&status.ns_pid).zip(status.ns_pid.last());
        let Some(((_, image), own)) = number else {
            return Err(Refusal::Unnumbered { tid });
        };
        known.by_outer.extend(pairs);
        Ok(Number { image, own: *own })
    }

    /// The number of what the dumper's calls call `outer`: a task, a group or a session; 0 for what is not known.
    pub(crate) fn number(&self, outer: i32) -> i32 {
        match &self.known {
            None => outer,
            Some(known) => known.by_outer.get(&outer).copied().unwrap_or_default(),
        }
    }
}

/// Refuses a root that is in a pid namespace of its own, but not the first process there.
pub(super) fn check_init(status: &Status, pid: Pid, comm: &str) -> Result<(), Refusal> {
    match status.ns_tgid.last() {
        Some(1) => Ok(()),
        _ => Err(Refusal::NotInit {
            pid,
            comm: comm.to_owned(),
        }),
    }
}

/// Users and groups, by what the dumper sees. Without a user namespace they are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Users(Option<Maps>);

#[derive(Debug, Clone)]
struct Maps {
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

impl Users {
    /// Those of the user namespace of a process.
    pub(crate) fn inside(process: &TaskDir) -> Result<Self, Error> {
        Ok(Self(Some(Maps {
            uids: ns::uid_map(process)?,
            gids: ns::gid_map(process)?,
        })))
    }

    /// The user that the dumper sees as `uid`.
    pub(crate) fn uid(&self, uid: u32) -> u32 {
        self.0
            .as_ref()
            .map_or(uid, |maps| inside(&maps.uids, uid).unwrap_or(OVERFLOW))
    }

    /// The group that the dumper sees as `gid`.
    pub(crate) fn gid(&self, gid: u32) -> u32 {
        self.0
            .as_ref()
            .map_or(gid, |maps| inside(&maps.gids, gid).unwrap_or(OVERFLOW))
    }

    /// Makes of the owner of a file the one seen inside.
    pub(crate) fn of_file(&self, mut stat: Stat) -> Stat {
        (stat.st_uid, stat.st_gid) = (self.uid(stat.st_uid), self.gid(stat.st_gid));
        stat
    }

    /// Makes of the users in a status those inside.
    pub(crate) fn translate(&self, status: &mut Status) -> Result<(), Refusal> {
        let Some(maps) = &self.0 else { return Ok(()) };
        let tid = status.pid;
        let stranger = |what, id| Refusal::Stranger { tid, what, id };
        for uid in &mut status.uid {
            *uid = inside(&maps.uids, *uid).ok_or(stranger("user", *uid))?;
        }
        for gid in status.gid.iter_mut().chain(&mut status.groups) {
            *gid = inside(&maps.gids, *gid).ok_or(stranger("group", *gid))?;
        }
        Ok(())
    }
}

/// What a user namespace shows instead of an id that it does not map.
const OVERFLOW: u32 = 65534;

fn inside(map: &[IdRange], outer: u32) -> Option<u32> {
    let range = map
        .iter()
        .find(|range| outer >= range.outside && outer - range.outside < range.count)?;
    Some(range.inside + (outer - range.outside))
}
