//! Where file systems come from: paths of the restorer, and those that are made.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gelid_image::Dir;
use gelid_sys::Errno;
use gelid_sys::mount::attributes::{self, Attributes, Propagation};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick,
    open_tree,
};

use super::{Place, Whose, automount, contents, failed};
use crate::Error;
use crate::plan::namespaces::mnt::{Filesystem, New, Origin};

/// An origin that is open.
#[derive(Debug)]
pub(super) struct Opened {
    /// The root directory of an automounter.
    pub(super) automounter: Option<OwnedFd>,
    /// A private mount of it, on which everything is allowed.
    pub(super) mount: OwnedFd,
    /// What to call it.
    pub(super) label: String,
}

/// Opens an origin, and fills it.
pub(super) fn open(
    filesystem: &Filesystem,
    place: &mut impl Place,
    dir: &Dir,
) -> Result<Opened, Error> {
    let label = filesystem.origin.to_string();
    let mut automounter = None;
    let mount = match &filesystem.origin {
        Origin::Root(path) | Origin::Path(path) => bound(path)?,
        Origin::New(new) => match &new.automount {
            Some(automount) => {
                let (mount, root) = automount::make(new, automount, place, &label)?;
                automounter = Some(root);
                mount
            }
            None => made(new, place, &label)?,
        },
    };
    let private = attributes::propagate(&mount, Propagation::Private, false);
    private.map_err(failed("set apart", &*label))?;
    // A read-only mount of what can be written, say; not all of it need be allowed, nor is it needed.
    let _ = attributes::set_attributes(&mount, Attributes::empty());
    if let Origin::New(New {
        contents: Some(key),
        users,
        ..
    }) = &filesystem.origin
    {
        if users.is_some() {
            place.make_files_in(*users)?;
        }
        contents::extract(dir, *key, mount.as_fd(), place, &label)?;
        if users.is_some() {
            place.make_files_in(None)?;
        }
    }
    Ok(Opened {
        automounter,
        mount,
        label,
    })
}

/// Clones what the restorer has at a path, which stays in the peer group that it is in.
pub(super) fn bound(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).map_err(failed("bind", path.display().to_string()))
}

fn made(new: &New, place: &mut impl Place, label: &str) -> Result<OwnedFd, Error> {
    let fs = match new.global && !new.within {
        true => {
            fsopen(new.name.as_str(), FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("make", label))?
        }
        false => {
            let name = CString::new(new.name.as_str());
            let name = name.map_err(|_| failed("make", label)(Errno::INVAL))?;
            let whose = Whose {
                pid_ns: new.pid_ns,
                users: new.users,
                shown: new.shown,
            };
            place.fsopen(&name, whose)?
        }
    };
    if !new.source.is_empty() {
        let source = fsconfig_set_string(&fs, "source", new.source.as_slice());
        source.map_err(failed("name the source of", label))?;
    }
    for (key, value) in &new.options {
        let outside = value
            .as_deref()
            .and_then(|value| owner(key, value, new, place));
        let set = match outside.as_ref().or(value.as_ref()) {
            Some(value) => fsconfig_set_string(&fs, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&fs, key.as_str()),
        };
        set.map_err(failed("set an option of", format!("{label} ({key})")))?;
    }
    if new.read_only && new.contents.is_none() && !new.global {
        fsconfig_set_flag(&fs, "ro").map_err(failed("set an option of", label))?;
    }
    fsconfig_create(&fs).map_err(failed("make", label))?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    fsmount(&fs, flags, MountAttrFlags::empty()).map_err(failed("mount", label))
}

/// Images have owners as the tree sees them, but it is the restorer who says them to the kernel.
fn owner(key: &str, value: &str, new: &New, place: &impl Place) -> Option<String> {
    let id = value.parse().ok().filter(|_| !new.global)?;
    let (uid, gid) = place.owner(id, id);
    match key {
        "uid" => Some(uid.to_string()),
        "gid" => Some(gid.to_string()),
        _ => None,
    }
}

/// Whether a file system is to be read-only when all is made that is in it.
pub(super) fn is_closed_later(filesystem: &Filesystem) -> bool {
    match &filesystem.origin {
        Origin::New(new) => new.read_only && new.contents.is_some(),
        Origin::Root(_) | Origin::Path(_) => false,
    }
}

/// Makes the file system behind a mount read-only.
pub(super) fn close(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let fs = fspick(mount, "", flags)?;
    fsconfig_set_flag(&fs, "ro")?;
    fsconfig_reconfigure(&fs)
}

/// A place for mounts that are not yet where they belong.
pub(super) fn yard() -> Result<OwnedFd, Error> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC);
    let yard = fs.and_then(|fs| {
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    });
    yard.map_err(failed("mount", "a place for mounts"))
}
