//! Mounts that show files with other owners. They get their maps from user namespaces that are made for that, and go
//! again.

use std::os::fd::{BorrowedFd, OwnedFd};

use gelid_sys::clone::{flags, fork_inside};
use gelid_sys::mount::idmap;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::{Errno, Pid};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};

use super::super::user::text;
use super::{failed, tree};
use crate::Error;
use crate::plan::namespaces::mnt::{Mount, Mounts};
use crate::plan::namespaces::user::Users;

/// User namespaces, by their maps.
#[derive(Debug, Default)]
pub(super) struct Maps(Vec<(Users, OwnedFd)>);

impl Maps {
    /// Makes one for each map of a plan.
    pub(super) fn make(plan: &Mounts) -> Result<Self, Error> {
        let mut maps = Self::default();
        for mount in &plan.mounts {
            if let Some(map) = &mount.id_map
                && maps.of(mount).is_none()
            {
                let point = mount.point.to_string();
                let made = namespace(map).map_err(failed("make a user namespace for", point))?;
                maps.0.push((map.clone(), made));
            }
        }
        Ok(maps)
    }

    fn of(&self, mount: &Mount) -> Option<&OwnedFd> {
        let map = mount.id_map.as_ref()?;
        let mut known = self.0.iter();
        known.find(|(known, _)| known == map).map(|(_, made)| made)
    }

    /// Clones what a mount is to show, with its map.
    pub(super) fn clone(&self, mount: &Mount, origin: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let Some(users) = self.of(mount) else {
            return tree::clone(origin);
        };
        let clone = tree::clone(origin)?;
        match idmap::give(&clone, users) {
            Ok(()) => Ok(clone),
            // What the restorer has there has a map already.
            Err(Errno::PERM) => idmap::clone_with(origin, Some(users)),
            Err(errno) => Err(errno),
        }
    }
}

/// Makes a user namespace.
fn namespace(map: &Users) -> Result<OwnedFd, Errno> {
    let first = fork_inside(flags::NEWUSER, None, false)?;
    let made = fill(first, map);
    // It has done its work; whatever it says, it is gone then.
    let _ = kill_process(first, Signal::KILL);
    let _ = waitpid(Some(first), WaitOptions::empty());
    made
}

fn fill(first: Pid, map: &Users) -> Result<OwnedFd, Errno> {
    let task = TaskDir::open(first).map_err(|error| error.errno())?;
    for (file, map) in [("uid_map", &map.uids), ("gid_map", &map.gids)] {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&task, file, flags, Mode::empty())?;
        rustix::io::write(&file, &text(map))?;
    }
    ns::open(&task, Kind::User).map_err(|error| error.errno())
}
