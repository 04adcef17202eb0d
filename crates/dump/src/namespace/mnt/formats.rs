//! Binary formats that a user namespace of the tree has registered (`binfmt_misc`). They are not recorded yet.

use std::os::fd::OwnedFd;

use gelid_image::messages::Fstype;
use gelid_sys::Errno;
use rustix::fs::{Dir, Mode, OFlags, fstat, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::{Fate, Mount, MountRefusal, contents};
use crate::namespace::Instance;
use crate::{Error, Refusal};

/// Refuses formats that are not those of the machine.
pub(super) fn refuse(instances: &[&Instance], mounts: &[Mount]) -> Result<(), Error> {
    let registers = |mount: &&Mount| mount.kind == Fstype::BinfmtMisc && mount.fate == Fate::New;
    for mount in mounts.iter().filter(registers) {
        let failed = |errno| Error::Mount {
            operation: "look at the formats of",
            point: String::from_utf8_lossy(&mount.info.mount_point).into_owned(),
            errno,
        };
        let root = contents::open(instances[mount.namespace], mount)?;
        let device = fstat(&root).map_err(failed)?.st_dev;
        if of_machine() != Ok(device) && has_any(&root).map_err(failed)? {
            return Err(Refusal::mount(&mount.info, MountRefusal::Formats).into());
        }
    }
    Ok(())
}

/// The device of the file system of formats of the dumper.
fn of_machine() -> Result<u64, Errno> {
    let system = fsopen(c"binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&system)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(fstat(fsmount(&system, flags, MountAttrFlags::empty())?)?.st_dev)
}

/// Whether something is registered, or nothing can be.
fn has_any(root: &OwnedFd) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = openat(root, ".", flags | OFlags::DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        if ![c".", c"..", c"register", c"status"].contains(&entry.file_name()) {
            return Ok(true);
        }
    }
    let status = openat(&dir, "status", flags, Mode::empty())?;
    let mut text = [0; 16];
    let len = rustix::io::read(&status, &mut text)?;
    Ok(!text[..len].starts_with(b"enabled"))
}
