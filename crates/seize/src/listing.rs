//! Who is in the tree: everything known is asked for its threads and children.

use gelid_sys::Pid;

use crate::Error;
use crate::roundup::{Kind, Roundup, Slot};
use crate::scan::{self, Scanner};

/// Up to so many threads each is asked for its children, without weighing costs.
const FEW: usize = 32;
/// What reading the parent of a process costs, in readings of the children of a thread.
const STAT_COST: usize = 2;

/// How closely the tree is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Children of main threads only: a first, quick look.
    Leaders,
    /// Children of all threads.
    Threads,
}

impl Roundup<'_> {
    /// Lists the threads and children of every process known, and seizes those that are new.
    pub(crate) fn list(&mut self, depth: Depth) -> Result<(), Error> {
        let mut seen = 0;
        while seen < self.groups.len() {
            self.list_threads(seen)?;
            if depth == Depth::Leaders && self.lists_children {
                self.list_children(seen, &[self.groups[seen].pid])?;
            }
            seen += 1;
        }
        if depth == Depth::Threads {
            self.list_births()
        } else {
            Ok(())
        }
    }

    fn list_threads(&mut self, index: usize) -> Result<(), Error> {
        let group = &self.groups[index];
        if matches!(group.kind, Kind::Zombie | Kind::Gone) {
            return Ok(());
        }
        let pid = group.pid;
        let is_leader_dead =
            matches!(group.kind, Kind::DeadLeader(_)) && !self.by_tid.contains_key(&pid);
        let held = group
            .threads
            .iter()
            .filter(|prey| !matches!(prey.slot, Slot::Gone))
            .count();
        let known = held + usize::from(is_leader_dead);
        match Scanner::thread_count(pid)? {
            None => return self.end_of(index),
            Some(count) if count == known as u64 => return Ok(()),
            Some(_) => {}
        }
        let mut tids = Vec::with_capacity(known + 1);
        self.scanner.threads(pid, &mut tids)?;
        for tid in tids {
            let is_known = self.by_tid.contains_key(&tid) || (tid == pid && is_leader_dead);
            if !is_known {
                self.seize_thread(index, tid)?;
            }
        }
        Ok(())
    }

    /// Finds the children of all threads: by asking every thread, or every process of the system that is not
    /// known for its parent, whichever is less work.
    fn list_births(&mut self) -> Result<(), Error> {
        let threads = self.by_tid.len();
        if self.lists_children && threads <= FEW {
            return self.list_children_of_all();
        }
        let mut pids = Vec::new();
        self.scanner.processes(&mut pids)?;
        // Where other users' processes are hidden (`hidepid`), so may be a child that has changed its user.
        let is_hidden = !pids.contains(&Pid::INIT);
        pids.retain(|pid| !self.by_pid.contains_key(pid));
        if self.lists_children && (is_hidden || pids.len() * STAT_COST > threads) {
            return self.list_children_of_all();
        }
        self.list_by_parents(&pids)
    }

    fn list_children_of_all(&mut self) -> Result<(), Error> {
        let mut seen = 0;
        while seen < self.groups.len() {
            let group = &self.groups[seen];
            let alive = group
                .threads
                .iter()
                .filter(|prey| !matches!(prey.slot, Slot::Gone));
            let tids: Vec<Pid> = alive.map(|prey| prey.tid).collect();
            self.list_children(seen, &tids)?;
            seen += 1;
        }
        Ok(())
    }

    fn list_children(&mut self, index: usize, tids: &[Pid]) -> Result<(), Error> {
        let group = &self.groups[index];
        if matches!(group.kind, Kind::Zombie | Kind::Gone) {
            return Ok(());
        }
        let pid = group.pid;
        let mut children = Vec::new();
        for tid in tids {
            self.scanner.children(pid, *tid, &mut children)?;
        }
        // The youngest are the ones that may get away.
        for (place, child) in children.into_iter().enumerate().rev() {
            self.add(child, pid.as_raw_pid(), place)?;
        }
        Ok(())
    }

    fn list_by_parents(&mut self, strangers: &[Pid]) -> Result<(), Error> {
        let mut parents = Vec::with_capacity(strangers.len());
        for pid in strangers {
            if let Some(stat) = scan::stat(*pid)? {
                parents.push((*pid, stat.ppid));
            }
        }
        loop {
            let is_known =
                |ppid: i32| Pid::from_raw(ppid).is_some_and(|ppid| self.by_pid.contains_key(&ppid));
            let (found, rest): (Vec<_>, Vec<_>) =
                parents.into_iter().partition(|(_, ppid)| is_known(*ppid));
            if found.is_empty() {
                return Ok(());
            }
            for (place, (pid, ppid)) in found.into_iter().enumerate() {
                self.add(pid, ppid, place)?;
            }
            parents = rest;
        }
    }
}
