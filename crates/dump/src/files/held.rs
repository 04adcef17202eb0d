//! Duplicates of descriptors that are closed while the tree ends.
//!
//! Whoever closes the last descriptor of a description has the work of it, and a process with thousands of them closes
//! one after the other, ascending, before it has ended. A dumper that kills the tree keeps its duplicates of the first of
//! them until then: the process passes over these, and both close at the same time.

use std::os::fd::{OwnedFd, RawFd};
use std::time::{Duration, Instant};

use gelid_sys::proc::{self, TaskDir, fd, stat};
use gelid_sys::{Pid, pidfd, sched};

use super::gather::MANY;
use crate::{End, Options};

/// A process that has not begun to close by then has something else to do first.
const PATIENCE: Duration = Duration::from_millis(3);
/// How often it is looked whether it has.
const PAUSE: Duration = Duration::from_micros(20);

/// How many of the descriptors of a process are worth it: not half of them, as a call for each takes longer than the
/// process.
pub(crate) fn worth_holding(options: &Options, task: &TaskDir) -> u64 {
    match (options.end, fd::count(task)) {
        (End::Kill, Ok(count @ MANY..)) => count / 8 * 3,
        _ => 0,
    }
}

/// Duplicates that are held.
#[derive(Debug, Default)]
pub(crate) struct Held {
    files: Vec<OwnedFd>,
    /// So many more may be.
    pub(super) room: u64,
    /// The descriptor that the first is a duplicate of.
    first: Option<(Pid, RawFd)>,
}

impl Held {
    /// Takes the duplicate of a descriptor that has been recorded, or closes it, if there is no room.
    pub(super) fn take(&mut self, whose: (Pid, RawFd), file: OwnedFd) {
        if let Some(room) = self.room.checked_sub(1) {
            self.room = room;
            self.first.get_or_insert(whose);
            self.files.push(file);
        }
    }

    /// Closes them as soon as their process, which has been killed, closes its own. Before that there would be nothing to
    /// do, and all the work left to the process.
    pub(crate) fn close_behind(self) {
        let Some((pid, first)) = self.first else {
            return;
        };
        if let Ok(process) = pidfd::open(pid) {
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE && pidfd::getfd(&process, first).is_ok() {
                std::thread::sleep(PAUSE);
            }
        }
        if let Ok(seen) = proc::task_dir(pid).and_then(|dir| stat::read(&dir))
            && let Ok(processor) = usize::try_from(seen.processor)
        {
            // There, both would take turns.
            let _ = sched::leave(processor);
        }
    }
}
