//! In which order tasks are born, and by whom, so that each comes to its parent and its session.
//!
//! A child is born into the session that its creator has at that moment, so a session leader has its
//! children of the old session before it calls `setsid(2)` and the others afterwards. What cannot be
//! reached that way belongs to a leader that has ended or that is no ancestor: then the leader, or a
//! helper under its pid, creates the task as a sibling (`CLONE_PARENT`), or by a go-between that dies,
//! so that the task comes to its reaper. Helpers end when the groups are in order.

mod nested;
pub(crate) mod users;

use std::collections::HashMap;

use gelid_sys::clone::flags;

use super::PlanError;
use super::tree::Node;
use crate::files::Session;

/// A process to be born.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    /// A task of the image, by its index.
    Task(usize),
    /// A helper, by its index.
    Helper(usize),
}

/// What a process does once it is born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Starts a session.
    SetSid,
    /// Creates another one, with these `CLONE_*` flags.
    Fork {
        /// The new one.
        child: Who,
        /// What is shared, and `CLONE_PARENT`.
        flags: u64,
    },
}

/// A process that is there only for others to get their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Helper {
    /// The pid of a dead leader; none for a go-between.
    pub(crate) pid: Option<i32>,
    /// Its numbers in pid namespaces below the root's, the outermost first.
    pub(crate) below: Vec<i32>,
    /// Whose child it is, and who reaps it.
    pub(crate) parent: usize,
    /// It leads a group.
    pub(crate) leads_group: bool,
    /// The user namespace that it is born in, if that is not the root's.
    pub(crate) users: Option<u32>,
    pub(crate) steps: Vec<Step>,
}

/// The order of births.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Births {
    /// By task.
    pub(crate) steps: Vec<Vec<Step>>,
    pub(crate) helpers: Vec<Helper>,
    /// Tasks that must take in orphans for a while.
    pub(crate) reapers: Vec<usize>,
    /// By task: the group to join, where it is not the one it is born into.
    pub(crate) groups: Vec<Option<i32>>,
    /// Terminals, and who takes them.
    pub(crate) terminals: Vec<Taken>,
    /// By task: how many of its steps come before any file is opened, so that pid namespaces are there by then. Empty
    /// if there are none below the root's.
    pub(crate) early: Vec<usize>,
    /// By task: in which user namespaces it is meanwhile. Empty if there are none below the root's.
    users: Vec<users::Users>,
}

impl Births {
    /// True if there are pid namespaces below that of the root.
    pub(crate) fn is_nested(&self) -> bool {
        !self.early.is_empty()
    }

    /// What somebody does before any file is opened.
    pub(crate) fn early_steps(&self, who: Who) -> &[Step] {
        let (steps, early) = self.steps(who);
        &steps[..early]
    }

    /// What somebody does once files are there.
    pub(crate) fn late_steps(&self, who: Who) -> &[Step] {
        let (steps, early) = self.steps(who);
        &steps[early..]
    }

    fn steps(&self, who: Who) -> (&[Step], usize) {
        match who {
            Who::Task(index) => {
                let early = self.early.get(index).copied().unwrap_or_default();
                (&self.steps[index], early)
            }
            Who::Helper(index) => (&self.helpers[index].steps, 0),
        }
    }
}

/// A terminal that becomes that of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The leader of the session.
    pub(crate) leader: usize,
    /// The group in the foreground.
    pub(crate) foreground: Option<i32>,
    /// The caller has given it, and may have it in a session already.
    pub(crate) is_given: bool,
}

/// Tables that a task may share with another, as ids that are equal if they are shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) vm: u32,
    pub(crate) files: u32,
    pub(crate) fs: u32,
    pub(crate) sighand: u32,
}

/// Plans the births; `tables` has none for zombies, `sessions` are those that have a terminal. With `job`, the group of the root becomes that of the
/// caller, if its session does.
pub(crate) fn plan(
    nodes: &[Node],
    tables: &[Option<Tables>],
    sessions: &[Session],
    job: bool,
) -> Result<Births, PlanError> {
    let mut planner = Planner::new(nodes, tables);
    planner.is_nested = nodes.iter().any(|node| node.place.is_some());
    for index in 1..nodes.len() {
        planner.place(index)?;
    }
    planner.join_groups(job)?;
    planner.foregrounds(sessions);
    let mut births = planner.finish();
    nested::plan(nodes, sessions, &mut births)?;
    Ok(births)
}

