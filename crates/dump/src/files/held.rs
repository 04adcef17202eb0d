//! Duplicates of descriptors that are closed while the tree ends.
//!
//! Whoever closes the last descriptor of a description has the work of it, and a process with thousands of them closes
//! one after the other, ascending, before it has ended. A dumper that kills the tree keeps its duplicates of the first of
//! them until then: the process passes over these, and both close at the same time.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gelid_image::messages::FdTypes;
use gelid_sys::proc::{self, TaskDir, fd, stat};
use gelid_sys::{Pid, pidfd, sched};

use super::gather::MANY;
use crate::{End, Options};

/// A process that has not begun to close by then has something else to do first.
const PATIENCE: Duration = Duration::from_millis(3);
/// How often it is looked whether it has.
const PAUSE: Duration = Duration::from_micros(20);

/// Descriptors of a process, if it is worth while to hold some of them.
pub(crate) fn worth_holding(options: &Options, task: &TaskDir) -> u64 {
    match (options.end, fd::count(task)) {
        (End::Kill, Ok(count @ MANY..)) => count,
        _ => 0,
    }
}

/// How many of so many: not half of them, as a call for each takes longer than the process.
pub(crate) fn to_hold(count: u64) -> u64 {
    count / 8 * 3
}

/// Duplicates that are held.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Those that are closed when the tree may run on.
    until: Arc<Mutex<Open>>,
    /// The same once that is the caller's business.
    files: Vec<OwnedFd>,
    /// So many more may be.
    pub(super) room: u64,
    /// The descriptor that the first is a duplicate of.
    first: Option<(Pid, RawFd)>,
}

#[derive(Debug, Default)]
struct Open {
    files: Vec<OwnedFd>,
    over: bool,
}

/// Somebody for whom duplicates are held: when it is dropped, the tree may run on, and they are closed.
#[derive(Debug, Default)]
pub(crate) struct Holder(Arc<Mutex<Open>>);

impl Holder {
    /// Room for so many.
    pub(crate) fn room(&self, room: u64) -> Held {
        Held {
            until: Arc::clone(&self.0),
            room,
            ..Held::default()
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut open = lock(&self.0);
        open.over = true;
        open.files.clear();
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// Takes the duplicate of a descriptor that has been recorded, or closes it if there is no room, or closing it may mean
    /// to wait, as of a connection that lingers.
    pub(super) fn take(&mut self, whose: (Pid, RawFd), kind: FdTypes, file: OwnedFd) {
        let is_quick = matches!(
            kind,
            FdTypes::Reg | FdTypes::Pipe | FdTypes::Unixsk | FdTypes::Eventfd
        );
        if let Some(room) = self.room.checked_sub(1).filter(|_| is_quick) {
            let mut open = lock(&self.until);
            if !open.over {
                self.room = room;
                self.first.get_or_insert(whose);
                open.files.push(file);
            }
        }
    }

    /// Takes them from their holder, before that is dropped: the caller has the tree.
    pub(crate) fn settle(&mut self) {
        self.files = std::mem::take(&mut lock(&self.until).files);
    }

    /// Closes them as soon as their process, which has been killed, closes its own. Before that there would be nothing to
    /// do, and all the work left to the process.
    pub(crate) fn close_behind(self) {
        let Some((pid, first)) = self.first else {
            return;
        };
        if let Ok(process) = pidfd::open(pid).or_else(|_| pidfd::open_thread(pid)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    #[test]
    fn what_closes_at_once_is_held_until_the_tree_may_run_on() {
        let holder = Holder::default();
        let mut held = holder.room(2);
        let me = rustix::process::getpid();
        let mut take = |kind| {
            let file = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty());
            held.take((me, 7), kind, file.unwrap());
            lock(&held.until).files.len()
        };
        assert_eq!((take(FdTypes::Inetsk), take(FdTypes::Tty)), (0, 0));
        let taken = [FdTypes::Pipe, FdTypes::Reg, FdTypes::Unixsk].map(&mut take);
        assert_eq!(taken, [1, 2, 2]);
        drop(holder);
        assert_eq!(take(FdTypes::Eventfd), 0);
    }

    #[test]
    fn what_is_settled_stays() {
        let holder = Holder::default();
        let mut held = holder.room(1);
        let file = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty());
        held.take((rustix::process::getpid(), 7), FdTypes::Reg, file.unwrap());
        held.settle();
        drop(holder);
        assert_eq!(held.files.len(), 1);
    }

    #[test]
    fn few_descriptors_are_not_worth_it() {
        assert_eq!((to_hold(5000), to_hold(7)), (1875, 0));
        let options = Options::new(
            rustix::process::getpid(),
            gelid_image::Dir::open("/").unwrap(),
        );
        let me = proc::task_dir(options.tree).unwrap();
        assert_eq!(worth_holding(&options, &me), 0);
        let runs_on = Options {
            end: End::Run,
            ..options
        };
        assert_eq!(worth_holding(&runs_on, &me), 0);
    }
}
