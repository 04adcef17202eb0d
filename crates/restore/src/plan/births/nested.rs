//! Births in pid namespaces below that of the root.
//!
//! Whoever begins one is born before any file is opened, and so are all above it: what is opened may be in the procfs
//! of that namespace. They share the descriptors of the restorer meanwhile, as the root does.

use gelid_sys::clone::flags;

use super::super::PlanError;
use super::super::place::Place;
use super::super::tree::Node;
use super::{Births, Step, Who};
use crate::files::Session;

/// `CLONE_NEWPID` for the first process of a pid namespace below the root's.
pub(super) fn begins(nodes: &[Node], index: usize) -> u64 {
    match nodes[index].begins_numbers() {
        true => flags::NEWPID,
        false => 0,
    }
}

/// Refuses the first process of a pid namespace if somebody else than its parent would have to create it.
pub(super) fn by_parent_only(node: &Node, begins: u64) -> Result<(), PlanError> {
    match begins {
        0 => Ok(()),
        _ => Err(PlanError::Tree {
            pid: node.pid,
            what: "begins a pid namespace, but could not have been created by its parent",
        }),
    }
}

/// The numbers below the root's of somebody who has ended, by which others still know their group or session.
pub(super) fn below(node: &Node, ids: impl Fn(&Place) -> &Vec<i32>) -> Result<Vec<i32>, PlanError> {
    let below = node.place.as_ref().map(ids).cloned().unwrap_or_default();
    match below.contains(&0) {
        false => Ok(below),
        true => Err(PlanError::Tree {
            pid: node.pid,
            what: "is in a group or session whose leader has ended in another pid namespace",
        }),
    }
}

/// Finds out which steps come early, and moves them to the front.
pub(super) fn plan(
    nodes: &[Node],
    sessions: &[Session],
    births: &mut Births,
) -> Result<(), PlanError> {
    if nodes.iter().all(|node| node.place.is_none()) {
        return Ok(());
    }
    let wanted = wanted(nodes);
    births.early = vec![0; nodes.len()];
    for (index, steps) in births.steps.iter_mut().enumerate() {
        let needed = |step: &Step| match step {
            Step::Fork {
                child: Who::Task(child),
                ..
            } => wanted[*child],
            _ => false,
        };
        // In each part, before and after a session begins, any order will do.
        for part in steps.split_mut(|step| *step == Step::SetSid) {
            part.sort_by_key(|step| !needed(step));
        }
        let last = steps.iter().rposition(needed);
        births.early[index] = last.map_or(0, |last| last + 1);
        for step in &steps[..births.early[index]] {
            if let Step::Fork { child, flags } = step {
                check(nodes, *child, *flags)?;
            }
        }
    }
    check_groups(nodes, births)?;
    check_terminals(nodes, sessions, &wanted)
}

/// Whoever stays in the group that it is born into must be born into the right one.
fn check_groups(nodes: &[Node], births: &Births) -> Result<(), PlanError> {
    for (index, node) in nodes.iter().enumerate() {
        let Some(parent) = node.parent.map(|parent| &nodes[parent]) else {
            continue;
        };
        let is_put = births.groups[index].is_some() || node.leads_session() || node.pgid == 0;
        let is_seen = node.group_from(node.level()) != 0 || node.group_from(parent.level()) != 0;
        if parent.pgid != node.pgid && (!is_put || !is_seen) {
            return Err(PlanError::Tree {
                pid: node.pid,
                what: "is in a group that nobody could have put it into",
            });
        }
    }
    Ok(())
}

/// Whoever begins a pid namespace, and all above.
fn wanted(nodes: &[Node]) -> Vec<bool> {
    let mut wanted: Vec<bool> = nodes.iter().map(Node::begins_numbers).collect();
    // Children come behind their parents.
    for index in (1..nodes.len()).rev() {
        if wanted[index] {
            wanted[nodes[index].parent.unwrap_or_default()] = true;
        }
    }
    // The root's own is not one of those below.
    wanted
}

fn check(nodes: &[Node], child: Who, shared: u64) -> Result<(), PlanError> {
    let Who::Task(index) = child else {
        return Ok(());
    };
    let node = &nodes[index];
    let wrong = |what| PlanError::Tree {
        pid: node.pid,
        what,
    };
    if shared & (flags::FILES | flags::FS) != 0 {
        return Err(wrong(
            "shares descriptors or directories with another task above a pid namespace of the tree",
        ));
    }
    Ok(())
}

/// A terminal can be given to a session only before its members are born.
fn check_terminals(nodes: &[Node], sessions: &[Session], wanted: &[bool]) -> Result<(), PlanError> {
    let wanted = nodes.iter().zip(wanted).filter(|(_, wanted)| **wanted);
    for (node, _) in wanted {
        let taken = sessions.iter().any(|session| session.sid == node.sid);
        let has_leader = nodes.iter().any(|other| other.pid == node.sid);
        if taken && has_leader && !node.leads_session() {
            return Err(PlanError::Tree {
                pid: node.pid,
                what: "has the terminal of a session of the tree, above a pid namespace or as the first process there",
            });
        }
    }
    Ok(())
}