struct Planner<'a> {
    nodes: &'a [Node],
    tables: &'a [Option<Tables>],
    /// Tasks that share nothing, as most do.
    alone: Vec<bool>,
    /// The session a leader has to be born into for the sake of its children.
    needs: Vec<Option<i32>>,
    by_pid: HashMap<i32, usize>,
    before: Vec<Vec<Step>>,
    after: Vec<Vec<Step>>,
    helpers: Vec<Helper>,
    leaders: HashMap<i32, usize>,
    reapers: Vec<usize>,
    groups: Vec<Option<i32>>,
    terminals: Vec<Taken>,
    /// There are pid namespaces below the root's.
    is_nested: bool,
}

impl<'a> Planner<'a> {
    fn new(nodes: &'a [Node], tables: &'a [Option<Tables>]) -> Self {
        let by_pid = nodes
            .iter()
            .enumerate()
            .map(|(index, node)| (node.pid, index))
            .collect();
        Self {
            nodes,
            tables,
            alone: alone(tables),
            needs: needs(nodes),
            by_pid,
            before: vec![Vec::new(); nodes.len()],
            after: vec![Vec::new(); nodes.len()],
            helpers: Vec::new(),
            leaders: HashMap::new(),
            reapers: Vec::new(),
            groups: vec![None; nodes.len()],
            terminals: Vec::new(),
            is_nested: false,
        }
    }

    /// Decides who creates a task.
    fn place(&mut self, index: usize) -> Result<(), PlanError> {
        let parent = self.nodes[index].parent.unwrap_or_default();
        let child = Who::Task(index);
        let numbers = nested::begins(self.nodes, index);
        if let Some(sibling) = self.sharing_sibling(index, parent) {
            nested::by_parent_only(&self.nodes[index], numbers)?;
            let flags = self.shared(sibling, index)? | flags::PARENT;
            self.after[sibling].push(Step::Fork { child, flags });
            return Ok(());
        }
        let fork = Step::Fork {
            child,
            flags: self.shared(parent, index)? | numbers,
        };
        let above = &self.nodes[parent];
        match self.needs[index] {
            None => self.after[parent].push(fork),
            Some(sid) if sid == above.sid => self.after[parent].push(fork),
            Some(sid) if above.leads_session() && self.needs[parent] == Some(sid) => {
                self.before[parent].push(fork);
            }
            Some(sid) => {
                nested::by_parent_only(&self.nodes[index], numbers)?;
                self.by_leader(index, parent, sid)?;
            }
        }
        Ok(())
    }

    /// Has a task created by the leader of its session, or by a helper in its place.
    fn by_leader(&mut self, index: usize, parent: usize, sid: i32) -> Result<(), PlanError> {
        let child = Who::Task(index);
        let sibling = Step::Fork {
            child,
            flags: flags::PARENT,
        };
        let Some(leader) = self.by_pid.get(&sid).copied() else {
            let below = nested::below(&self.nodes[index], |place| &place.sid)?;
            let helper = self.leader_helper(sid, parent, below);
            if self.helpers[helper].parent == parent {
                self.helpers[helper].steps.push(sibling);
            } else {
                self.by_go_between(Who::Helper(helper), index, parent);
            }
            return Ok(());
        };
        if self.nodes[leader].pid_ns() != self.nodes[index].pid_ns() {
            return Err(PlanError::Tree {
                pid: self.nodes[index].pid,
                what: "is in the session of somebody in another pid namespace who could not have created it",
            });
        }
        if self.nodes[leader].parent == Some(parent) {
            self.after[leader].push(sibling);
        } else {
            self.by_go_between(Who::Task(leader), index, parent);
        }
        Ok(())
    }

