//! Parents, groups and sessions: `pstree.img`. Section 6.1 of the format.

use std::collections::HashSet;

use gelid_image::messages::PstreeEntry;
use gelid_image::{ImageKind, Staging};
use gelid_sys::{Pid, proc};

use crate::namespace::{Numbers, Place};
use crate::survey::Task;
use crate::{Error, Refusal};

/// Refuses sessions and process groups that a restore could not make.
pub(crate) fn check(tasks: &[Task], shell_job: bool) -> Result<(), Refusal> {
    let Some(root) = tasks.first() else {
        return Ok(());
    };
    if root.stat.sid != root.pid.as_raw_pid() && !shell_job {
        return Err(Refusal::ShellJob {
            pid: root.pid,
            comm: root.comm(),
            sid: root.stat.sid,
        });
    }
    let inside: HashSet<i32> = tasks.iter().map(|task| task.pid.as_raw_pid()).collect();
    // What the root has of others is replaced by what the restorer has.
    let mut settled = HashSet::from([root.stat.sid, root.stat.pgrp]);
    for task in tasks {
        for (what, id) in [
            ("session", task.stat.sid),
            ("process group", task.stat.pgrp),
        ] {
            // A leader that has ended is no obstacle: its number is free when the tree has gone.
            if !inside.contains(&id) && settled.insert(id) && is_alive(id) {
                return Err(Refusal::Foreign {
                    pid: task.pid,
                    comm: task.comm(),
                    what,
                    id,
                });
            }
        }
    }
    Ok(())
}

/// Notes who has left the terminal of the leader of its session.
pub(crate) fn find_terminals(tasks: &mut [Task]) {
    let leaders = tasks.iter().filter(|task| task.stat.sid == task.stat.pid);
    let with_terminal = leaders.filter(|leader| leader.stat.tty_nr != 0);
    let sessions: HashSet<i32> = with_terminal.map(|leader| leader.stat.sid).collect();
    for task in tasks.iter_mut().filter(|task| task.live.is_some()) {
        task.no_terminal = task.stat.tty_nr == 0 && sessions.contains(&task.stat.sid);
    }
}

fn is_alive(id: i32) -> bool {
    Pid::from_raw(id).is_some_and(|pid| proc::task_dir(pid).is_ok())
}

/// Writes `pstree.img`.
pub(crate) fn write(staging: &Staging, tasks: &[Task], numbers: &Numbers) -> Result<(), Error> {
    let mut writer = staging.writer(ImageKind::Pstree, ())?;
    for task in tasks {
        writer.push(&entry(task, numbers))?;
    }
    writer.finish()?;
    Ok(())
}

fn entry(task: &Task, numbers: &Numbers) -> PstreeEntry {
    let of = |outer| number(numbers.number(outer));
    PstreeEntry {
        pid: number(task.number()),
        ppid: of(task.ppid),
        pgid: of(task.stat.pgrp),
        sid: of(task.stat.sid),
        threads: task
            .numbers
            .iter()
            .map(|thread| number(thread.image))
            .collect(),
        place: task.place.as_ref().map(Place::entry),
        pid_ns_for_children: task.pid_ns_for_children,
    }
}

/// An id of the kernel is never negative.
fn number(id: i32) -> u32 {
    id.unsigned_abs()
}
