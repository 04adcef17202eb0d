//! What is in file systems that are in memory only: `tmpfs-dev-*.tar.gz.img`.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_image::messages::Fstype;
use gelid_image::{ImageKind, Staging};
use gelid_sys::Errno;
use gelid_sys::mount::attributes::{self, Attributes, Propagation};
use gelid_sys::mount::idmap;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::mountinfo::{self, MountInfo};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use rustix::thread::gettid;

use super::{Fate, Mount, archive, external, look};
use crate::Error;
use crate::namespace::{Census, Instance};

const PRIVATE: Propagation = Propagation::Private;

/// Archives each file system that is to be made anew and has contents.
pub(super) fn write(
    staging: &Staging,
    instances: &[&Instance],
    mounts: &[Mount],
    census: &Census,
) -> Result<(), Error> {
    // One mount that shows all of it, for each.
    let mut whole: BTreeMap<u32, &Mount> = BTreeMap::new();
    // Rather one that shows owners of files as they are.
    let (plain, mapped): (Vec<_>, Vec<_>) = mounts.iter().partition(|it| it.id_map.is_none());
    for mount in plain.into_iter().chain(mapped) {
        let dev = mount.info.dev;
        let filled = mount.kind == Fstype::Tmpfs && mount.fate == Fate::New;
        if filled && mount.info.root == b"/" {
            whole.entry(dev.major << 20 | dev.minor).or_insert(mount);
        }
    }
    for (dev, mount) in whole {
        let root = open(instances[mount.namespace], mount)?;
        let Some(name) = ImageKind::TmpfsDev.file_name(dev) else {
            continue;
        };
        let file = staging.raw(&name)?;
        let archived = archive::write(root.as_fd(), file, census);
        archived.map_err(|source| Error::Archive {
            point: String::from_utf8_lossy(&mount.info.mount_point).into_owned(),
            source,
        })?;
    }
    Ok(())
}

/// Opens all of the file system behind a mount.
pub(super) fn open(instance: &Instance, mount: &Mount) -> Result<OwnedFd, Error> {
    let (id, is_mapped) = (mount.info.id, mount.id_map.is_some());
    let point = mount.info.mount_point.as_slice();
    let failed = |operation| {
        let point = String::from_utf8_lossy(point).into_owned();
        move |errno| Error::Mount {
            operation,
            point,
            errno,
        }
    };
    let direct = instance.inside(|| {
        let found = reach(id, point).map_err(failed("open"))?;
        found
            .map(|found| alone(found.as_fd(), is_mapped))
            .transpose()
            .map_err(failed("clone"))
    })?;
    if let Some(found) = direct {
        return Ok(found);
    }
    let procfs = look::procfs()?;
    let (before, copy) = instance.inside(|| {
        let before = mountinfo::read(&TaskDir::open_in(&procfs, gettid())?)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let copy = open_tree(CWD, "/", flags);
        Ok((before, copy.map_err(failed("copy the tree of"))?))
    })?;
    let uncover = || {
        let uncovered = Uncovered::new(&procfs, &copy, &before, &mount.info)?;
        let found = uncovered.mount(id, point).map_err(failed("uncover"))?;
        alone(found.as_fd(), is_mapped).map_err(failed("clone"))
    };
    std::thread::scope(|scope| {
        let uncovered = scope.spawn(uncover).join();
        uncovered.unwrap_or_else(|_| Err(failed("uncover")(Errno::IO)))
    })
}