    /// The helper that stands for a dead leader of a session.
    fn leader_helper(&mut self, sid: i32, parent: usize, below: Vec<i32>) -> usize {
        if let Some(helper) = self.leaders.get(&sid) {
            return *helper;
        }
        let helper = self.helper((Some(sid), below), parent, vec![Step::SetSid]);
        self.leaders.insert(sid, helper);
        let fork = Step::Fork {
            child: Who::Helper(helper),
            flags: 0,
        };
        // It leaves the session at once, so it may be born into any.
        self.after[parent].push(fork);
        helper
    }

    fn by_go_between(&mut self, creator: Who, index: usize, parent: usize) {
        let fork = Step::Fork {
            child: Who::Task(index),
            flags: 0,
        };
        let of_creator = match creator {
            Who::Task(task) => task,
            Who::Helper(helper) => self.helpers[helper].parent,
        };
        let helper = self.helper((None, Vec::new()), of_creator, vec![fork]);
        let step = Step::Fork {
            child: Who::Helper(helper),
            // A helper's child would be an orphan when the helper ends; its sibling is not.
            flags: match creator {
                Who::Task(_) => 0,
                Who::Helper(_) => flags::PARENT,
            },
        };
        match creator {
            Who::Task(task) => self.after[task].push(step),
            Who::Helper(helper) => self.helpers[helper].steps.push(step),
        }
        if !self.reapers.contains(&parent) {
            self.reapers.push(parent);
        }
    }

    fn helper(
        &mut self,
        (pid, below): (Option<i32>, Vec<i32>),
        parent: usize,
        steps: Vec<Step>,
    ) -> usize {
        self.helpers.push(Helper {
            pid,
            below,
            parent,
            leads_group: false,
            users: None,
            steps,
        });
        self.helpers.len() - 1
    }

    /// An earlier child of the same parent whose tables the task shares, unless they are the parent's too.
    fn sharing_sibling(&self, index: usize, parent: usize) -> Option<usize> {
        let own = self.tables[index].filter(|_| !self.alone[index])?;
        let with_parent = self.tables[parent].map_or(0, |tables| common(own, tables));
        (1..index).find(|other| {
            self.nodes[*other].parent == Some(parent)
                && self.tables[*other].is_some_and(|tables| common(own, tables) & !with_parent != 0)
        })
    }

    /// Flags for what a task shares with its creator; whatever else it shares must be shared with that too.
    fn shared(&self, creator: usize, index: usize) -> Result<u64, PlanError> {
        let Some(own) = self.tables[index].filter(|_| !self.alone[index]) else {
            return Ok(0);
        };
        let with_creator = self.tables[creator].map_or(0, |tables| common(own, tables));
        let with_others = self.tables[..index]
            .iter()
            .flatten()
            .fold(0, |flags, tables| flags | common(own, *tables));
        if with_others & !with_creator != 0 {
            return Err(PlanError::Tree {
                pid: self.nodes[index].pid,
                what: "shares tables with a task that could not have created it",
            });
        }
        if with_creator & flags::SIGHAND != 0 && with_creator & flags::VM == 0 {
            return Err(PlanError::Tree {
                pid: self.nodes[index].pid,
                what: "shares signal handlers without sharing memory",
            });
        }
        Ok(with_creator)
    }

