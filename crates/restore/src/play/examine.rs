//! What on this machine would be in the way of a restore. Nothing is made or changed.

use std::os::fd::OwnedFd;

use gelid_pages::Sets;
use gelid_sys::proc::{self, stat};
use gelid_sys::{Pid, proc::ns::Kind};

use super::kernel::Kernel;
use super::sources::Sources;
use super::space;
use crate::plan::Plan;
use crate::state::Machine;
use crate::{Error, Options};

/// Finds everything that can be seen in advance, but for what cannot be planned at all.
pub(crate) fn run(
    plan: &Plan,
    sets: &Sets,
    options: &Options,
    root: &OwnedFd,
) -> Result<Vec<Error>, Error> {
    let mut found = Vec::new();
    let kernel = Kernel::look()?;
    Sources::look(plan, sets, &kernel, |checked| {
        found.extend(checked.err());
        Ok(())
    })?;
    for space in &plan.spaces {
        found.extend(space::check(space).err().map(Error::from));
    }
    let machine = Machine::look()?;
    for (_, alive) in plan.alive() {
        found.extend(alive.process.check(&machine).err().map(Error::from));
        for thread in &alive.threads {
            found.extend(thread.state.check(&machine).err().map(Error::from));
            let restraint = thread.restraint.check(thread.tid, &machine);
            found.extend(restraint.err().map(Error::from));
        }
    }
    if !plan.has_numbers() {
        let numbers = plan.nodes.iter().flat_map(|node| &node.threads);
        found.extend(numbers.filter_map(|number| taken(*number)));
    }
    // With mounts of its own the tree brings its paths with it.
    if options.root.is_none() && plan.namespaces.root(Kind::Mnt).is_none() {
        let changed = plan.files.changed(root).into_iter();
        found.extend(changed.map(Error::from));
    }
    Ok(found)
}

/// Who has a number that a task is to get.
fn taken(number: i32) -> Option<Error> {
    let dir = proc::task_dir(Pid::from_raw(number)?).ok()?;
    let stat = stat::read(&dir).ok()?;
    Some(Error::PidTaken {
        pid: number,
        comm: String::from_utf8_lossy(&stat.comm).into_owned(),
        passing: stat.state.is_dead(),
    })
}
