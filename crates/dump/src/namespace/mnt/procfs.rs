//! Whose processes a procfs shows.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use gelid_image::messages::Fstype;
use gelid_sys::Errno;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::maps::Dev;
use gelid_sys::proc::ns::{self, Kind};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, major, minor, openat2};

use super::{Mount, MountRefusal, look};
use crate::namespace::Census;
use crate::{Error, Refusal};

/// The pid namespaces below the root's that procfs show, by device; empty if there are no such namespaces.
pub(super) fn shown(
    mounts: &[Mount],
    seen: &[look::Seen],
    census: &Census,
) -> Result<HashMap<Dev, u32>, Error> {
    let mut found: HashMap<Dev, Option<u32>> = HashMap::new();
    if !census.has_nested_numbers() {
        return Ok(HashMap::new());
    }
    let procfs = |mount: &&Mount| mount.kind == Fstype::Proc && mount.info.root == b"/";
    for mount in mounts.iter().filter(procfs) {
        let dev = mount.info.dev;
        if found.contains_key(&dev) {
            continue;
        }
        if let Some(inode) = first(mount, &seen[mount.namespace].root)? {
            found.insert(dev, census.nested_by_inode(Kind::Pid, inode));
        }
    }
    let unknown = |mount: &&Mount| {
        mount.kind == Fstype::Proc
            && mount.fate == super::Fate::New
            && !found.contains_key(&mount.info.dev)
    };
    match mounts.iter().find(unknown) {
        // It may be covered by another, or its processes have ended.
        Some(mount) => Err(Refusal::mount(&mount.info, MountRefusal::Procfs).into()),
        None => Ok(found
            .into_iter()
            .filter_map(|(dev, id)| Some((dev, id?)))
            .collect()),
    }
}

/// The pid namespace of the first process that a procfs shows, if the procfs can be reached.
fn first(mount: &Mount, root: &OwnedFd) -> Result<Option<u64>, Error> {
    let path = mount
        .info
        .mount_point
        .strip_prefix(b"/")
        .unwrap_or_default();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let Ok(procfs) = openat2(root, path, flags, Mode::empty(), resolve) else {
        return Ok(None);
    };
    let dev = fstat(&procfs).map_or(0, |stat| stat.st_dev);
    if (major(dev), minor(dev)) != (mount.info.dev.major, mount.info.dev.minor) {
        return Ok(None);
    }
    let Ok(init) = TaskDir::open_in(&procfs, rustix::process::Pid::INIT) else {
        return Ok(None);
    };
    match ns::id(&init, Kind::Pid) {
        Ok(inode) => Ok(Some(inode)),
        // Not one of the tree, then, as the dumper traces those.
        Err(error) if error.errno() == Errno::ACCESS => Ok(Some(0)),
        Err(error) => Err(error.into()),
    }
}
