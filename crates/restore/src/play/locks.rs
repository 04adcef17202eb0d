//! Locks of files on tapes.

use std::collections::BTreeMap;

use gelid_sys::lock::{self, F_RDLCK, F_WRLCK};
use gelid_sys::syscall::nr;

use super::crew::Crew;
use super::script::{Object, Reel};
use crate::Error;
use crate::files::{FileLock, FileLockKind, OpenFiles};
use crate::plan::births::Who;
use crate::plan::{Life, Plan};

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
        let reel = reels.entry(index).or_insert_with(|| Reel::new(room));
        write(reel, lock, lease_owner(plan, files, index, lock)?);
    }
    let reels = reels.into_iter();
    let reels = reels.map(|(index, reel)| (Who::Task(index), reel.into_scripts()));
    crew.play_reels(reels.collect())?;
    Ok(files.break_leases()?)
}

/// As whom a task takes a lease, and as whom it goes on.
#[derive(Debug, Clone, Copy)]
struct LeaseOwner {
    file: u64,
    task: u64,
}

/// In user namespaces nobody takes leases of files that belong to others, whatever may be done otherwise (`fcntl(2)`,
/// `F_SETLEASE`).
fn lease_owner(
    plan: &Plan,
    files: &OpenFiles,
    task: usize,
    lock: &FileLock,
) -> Result<Option<LeaseOwner>, Error> {
    let (FileLockKind::Lease { .. }, Some(Life::Alive(alive))) = (lock.kind, plan.lives.get(task))
    else {
        return Ok(None);
    };
    let (root, below) = (plan.namespaces.user.as_ref(), alive.users);
    if root.is_none() && below.is_none() {
        return Ok(None);
    }
    let uid = files.owner(lock.file)?;
    let inside = match root {
        Some(root) => root.inside_uid(uid),
        None => Some(uid),
    };
    let file = inside.and_then(|uid| plan.namespaces.uid_in(below, uid));
    // Those of namespaces below are who they will be.
    let final_uid = || Some(alive.threads.first()?.state.ids()?.0[3]);
    let task = below.and_then(|_| plan.namespaces.uid_in(below, final_uid()?));
    Ok(file.map(|file| LeaseOwner {
        file: file.into(),
        task: task.unwrap_or(0).into(),
    }))
}

fn write(reel: &mut Reel, lock: &FileLock, owner: Option<LeaseOwner>) {
    /// For the calls and data of a lock.
    const SIZE: usize = 512;
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
            if let Some(owner) = owner {
                script.call(nr::setfsuid, [owner.file.into()]);
            }
            let args = [fd, lock::F_SETLEASE.into(), access(write).into()];
            script.must(object, nr::fcntl, args);
            if let Some(owner) = owner {
                script.call(nr::setfsuid, [owner.task.into()]);
            }
            // It has made the task the owner of the file; the right one is set with all others.
            let args = [fd, lock::F_SETOWN.into(), 0.into()];
            script.must(object, nr::fcntl, args);
        }
    }
}
