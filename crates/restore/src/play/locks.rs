//! Locks of files on tapes.

use std::collections::BTreeMap;

use gelid_sys::lock::{self, F_RDLCK, F_WRLCK};
use gelid_sys::syscall::nr;

use super::crew::Crew;
use super::script::{Object, Reel};
use crate::Error;
use crate::files::{FileLock, FileLockKind, OpenFiles};
use crate::plan::Plan;
use crate::plan::births::Who;

/// Has all locks taken, each by its task. All descriptor tables are as they will be.
pub(crate) fn take(plan: &Plan, files: &OpenFiles, crew: &mut Crew) -> Result<(), Error> {
    let mut reels: BTreeMap<usize, Reel> = BTreeMap::new();
    for lock in plan.files.locks() {
        let node = plan.nodes.iter().position(|node| node.pid == lock.pid);
        let index = node.ok_or(Error::NoSuchFile {
            pid: lock.pid,
            id: lock.file,
        })?;
        let room = crew.body(Who::Task(index))?.carrier.room();
        write(reels.entry(index).or_insert_with(|| Reel::new(room)), lock);
    }
    let reels = reels.into_iter();
    let reels = reels.map(|(index, reel)| (Who::Task(index), reel.into_scripts()));
    crew.play_reels(reels.collect())?;
    Ok(files.break_leases()?)
}

fn write(reel: &mut Reel, lock: &FileLock) {
    /// For the calls and data of a lock.
    const SIZE: usize = 384;
    let object = Object::Lock(lock.fd);
    let fd = lock.fd.into();
    let access = |write| if write { F_WRLCK } else { F_RDLCK };
    let script = reel.script(SIZE);
    match lock.kind {
        FileLockKind::Range {
            of_description,
            write,
            start,
            len,
        } => {
            let command = match of_description {
                true => lock::F_OFD_SETLK,
                false => lock::F_SETLK,
            };
            let range = script.bytes(&lock::range(access(write), start, len));
            script.must(object, nr::fcntl, [fd, command.into(), range.into()]);
        }
        FileLockKind::Whole { write } => {
            let how = match write {
                true => lock::FLOCK_EXCLUSIVE,
                false => lock::FLOCK_SHARED,
            };
            script.must(object, nr::flock, [fd, how.into()]);
        }
        FileLockKind::Lease { write, .. } => {
            let args = [fd, lock::F_SETLEASE.into(), access(write).into()];
            script.must(object, nr::fcntl, args);
            // It has made the task the owner of the file; the right one is set with all others.
            let args = [fd, lock::F_SETOWN.into(), 0.into()];
            script.must(object, nr::fcntl, args);
        }
    }
}
