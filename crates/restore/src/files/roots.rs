//! Where paths start: the root directories of mount namespaces.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_sys::Errno;
use gelid_sys::mount::attributes::Attributes;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::Name;

/// Mount namespaces of the tree that have been made.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    /// Their root directories, that of the root task's first.
    pub(crate) roots: Vec<OwnedFd>,
    /// The namespace of each mount, by the number it had at the dump.
    pub(crate) by_mount: BTreeMap<i32, usize>,
    /// A mount of each file system, by the device it had at the dump.
    pub(crate) by_device: BTreeMap<u32, OwnedFd>,
    /// Masters of terminals that had to be made for mounts, by number.
    pub(crate) masters: BTreeMap<u32, OwnedFd>,
    /// What is read-only once nothing more is made in it.
    pub(crate) closing: Vec<Closing>,
    /// Root directories of automounters that ask nobody yet, by the index of their file system.
    pub(crate) automounters: Vec<(usize, OwnedFd)>,
    /// The namespaces themselves.
    pub(crate) namespaces: Vec<OwnedFd>,
    /// Which of them tasks beyond the root are to join, by their numbers in the images.
    pub(crate) nested: BTreeMap<u32, usize>,
}

/// What becomes read-only.
#[derive(Debug)]
pub(crate) enum Closing {
    /// A mount in a namespace, with all of its attributes.
    Mount(usize, OwnedFd, Attributes),
    /// The file system that a mount shows.
    Filesystem(OwnedFd),
}

/// Directories that paths start from.
#[derive(Debug, Clone, Copy)]
pub struct Roots<'a> {
    first: BorrowedFd<'a>,
    mounted: Option<&'a Mounted>,
}

impl<'a> From<BorrowedFd<'a>> for Roots<'a> {
    fn from(first: BorrowedFd<'a>) -> Self {
        Self {
            first,
            mounted: None,
        }
    }
}

impl<'a> Roots<'a> {
    /// Those of namespaces that have been made; `other` if there are none.
    pub(crate) fn new(other: BorrowedFd<'a>, mounted: Option<&'a Mounted>) -> Self {
        let first = mounted.and_then(|mounted| mounted.roots.first());
        Self {
            first: first.map_or(other, AsFd::as_fd),
            mounted,
        }
    }

    /// The one of the root task.
    pub(crate) fn first(&self) -> BorrowedFd<'a> {
        self.first
    }

    /// The one that a path starts from.
    pub(crate) fn of(&self, name: &Name) -> BorrowedFd<'a> {
        self.of_mount(name.mount())
    }

    /// The one of the namespace that a mount was in.
    pub(crate) fn of_mount(&self, mount: Option<i32>) -> BorrowedFd<'a> {
        let found = self.mounted.zip(mount).and_then(|(mounted, mount)| {
            let namespace = mounted.by_mount.get(&mount)?;
            mounted.roots.get(*namespace)
        });
        found.map_or(self.first, AsFd::as_fd)
    }

    /// The master of a terminal that is there already.
    pub(crate) fn master(&self, number: u32) -> Option<BorrowedFd<'a>> {
        self.mounted?.masters.get(&number).map(AsFd::as_fd)
    }

    /// A file on the file system that had this device, if the tree has mounts of its own.
    pub(crate) fn device(&self, dev: u32) -> Option<BorrowedFd<'a>> {
        self.mounted?.by_device.get(&dev).map(AsFd::as_fd)
    }
}

/// Whether a directory is the root of this process, on the same mount.
pub(crate) fn is_own_root(directory: BorrowedFd<'_>) -> Result<bool, Errno> {
    let what = StatxFlags::INO | StatxFlags::MNT_ID;
    let theirs = statx(directory, "", AtFlags::EMPTY_PATH, what)?;
    let ours = statx(CWD, "/", AtFlags::empty(), what)?;
    Ok((ours.stx_mnt_id, ours.stx_ino) == (theirs.stx_mnt_id, theirs.stx_ino))
}
