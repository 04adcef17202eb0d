//! What a mount allows and whom it tells of changes: `mount_setattr(2)`, `MOVE_MOUNT_SET_GROUP`; and a mount
//! namespace for one thread.

use std::os::fd::{AsFd, AsRawFd};

use bitflags::bitflags;
use rustix::io::Result;
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::syscall::call;

/// `mount_setattr(2)` in the table of system calls, one for all machines.
const SYS_MOUNT_SETATTR: usize = 442;

bitflags! {
    /// `MOUNT_ATTR_*` of `linux/mount.h`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Attributes: u64 {
        /// Nothing can be written.
        const READ_ONLY = 0x1;
        /// Programs do not change users.
        const NO_SUID = 0x2;
        /// Device files cannot be opened.
        const NO_DEVICES = 0x4;
        /// No programs are executed.
        const NO_EXEC = 0x8;
        /// Times of access are not noted.
        const NO_ATIME = 0x10;
        /// Times of access are always noted.
        const STRICT_ATIME = 0x20;
        /// All bits about times of access.
        const ATIME = 0x70;
        /// Times of access of directories are not noted.
        const NO_DIR_ATIME = 0x80;
        /// Symbolic links are not followed.
        const NO_SYMLINKS = 0x20_0000;
    }
}

/// Whom a mount tells what is mounted in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Propagation {
    /// Nobody.
    Private,
    /// Its peers, which tell it as well.
    Shared,
    /// Nobody, but its former peers tell it.
    Slave,
    /// Nobody, and it cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    /// The flag of `mount(2)`.
    #[must_use]
    pub fn flag(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
pub(super) struct MountAttr {
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) propagation: u64,
    pub(super) userns_fd: u64,
}

#[cfg(test)]
const _: () = assert!(size_of::<MountAttr>() == size_of::<linux_raw_sys::general::mount_attr>());

/// Gives a mount exactly these attributes.
///
/// # Errors
///
/// Those of `mount_setattr(2)`.
pub fn set_attributes(mount: impl AsFd, attributes: Attributes) -> Result<()> {
    let attr = MountAttr {
        set: attributes.bits(),
        clear: Attributes::all().bits(),
        propagation: 0,
        userns_fd: 0,
    };
    set(mount, 0, &attr)
}

/// Changes the propagation of a mount, or of all below it too.
///
/// # Errors
///
/// Those of `mount_setattr(2)`.
pub fn propagate(mount: impl AsFd, to: Propagation, recursive: bool) -> Result<()> {
    let flags = match recursive {
        true => libc::AT_RECURSIVE as usize,
        false => 0,
    };
    let attr = MountAttr {
        set: 0,
        clear: 0,
        propagation: to.flag(),
        userns_fd: 0,
    };
    set(mount, flags, &attr)
}

pub(super) fn set(mount: impl AsFd, flags: usize, attr: &MountAttr) -> Result<()> {
    let args = [
        mount.as_fd().as_raw_fd() as usize,
        c"".as_ptr() as usize,
        flags | libc::AT_EMPTY_PATH as usize,
        (&raw const *attr) as usize,
        size_of::<MountAttr>(),
        0,
    ];
    // SAFETY: the kernel reads an empty string and one structure, both alive.
    unsafe { call(SYS_MOUNT_SETATTR, args) }.map(drop)
}

/// Makes a private mount a member of the peer group of another one, and a slave of the same masters.
///
/// # Errors
///
/// `EINVAL` if they are not of one file system, or show parts of it of which that of `from` is not the wider one;
/// before Linux 5.15.
pub fn join_group(from: impl AsFd, mount: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_SET_GROUP
        | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(from, "", mount, "", flags)
}

/// Gives the calling thread a mount namespace of its own, a copy of the one it is in, and a root and working directory
/// that it does not share with the other threads.
///
/// # Errors
///
/// Those of `unshare(2)`.
pub fn own_namespace() -> Result<()> {
    // SAFETY: the table of descriptors stays shared.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen,
        open_tree,
    };

    #[test]
    fn mounts_are_grouped() {
        let Ok(fs) = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC) else {
            return; // Only root can.
        };
        fsconfig_create(&fs).unwrap();
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let origin = fsmount(&fs, flags, MountAttrFlags::empty()).unwrap();
        let attributes = Attributes::READ_ONLY | Attributes::NO_ATIME;
        set_attributes(&origin, attributes).unwrap();
        let flags = rustix::fs::fstatvfs(&origin).unwrap().f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        propagate(&origin, Propagation::Shared, false).unwrap();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let Ok(other) = open_tree(&origin, "", flags) else {
            return; // Linux before 6.15 clones only what is mounted.
        };
        propagate(&other, Propagation::Private, true).unwrap();
        join_group(&origin, &other).unwrap();
    }
}
