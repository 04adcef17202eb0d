//! In which user namespace everybody is born. It is the root's, and tasks enter their own when all is made; but what a
//! pid namespace belongs to is where it was made: its first process is born together with that user namespace, or of
//! somebody in it, and so are all below.

use std::collections::HashSet;

use super::super::namespaces::Namespaces;
use super::super::tree::Node;
use super::super::{Life, PlanError};
use super::{Births, Step, Who};

/// Where a task is meanwhile; `None` is the user namespace of the root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Users {
    /// Where it is born.
    pub(crate) born: Option<u32>,
    /// That one comes to be with it.
    pub(crate) is_first: bool,
    /// Where it bears others.
    pub(crate) bears: Option<u32>,
}

impl Births {
    /// Where a task is meanwhile.
    pub(crate) fn users(&self, index: usize) -> Users {
        self.users.get(index).copied().unwrap_or_default()
    }

    /// Where somebody is who bears others.
    pub(crate) fn users_of(&self, who: Who) -> Option<u32> {
        match who {
            Who::Task(index) => self.users(index).bears,
            Who::Helper(index) => self.helpers.get(index)?.users,
        }
    }

    /// User namespaces that come to be with a task.
    pub(crate) fn first_users(&self) -> impl Iterator<Item = u32> {
        let first = self.users.iter().filter(|users| users.is_first);
        first.filter_map(|users| users.born)
    }
}

impl Life {
    /// The user namespace of the task, if that is below the root's.
    pub(crate) fn users(&self) -> Option<u32> {
        match self {
            Self::Zombie { .. } => None,
            Self::Alive(alive) => alive.users,
        }
    }
}

/// Finds it out.
pub(crate) fn plan(
    births: &mut Births,
    nodes: &[Node],
    lives: &[Life],
    namespaces: &Namespaces,
) -> Result<(), PlanError> {
    if namespaces.below.is_empty() {
        return Ok(());
    }
    births.users = vec![Users::default(); nodes.len()];
    let mut planner = Planner {
        nodes,
        lives,
        namespaces,
        made: HashSet::new(),
    };
    let mut left = vec![Who::Task(0)];
    while let Some(who) = left.pop() {
        planner.bear(births, who, &mut left)?;
    }
    for (index, node) in nodes.iter().enumerate() {
        let Life::Alive(alive) = &lives[index] else {
            continue;
        };
        if !namespaces.rules(births.users[index].bears, alive.users) {
            return Err(PlanError::Tree {
                pid: node.pid,
                what: "is in a user namespace that it could not have come to",
            });
        }
    }
    Ok(())
}

struct Planner<'a> {
    nodes: &'a [Node],
    lives: &'a [Life],
    namespaces: &'a Namespaces,
    made: HashSet<u32>,
}

impl Planner<'_> {
    /// Decides about all whom somebody bears, and appends them.
    fn bear(
        &mut self,
        births: &mut Births,
        who: Who,
        left: &mut Vec<Who>,
    ) -> Result<(), PlanError> {
        let steps = match who {
            Who::Task(index) => births.steps[index].clone(),
            Who::Helper(index) => births.helpers[index].steps.clone(),
        };
        let born = match who {
            Who::Task(index) => births.users[index].born,
            Who::Helper(index) => births.helpers[index].users,
        };
        let children = steps.iter().filter_map(|step| match step {
            Step::Fork { child, .. } => Some(*child),
            Step::SetSid => None,
        });
        let children: Vec<Who> = children.collect();
        let begun: Vec<u32> = children
            .iter()
            .filter_map(|child| self.begins(*child))
            .collect();
        let now = match who {
            Who::Task(index) => {
                let now = self.where_to_bear(index, born, &begun)?;
                births.users[index].bears = now;
                now
            }
            Who::Helper(_) => born,
        };
        for child in children {
            match child {
                Who::Task(index) => {
                    let begun = self.begins(child).filter(|users| Some(*users) != now);
                    births.users[index] = Users {
                        born: begun.or(now),
                        is_first: begun.is_some(),
                        bears: begun.or(now),
                    };
                }
                Who::Helper(index) => births.helpers[index].users = now,
            }
            left.push(child);
        }
        Ok(())
    }

    /// The user namespace of the pid namespace that a task begins.
    fn begins(&self, who: Who) -> Option<u32> {
        let Who::Task(index) = who else { return None };
        let node = &self.nodes[index];
        let id = node.pid_ns().filter(|_| node.begins_numbers())?;
        self.namespaces.owner(id)
    }

    fn where_to_bear(
        &mut self,
        index: usize,
        born: Option<u32>,
        begun: &[u32],
    ) -> Result<Option<u32>, PlanError> {
        for now in [born, self.lives[index].users()] {
            let mut made = self.made.clone();
            let can = |users: &u32| {
                let above = self.namespaces.users_above(*users);
                Some(*users) == now || (above == now && made.insert(*users))
            };
            if begun.iter().all(can) {
                self.made = made;
                return Ok(now);
            }
        }
        Err(PlanError::Tree {
            pid: self.nodes[index].pid,
            what: "has children that begin pid namespaces of a user namespace that it could not have made",
        })
    }
}

impl Node {
    /// How many of its numbers, from the innermost pid namespace on, somebody in a user namespace may give.
    pub(crate) fn numbers_given_by(&self, users: Option<u32>, namespaces: &Namespaces) -> usize {
        let levels = self.level() + 1;
        if users.is_none() {
            return levels;
        }
        let above = |id: &u32| namespaces.pid_ns_above(*id).flatten();
        let all = std::iter::successors(self.pid_ns(), above).take(levels);
        let own = all.take_while(|id| {
            let owner = namespaces.owner(*id);
            owner.is_some() && namespaces.rules(users, owner)
        });
        own.count()
    }
}
