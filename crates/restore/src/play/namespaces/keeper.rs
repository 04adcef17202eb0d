//! Somebody in the user namespace of a tree who has the descriptors of this process. Tasks that were born before a
//! file could be opened fetch it from there: from this process, which is outside, they may not.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use gelid_sys::clone::flags;
use gelid_sys::pidfd;
use gelid_sys::ptrace::Stopped;

use super::super::births::clone_call;
use super::super::crew::{Crew, Numbering};
use super::super::script::Script;
use super::Stage;
use crate::Error;
use crate::plan::Plan;
use crate::plan::births::Who;

/// Lives until it is [ended](Self::end), as a child of the root.
#[derive(Debug)]
pub(crate) struct Keeper {
    task: Stopped,
    number: i32,
    /// What tasks know it by.
    pub(crate) pidfd: OwnedFd,
}

impl Keeper {
    /// Comes to be.
    pub(super) fn born(stage: &mut Stage<'_>) -> Result<Self, Error> {
        let (number, task) = child_of_the_root(stage, 0)?;
        let pidfd = pidfd::open(task.pid()).map_err(stage.failed("pidfd_open"))?;
        Ok(Self {
            task,
            number,
            pidfd,
        })
    }

    /// Is needed no more.
    pub(crate) fn end(self, crew: &mut Crew) -> Result<(), Error> {
        crew.end_child(Who::Task(0), self.task.pid(), self.number)
    }
}

/// A child of the root that shares its descriptors, and its number, which nobody of the tree has; another one for each
/// `place`.
pub(super) fn child_of_the_root(
    stage: &mut Stage<'_>,
    place: usize,
) -> Result<(i32, Stopped), Error> {
    // Among others any number may be taken.
    let wanted = stage.plan.numbering() == Numbering::OfTree;
    let wanted = wanted.then(|| free_number(stage.plan, place));
    let mut script = Script::default();
    let op = clone_call(&mut script, wanted.as_slice(), flags::FILES);
    let outcome = stage.hand(script)?;
    let number = i32::try_from(outcome.ok(op).unwrap_or_default()).unwrap_or_default();
    Ok((number, stage.crew.newborn(number)?))
}

/// A number that neither the tasks of the tree nor those who stand in for others are to have.
fn free_number(plan: &Plan, place: usize) -> i32 {
    /// What `/proc/sys/kernel/pid_max` is at least where nobody has made it less.
    const HIGHEST: i32 = 32767;
    let of_node = |node: &crate::plan::tree::Node| {
        let threads = node.threads.iter().copied();
        let threads: Vec<i32> = threads.chain([node.pid, node.pgid, node.sid]).collect();
        threads
    };
    let mut taken: BTreeSet<i32> = plan.nodes.iter().flat_map(of_node).collect();
    taken.extend(plan.files.processes());
    let mut free = (1..=HIGHEST).rev().filter(|number| !taken.contains(number));
    free.nth(place).unwrap_or(HIGHEST)
}
