//! From the loose list of what has been seized to the tree.

use std::collections::HashMap;
use std::time::Instant;

use gelid_sys::Pid;

use crate::release::release;
use crate::roundup::{Cgroup, Group, Kind, Roundup, Slot};
use crate::tree::{Process, State, Thread, Tree, Zombie};
use crate::{Error, scan};

impl Roundup<'_> {
    /// The tree, all of which stands still. What was seized but belongs to others by now, because its parent
    /// has ended, is let go.
    pub(crate) fn into_tree(mut self) -> Result<Tree, Error> {
        self.refresh_parents()?;
        let zombies = self.zombies()?;
        let ended = self.ended_leaders()?;
        let mut groups: HashMap<Pid, Group> = HashMap::new();
        let mut children: HashMap<i32, Vec<Pid>> = HashMap::new();
        let root = self.options.root;
        self.groups.sort_by_key(|group| group.rank);
        for group in self
            .groups
            .drain(..)
            .filter(|group| group.kind != Kind::Gone)
        {
            if group.pid != root {
                children.entry(group.ppid).or_default().push(group.pid);
            }
            groups.insert(group.pid, group);
        }
        let mut processes = Vec::with_capacity(groups.len());
        let mut next = vec![root];
        while let Some(pid) = next.pop() {
            if let Some(group) = groups.remove(&pid) {
                processes.push(process(group, &zombies, &ended));
            }
            next.extend(
                children
                    .remove(&pid.as_raw_pid())
                    .into_iter()
                    .flatten()
                    .rev(),
            );
        }
        self.groups.extend(groups.into_values());
        let (strays, running) = self.take_slots();
        if let Err(error) = release(strays, running) {
            tracing::warn!(%error, "letting go of an orphan");
        }
        let cgroup = match std::mem::replace(&mut self.cgroup, Cgroup::None) {
            Cgroup::Thawed(thawed) => Some(thawed),
            _ => None,
        };
        let since = self.since.unwrap_or_else(Instant::now);
        self.stats.freezing = since.elapsed();
        Ok(Tree::new(
            processes,
            cgroup,
            since,
            self.stats,
            self.suspend_seccomp,
        ))
    }

    /// The parent of a process is another one by now if its first has ended. That of the root is not known
    /// yet.
    fn refresh_parents(&mut self) -> Result<(), Error> {
        let orphaned = self.groups.iter().any(|group| group.kind == Kind::Gone);
        let affected = if orphaned { self.groups.len() } else { 1 };
        for group in self
            .groups
            .iter_mut()
            .take(affected)
            .filter(|group| group.kind != Kind::Gone)
        {
            if let Some(stat) = scan::stat(group.pid)? {
                group.ppid = stat.ppid;
            }
        }
        Ok(())
    }

    fn zombies(&self) -> Result<HashMap<Pid, Zombie>, Error> {
        let mut zombies = HashMap::new();
        for group in self
            .groups
            .iter()
            .filter(|group| group.kind == Kind::Zombie)
        {
            if let Some(stat) = scan::stat(group.pid)? {
                let (pgid, sid, comm) = (stat.pgrp, stat.sid, stat.comm);
                zombies.insert(
                    group.pid,
                    Zombie {
                        exit_status: stat.exit_code,
                        pgid,
                        sid,
                        comm,
                    },
                );
            }
        }
        Ok(zombies)
    }

    /// How the main threads of processes have ended that live on without.
    fn ended_leaders(&self) -> Result<HashMap<Pid, i32>, Error> {
        let mut ended = HashMap::new();
        for group in &self.groups {
            if matches!(group.kind, Kind::DeadLeader(_))
                && let Some(stat) = scan::stat_of_leader(group.pid)?
            {
                ended.insert(group.pid, stat.exit_code);
            }
        }
        Ok(ended)
    }
}

fn process(group: Group, zombies: &HashMap<Pid, Zombie>, ended: &HashMap<Pid, i32>) -> Process {
    let mut signal = 0;
    let mut threads = Vec::with_capacity(group.threads.len());
    for prey in group.threads {
        if let Slot::Stopped(task, stopped_by) = prey.slot {
            signal = stopped_by;
            threads.push(Thread::new(task));
        }
    }
    threads.sort_by_key(|thread| (thread.tid != group.pid, thread.tid.as_raw_pid()));
    let state = match zombies.get(&group.pid) {
        Some(zombie) => State::Zombie(zombie.clone()),
        None if signal == 0 => State::Alive,
        None => State::Stopped { signal },
    };
    Process {
        pid: group.pid,
        ppid: group.ppid,
        state,
        ended_leader: ended.get(&group.pid).copied(),
        threads,
    }
}