/// What is at a path, if it is on the mount with this number.
fn reach(id: i32, point: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match rustix::fs::open(point, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        found => found?,
    };
    let stat = statx(&found, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok((stat.stx_mnt_id == u64::from(id.cast_unsigned())).then_some(found))
}

/// A mount of the same without what is mounted in it, through which nothing changes, and which shows owners of files as
/// they are.
fn alone(mount: BorrowedFd<'_>, is_mapped: bool) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let cloned = match is_mapped {
        true => idmap::clone_with(mount, None::<BorrowedFd<'_>>),
        false => open_tree(mount, "", flags),
    };
    let clone = match cloned {
        // What lies under mounts that another user made is not to be seen by anybody in there; nor is it in this way.
        Err(Errno::INVAL) if !is_mapped => {
            return mount.try_clone_to_owned().map_err(|_| Errno::MFILE);
        }
        clone => clone?,
    };
    let quiet = Attributes::READ_ONLY | Attributes::NO_ATIME | Attributes::NO_DIR_ATIME;
    attributes::set_attributes(&clone, quiet)?;
    Ok(clone)
}

/// A copy of the mounts of a namespace, in one of this thread alone, to take away in it what covers a mount.
struct Uncovered {
    /// The mounts of the copy, by the numbers of those that they are copies of.
    copies: HashMap<i32, MountInfo>,
    /// Those that lead to the wanted one, by number.
    line: Vec<i32>,
}

impl Uncovered {
    fn new(
        procfs: &OwnedFd,
        copy: &OwnedFd,
        before: &[MountInfo],
        wanted: &MountInfo,
    ) -> Result<Self, Error> {
        // Not a copy of the namespace itself: what another user has mounted would be fast in it.
        let enter = || {
            attributes::own_namespace()?;
            attributes::propagate(
                openat(CWD, "/", OFlags::PATH, Mode::empty())?,
                PRIVATE,
                true,
            )?;
            attributes::propagate(copy, PRIVATE, true)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(copy, "", CWD, "/", flags)?;
            rustix::process::fchdir(copy)?;
            rustix::process::chroot(".")
        };
        enter().map_err(|errno| Error::Mount {
            operation: "copy what covers",
            point: String::from_utf8_lossy(&wanted.mount_point).into_owned(),
            errno,
        })?;
        let after = mountinfo::read(&TaskDir::open_in(procfs, gettid())?)?;
        let mut line = vec![wanted.id];
        while let Some(mount) = before.iter().find(|mount| Some(&mount.id) == line.last())
            && mount.parent != mount.id
            && line.len() <= before.len()
        {
            line.push(mount.parent);
        }
        Ok(Self {
            copies: pair(before, &after),
            line,
        })
    }

    /// Opens a mount, without whatever covers it.
    fn mount(&self, id: i32, point: &[u8]) -> Result<OwnedFd, Errno> {
        let copy = self.copies.get(&id).ok_or(Errno::NOENT)?;
        let above = |mount: &&MountInfo| external::below(&mount.mount_point, point).is_some();
        let covers = self.copies.iter().filter(|(id, _)| !self.line.contains(id));
        let mut covers: Vec<&MountInfo> = covers.map(|(_, copy)| copy).filter(above).collect();
        covers.sort_by_key(|copy| copy.mount_point.len());
        // Whatever covers one of these goes with it. Of those at one path the topmost is met first, so each is looked
        // for as often as there are others.
        for _ in 0..=covers.len() {
            if let Some(found) = reach(copy.id, point)? {
                return Ok(found);
            }
            for cover in &covers {
                if reach(cover.id, &cover.mount_point)?.is_some() {
                    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
                    unmount(&*cover.mount_point, flags)?;
                    break;
                }
            }
        }
        Err(Errno::BUSY)
    }
}

/// Which mounts of a copy stand for which.
fn pair(before: &[MountInfo], after: &[MountInfo]) -> HashMap<i32, MountInfo> {
    let is_root = |all: &[MountInfo], mount: &MountInfo| {
        !all.iter()
            .any(|other| other.id == mount.parent && other.id != mount.id)
    };
    let mut copies = HashMap::new();
    let root = |all: &[MountInfo]| all.iter().find(|mount| is_root(all, mount)).cloned();
    let (Some(old), Some(new)) = (root(before), root(after)) else {
        return copies;
    };
    let mut waiting = vec![(old.id, new)];
    while let Some((old, new)) = waiting.pop() {
        let children = before
            .iter()
            .filter(|mount| mount.parent == old && mount.id != old);
        for child in children {
            // At one place a mount has one child.
            let copy = after.iter().find(|copy| {
                copy.parent == new.id && copy.id != new.id && copy.mount_point == child.mount_point
            });
            waiting.extend(copy.map(|copy| (child.id, copy.clone())));
        }
        copies.insert(old, new);
    }
    copies
}
