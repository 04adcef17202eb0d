//! In which mount namespace a file is, and thus from where its path starts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_sys::Errno;
use gelid_sys::proc::mountinfo::MountInfo;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, statx};

use super::regfile::relative;
use super::{Collector, Object};
use crate::namespace::MountTable;

impl Collector<'_> {
    /// Tells which mounts the tree has. Without any of its own they are those of the dumper.
    pub(crate) fn know_mounts(&mut self, mounts: MountTable) {
        self.mounts = mounts;
    }

    /// The directory that the path of a file starts from.
    pub(super) fn root_of(&self, object: &Object<'_>) -> BorrowedFd<'_> {
        self.root_at(object.file)
    }

    /// The pid namespace below the root's whose procfs a file is in.
    pub(super) fn pid_ns_of(&self, object: &Object<'_>) -> Option<u32> {
        self.mounts.shown_by(self.mount_of(object)?)
    }

    /// The same for what a descriptor leads to.
    pub(super) fn root_at(&self, file: BorrowedFd<'_>) -> BorrowedFd<'_> {
        let own = || self.root.as_fd();
        match self.mounts.root() {
            None => own(),
            Some(first) => {
                let mount = id(file).ok();
                let of_mount = mount.and_then(|mount| self.mounts.root_of(mount));
                of_mount.unwrap_or(first)
            }
        }
    }

    /// Whether a path leads to something on another mount than the one that a file is on, of those of the tree.
    pub(super) fn is_covered(&self, object: &Object<'_>, path: &[u8]) -> bool {
        let Some(mount) = self.mount_of(object) else {
            return false;
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let found = statx(
            self.root_of(object),
            relative(path),
            flags,
            StatxFlags::MNT_ID,
        );
        found.is_ok_and(|found| found.stx_mnt_id != u64::from(mount.cast_unsigned()))
    }

    /// The mount that a file is on, if images are to tell.
    pub(super) fn mount_of(&self, object: &Object<'_>) -> Option<i32> {
        // Without any of the tree's own there is nothing to tell.
        self.mounts.root()?;
        let mount = id(object.file).ok()?;
        self.mounts.root_of(mount).map(|_| mount)
    }

    /// The same for what a descriptor leads to.
    pub(super) fn mount_at(&self, file: BorrowedFd<'_>) -> Option<u32> {
        self.mounts.root()?;
        let mount = id(file).ok()?;
        self.mounts.root_of(mount)?;
        u32::try_from(mount).ok()
    }
}

/// The number of the mount that a descriptor's file is on.
pub(super) fn id(file: BorrowedFd<'_>) -> Result<i32, Errno> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    i32::try_from(stat.stx_mnt_id).map_err(|_| Errno::OVERFLOW)
}

/// Opens the root of a mount, unless another one covers it.
pub(super) fn open(root: BorrowedFd<'_>, mount: &MountInfo) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = openat(root, relative(&mount.mount_point), flags, Mode::empty()).ok()?;
    (id(opened.as_fd()) == Ok(mount.id)).then_some(opened)
}
