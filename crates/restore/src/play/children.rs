//! Where children will be born: in another pid namespace than their parent.

use gelid_sys::clone::flags::NEWPID;
use gelid_sys::syscall::nr;

use super::crew::Crew;
use super::script::{Object, Script};
use crate::Error;
use crate::plan::Plan;
use crate::plan::births::Who;

/// Decides it for each task that is to have it so. No thread can be born there afterwards.
pub(crate) fn settle(plan: &Plan, crew: &mut Crew) -> Result<(), Error> {
    let (mut open, mut opened, mut work) = (Vec::new(), Vec::new(), Vec::new());
    for (index, node) in plan.nodes.iter().enumerate() {
        let Some(id) = node.pid_ns_for_children else {
            continue;
        };
        let who = Who::Task(index);
        if !crew.bodies.contains_key(&who) {
            continue;
        }
        let mut script = Script::default();
        let Some(init) = plan.nodes.iter().find(|other| other.begins(id)) else {
            script.must(Object::Itself, nr::unshare, [NEWPID.into()]);
            work.push((who, script));
            continue;
        };
        let number = init.seen_from(node.level());
        let object = Object::Task(number);
        let op = script.must(object, nr::pidfd_open, [number.into(), 0.into()]);
        open.push((who, script));
        opened.push((who, object, op));
    }
    let outcomes = crew.play(&open)?;
    for ((who, object, op), outcome) in opened.into_iter().zip(outcomes) {
        let pidfd = outcome.ok(op).unwrap_or(u64::MAX);
        let mut script = Script::default();
        script.must(object, nr::setns, [pidfd.into(), NEWPID.into()]);
        script.must(object, nr::close, [pidfd.into()]);
        work.push((who, script));
    }
    crew.play(&work).map(drop)
}
