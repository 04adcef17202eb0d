//! Mounts that are not dumped, by name, with the remedy.

use std::fmt;

use gelid_image::messages::Fstype;
use gelid_sys::proc::mountinfo::MountInfo;

use super::{Fate, Mount, Mounts, automount, external, kind};
use crate::Refusal;

/// Why a mount is not dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountRefusal {
    /// Its contents are where nobody restores them from.
    Filesystem,
    /// Nobody of the tree is asked for what is in it.
    Autofs,
    /// An automounter in a user namespace, or of an unknown kind.
    AutofsKind,
    /// It has formats of programs that a user namespace of the tree has registered.
    Formats,
    /// The kernel does not tell how it shows owners of files.
    Mapped,
    /// It belongs to a user namespace below that of the root, and is no tmpfs.
    Owner,
    /// It shows a network, or message queues, of a namespace that nobody of the tree is in.
    Elsewhere,
    /// No mount shows all of a file system in memory.
    Partial,
    /// It receives from a mount outside.
    Master,
    /// It shares with a mount outside.
    Sharing,
    /// Nobody can tell whose processes it shows.
    Procfs,
}

impl fmt::Display for MountRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filesystem => {
                "of a file system that is not dumped: give it on restore (--external mnt[PATH]:NAME), leave it out \
                 (--skip-mnt), or have it mounted again as it is (--enable-fs)"
            }
            Self::Autofs => {
                "an automounter's whose daemon is not in the tree, as nobody there has its pipe or is in its process \
                 group: choose a root above the daemon, unmount it, or leave it out (--skip-mnt)"
            }
            Self::AutofsKind => {
                "an automounter's in a user namespace, or of an unknown kind, which is not dumped yet: unmount it, or \
                 leave it out (--skip-mnt)"
            }
            Self::Formats => {
                "one of the formats that a user namespace of the tree has registered, which are not dumped yet: remove \
                 them (write -1 to each), or unmount it"
            }
            Self::Mapped => {
                "one that shows other owners of files (idmapped), and the kernel does not tell which, as it does since \
                 Linux 6.15: unmount it"
            }
            Self::Owner => {
                "of a file system that was mounted in a user namespace below that of the root, which does not come back as its \
                 yet, but for a tmpfs of one that has users: unmount it, or leave it out (--skip-mnt)"
            }
            Self::Elsewhere => {
                "one of a network namespace, or of the message queues of an IPC namespace, that nobody of the tree is in: \
                 unmount it, or leave it out (--skip-mnt)"
            }
            Self::Partial => {
                "a part of a file system in memory or an automounter of which no mount shows all: mount all of it somewhere, or give it \
                 on restore (--external mnt[PATH]:NAME)"
            }
            Self::Master => {
                "a slave of a mount outside of the tree: make it private, or use --enable-external-masters for what \
                 comes from outside (--external mnt[]:m)"
            }
            Self::Procfs => {
                "a procfs that is covered, or shows processes that have ended, in a tree with several pid namespaces: \
                 unmount it, or leave it out (--skip-mnt)"
            }
            Self::Sharing => {
                "shared with a mount outside of the tree: make it private, or use --external mnt[]:s"
            }
        })
    }
}

impl Refusal {
    /// That of a mount.
    pub(in crate::namespace) fn mount(info: &MountInfo, why: MountRefusal) -> Self {
        Self::Mount {
            point: String::from_utf8_lossy(&info.mount_point).into_owned(),
            fs_type: String::from_utf8_lossy(&info.fs_type).into_owned(),
            why,
        }
    }
}

/// Refuses mounts that cannot come back.
pub(super) fn refuse(mounts: &[Mount], options: &Mounts) -> Result<(), Refusal> {
    for mount in mounts {
        if let Some(why) = why(mount, mounts, options) {
            return Err(Refusal::mount(&mount.info, why));
        }
    }
    Ok(())
}

fn why(mount: &Mount, all: &[Mount], options: &Mounts) -> Option<MountRefusal> {
    if external::has_master_outside(mount, all) && !external::may_have_master(mount, options) {
        return Some(MountRefusal::Master);
    }
    if mount.fate != Fate::New {
        return None;
    }
    if mount.kind == Fstype::Autofs && automount::read(&mount.info).is_none() {
        return Some(MountRefusal::AutofsKind);
    }
    if mount.kind != Fstype::Auto && !kind::can_be_made(mount.kind) {
        return Some(MountRefusal::Filesystem);
    }
    let whole = |other: &Mount| other.info.dev == mount.info.dev && other.info.root == b"/";
    let is_filled = matches!(mount.kind, Fstype::Tmpfs | Fstype::Autofs);
    let partial = is_filled && !all.iter().any(whole);
    partial.then_some(MountRefusal::Partial)
}
