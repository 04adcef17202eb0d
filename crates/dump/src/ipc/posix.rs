//! POSIX message queues of a namespace: `mq_overview(7)`.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use gelid_image::messages::GelidMqueueEntry;
use gelid_sys::{Errno, mqueue};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::{Error, Object, failed};
use crate::namespace::Users;

/// Lists those of the namespace that the calling thread is in, which must be empty.
pub(super) fn list(users: &Users) -> Result<Vec<GelidMqueueEntry>, Error> {
    let failed = || failed("list", Object::Every("POSIX message queues"));
    let root = match mount(c"mqueue") {
        // The kernel has none.
        Err(Errno::NODEV) => return Ok(Vec::new()),
        root => root.map_err(failed())?,
    };
    let mut queues = Vec::new();
    for entry in Dir::read_from(&root).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name();
        if ![c".", c".."].contains(&name) {
            queues.push(look(&root, name, users)?);
        }
    }
    queues.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(queues)
}

/// The device of a file system of which there is one for each namespace, here that of the calling thread; if the kernel
/// has any.
pub(crate) fn device_of(kind: &CStr) -> Result<Option<u64>, Error> {
    match mount(kind).and_then(rustix::fs::fstat) {
        Err(Errno::NODEV) => Ok(None),
        stat => {
            let every = Object::Every("file systems");
            Ok(Some(stat.map_err(failed("look at", every))?.st_dev))
        }
    }
}

/// A file system that is mounted nowhere.
fn mount(kind: &CStr) -> Result<OwnedFd, Errno> {
    let system = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&system)?;
    let root = fsmount(
        &system,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(&root, ".", flags, Mode::empty())
}

fn look(root: &OwnedFd, name: &CStr, users: &Users) -> Result<GelidMqueueEntry, Error> {
    let object = || Object::Posix(name.to_string_lossy().into_owned());
    let stat =
        statat(root, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("look at", object()))?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let found = mqueue::open(name, flags).and_then(mqueue::attributes);
    let found = found.map_err(failed("look at", object()))?;
    if found.count > 0 {
        return Err(Error::Unread {
            object: object(),
            count: found.count,
        });
    }
    Ok(GelidMqueueEntry {
        name: name.to_bytes().to_vec(),
        mode: stat.st_mode & 0o7777,
        uid: users.uid(stat.st_uid),
        gid: users.gid(stat.st_gid),
        most: found.most,
        size: found.size,
    })
}