    /// Finds the group of each task, with helpers for dead leaders.
    fn join_groups(&mut self, job: bool) -> Result<(), PlanError> {
        let root = &self.nodes[0];
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            // A task is born into the group of its session's leader, or into that of the caller.
            let foreign = node.sid == 0 || (node.sid == root.sid && !root.leads_session());
            let inherited = if foreign { root.pgid } else { node.sid };
            let foreign_group = foreign && (job || !self.by_pid.contains_key(&root.pgid));
            if node.pgid == 0 || node.leads_session() {
                continue;
            }
            let outside = root.pgid == node.pgid && foreign_group;
            let inherits = node.pgid == inherited && (!foreign || foreign_group);
            let stays = if self.is_nested { outside } else { inherits };
            if stays {
                continue;
            }
            self.groups[index] = Some(node.pgid);
            if self.by_pid.contains_key(&node.pgid) || self.leaders.contains_key(&node.pgid) {
                continue;
            }
            let pgid = node.pgid;
            let below = nested::below(node, |place| &place.pgid)?;
            let helper = self.helper((Some(pgid), below), index, Vec::new());
            self.helpers[helper].leads_group = true;
            self.leaders.insert(pgid, helper);
            let fork = Step::Fork {
                child: Who::Helper(helper),
                flags: 0,
            };
            self.after[index].push(fork);
        }
        Ok(())
    }

    /// Finds who takes each terminal, with helpers for groups in the foreground of which nobody is left.
    fn foregrounds(&mut self, sessions: &[Session]) {
        for session in sessions {
            let leader = self.by_pid.get(&session.sid).copied();
            let Some(leader) = leader.filter(|leader| self.nodes[*leader].leads_session()) else {
                continue;
            };
            let there = |pgid: &i32| {
                let mut members = self.nodes.iter();
                members.any(|node| node.pgid == *pgid && node.sid == session.sid)
            };
            let mut foreground = session.foreground;
            if let Some(pgid) = foreground.filter(|pgid| !there(pgid)) {
                let is_below = self.nodes[leader].place.is_some();
                if is_below || self.by_pid.contains_key(&pgid) || self.leaders.contains_key(&pgid) {
                    // The number is taken, or not known, so nobody can tell.
                    foreground = None;
                } else {
                    let helper = self.helper((Some(pgid), Vec::new()), leader, Vec::new());
                    self.helpers[helper].leads_group = true;
                    self.leaders.insert(pgid, helper);
                    let child = Who::Helper(helper);
                    self.after[leader].push(Step::Fork { child, flags: 0 });
                }
            }
            self.terminals.push(Taken {
                leader,
                foreground,
                is_given: session.is_given,
            });
        }
    }

    fn finish(self) -> Births {
        let steps = self
            .nodes
            .iter()
            .zip(self.before.into_iter().zip(self.after))
            .map(|(node, (mut steps, after))| {
                if node.leads_session() {
                    steps.push(Step::SetSid);
                }
                steps.extend(after);
                steps
            })
            .collect();
        Births {
            steps,
            helpers: self.helpers,
            reapers: self.reapers,
            groups: self.groups,
            terminals: self.terminals,
            early: Vec::new(),
            users: Vec::new(),
        }
    }
}

/// The session each task has to be born into; any will do where there is none.
fn needs(nodes: &[Node]) -> Vec<Option<i32>> {
    let mut needs: Vec<Option<i32>> = nodes
        .iter()
        .map(|node| (!node.leads_session() && node.sid != 0).then_some(node.sid))
        .collect();
    // Children come behind their parents.
    for index in (1..nodes.len()).rev() {
        let parent = nodes[index].parent.unwrap_or_default();
        let above = &nodes[parent];
        if above.leads_session() && parent != 0 && needs[parent].is_none() {
            let born_into = above.parent.map(|creator| nodes[creator].sid);
            needs[parent] = needs[index].filter(|sid| {
                // Nobody but its parent can create the first process of a pid namespace.
                *sid != above.pid && (!above.begins_numbers() || born_into == Some(*sid))
            });
        }
    }
    needs
}

/// Tells of each task whether nobody else has any of its tables.
fn alone(tables: &[Option<Tables>]) -> Vec<bool> {
    let ids = |tables: &Tables| [tables.vm, tables.files, tables.fs, tables.sighand];
    let mut counts: [HashMap<u32, usize>; 4] = Default::default();
    for tables in tables.iter().flatten() {
        for (counts, id) in counts.iter_mut().zip(ids(tables)) {
            *counts.entry(id).or_default() += 1;
        }
    }
    let is_alone = |tables: &Tables| {
        let mut all = counts.iter().zip(ids(tables));
        all.all(|(counts, id)| counts.get(&id) == Some(&1))
    };
    let all = tables.iter();
    all.map(|tables| tables.as_ref().is_none_or(is_alone))
        .collect()
}

/// What two tasks share.
fn common(one: Tables, other: Tables) -> u64 {
    let pairs = [
        (one.vm == other.vm, flags::VM),
        (one.files == other.files, flags::FILES),
        (one.fs == other.fs, flags::FS),
        (one.sighand == other.sighand, flags::SIGHAND),
    ];
    let shared = pairs.iter().filter(|(same, _)| *same);
    shared.fold(0, |all, (_, flag)| all | flag)
}

#[cfg(test)]
mod tests;
