//! Puts mounts together.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_sys::Errno;
use gelid_sys::mount::attributes::{self, Attributes, Propagation};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, mknodat, unlinkat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use rustix::process::{fchdir, pivot_root};

use super::idmap::Maps;
use super::origin::{self, Opened};
use super::{beneath, beneath_automount, failed};
use crate::Error;
use crate::plan::namespaces::mnt::{Kinship, Mount, Mounts, Origin};

const ATTACH: MoveMountFlags =
    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);

/// A place for mounts that are cloned, since kernels before 6.15 clone only what is mounted somewhere. It is on top of
/// the old root, and goes with it.
#[derive(Debug)]
pub(super) struct Yard {
    fd: OwnedFd,
    taken: u32,
}

impl Yard {
    /// Puts it into the namespace of this thread, which becomes private.
    pub(super) fn settle(fd: OwnedFd) -> Result<Self, Error> {
        set_apart()?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let moved = move_mount(&fd, "", CWD, "/", flags);
        moved.map_err(failed("attach", "a place for mounts"))?;
        Ok(Self { fd, taken: 0 })
    }

    /// Puts a mount into it.
    pub(super) fn attach(&mut self, mount: BorrowedFd<'_>) -> Result<(), Error> {
        let name = self.taken.to_string();
        self.taken += 1;
        let attached = file_type(mount).and_then(|kind| {
            make(self.fd.as_fd(), name.as_bytes(), kind)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(mount, "", &self.fd, &*name, flags)
        });
        attached.map_err(failed("attach", "a mount to be cloned"))
    }
}

/// Nothing that happens in the namespace of this thread is to be told elsewhere.
fn set_apart() -> Result<(), Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty());
    let apart = root.and_then(|root| attributes::propagate(root, Propagation::Private, true));
    apart.map_err(failed("set apart", "the new mount namespace"))
}

fn file_type(fd: BorrowedFd<'_>) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// Makes a directory, or a file that something else can be mounted on.
fn make(dir: BorrowedFd<'_>, name: &[u8], kind: FileType) -> Result<(), Errno> {
    match kind {
        FileType::Directory => mkdirat(dir, name, Mode::RWXU),
        _ => mknodat(dir, name, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0),
    }
}

/// Clones each mount of the plan from its origin; and what had to be made for that.
pub(super) fn clone_all(
    plan: &Mounts,
    origins: &[Opened],
    maps: &Maps,
) -> Result<(Vec<OwnedFd>, Vec<Appeared>), Error> {
    let mut appeared = Vec::new();
    let mut mounts = Vec::with_capacity(plan.mounts.len());
    // The kernel lists mounts in the order in which they were made.
    let mut order: Vec<(usize, &Mount)> = plan.mounts.iter().enumerate().collect();
    order.sort_by_key(|(_, mount)| mount.rank);
    for (at, mount) in order {
        let origin = &origins[mount.filesystem];
        if mount.deleted {
            let made = Appeared::make(plan, mount, origins);
            let made = made.map_err(|errno| failed("make", mount.point.to_string())(errno))?;
            appeared.extend(made);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let cloned = match mount.root.is_empty() {
            // The origin may be a file, in which nothing can be looked for.
            true => maps.clone(mount, origin.mount.as_fd()),
            false => way_in(plan, mount)(origin.mount.as_fd(), &mount.root, flags)
                .and_then(|root| maps.clone(mount, root.as_fd())),
        };
        let object = || format!("{} from {}", mount.point, origin.label);
        mounts.push((
            at,
            cloned.map_err(|errno| failed("clone", object())(errno))?,
        ));
    }
    mounts.sort_by_key(|(at, _)| *at);
    let mounts = mounts.into_iter().map(|(_, mount)| mount).collect();
    Ok((mounts, appeared))
}

/// How something in what a mount shows is opened.
fn way_in(
    plan: &Mounts,
    mount: &Mount,
) -> fn(BorrowedFd<'_>, &[u8], OFlags) -> Result<OwnedFd, Errno> {
    match &plan.filesystems[mount.filesystem].origin {
        Origin::New(new) if new.automount.is_some() => beneath_automount,
        _ => beneath,
    }
}

pub(super) fn clone(mount: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(mount, "", flags)
}

/// What is mounted and had been removed. It is removed again when this is dropped.
#[derive(Debug)]
pub(super) struct Appeared {
    dir: OwnedFd,
    name: Vec<u8>,
}

impl Appeared {
    /// Makes what is missing to be mounted: a directory, unless the place it is mounted on is a file.
    fn make(plan: &Mounts, mount: &Mount, origins: &[Opened]) -> Result<Option<Self>, Errno> {
        let kind = match mount.parent.map(|parent| &plan.mounts[parent]) {
            Some(parent) => {
                let path = [&*parent.root, &*mount.at].join(&b'/');
                let path = path.strip_prefix(b"/").unwrap_or(&path);
                let path = path.strip_suffix(b"/").unwrap_or(path);
                let origin = &origins[parent.filesystem];
                let at = beneath(origin.mount.as_fd(), path, OFlags::PATH);
                at.and_then(|at| file_type(at.as_fd()))
                    .unwrap_or(FileType::Directory)
            }
            None => FileType::Directory,
        };
        let (parent, name) = match mount.root.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&mount.root[..at], &mount.root[at + 1..]),
            None => (&b""[..], &*mount.root),
        };
        let origin = &origins[mount.filesystem];
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let dir = beneath(origin.mount.as_fd(), parent, flags)?;
        match make(dir.as_fd(), name, kind) {
            // Another mount of it came first; or somebody has made it anew, whose it stays.
            Err(Errno::EXIST) => Ok(None),
            Err(errno) => Err(errno),
            Ok(()) => Ok(Some(Self {
                dir,
                name: name.to_vec(),
            })),
        }
    }
}

impl Drop for Appeared {
    fn drop(&mut self) {
        let removed = match unlinkat(&self.dir, &*self.name, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(&self.dir, &*self.name, AtFlags::REMOVEDIR),
            removed => removed,
        };
        if let Err(errno) = removed {
            let name = String::from_utf8_lossy(&self.name);
            tracing::warn!("cannot remove {name}, which was mounted: {errno}");
        }
    }
}

/// Mounts that are with something outside, by group, from where the restorer is.
pub(super) fn outside(plan: &Mounts, origins: &[Opened]) -> Result<Vec<Option<OwnedFd>>, Error> {
    let carrier = |group: &crate::plan::namespaces::mnt::Group| {
        if !matches!(
            group.kinship,
            Kinship::SlavesOutside | Kinship::PeersOutside
        ) {
            return Ok(None);
        }
        let origin = &origins[group.filesystem];
        let path = match &plan.filesystems[group.filesystem].origin {
            Origin::Root(path) | Origin::Path(path) => path,
            Origin::New(_) => {
                let object = format!("a slave of something outside, {}", origin.label);
                return Err(failed("make", object)(Errno::NOENT));
            }
        };
        let mount = origin::bound(path)?;
        if group.kinship == Kinship::SlavesOutside {
            let slave = attributes::propagate(&mount, Propagation::Slave, false);
            slave.map_err(failed("set apart", &*origin.label))?;
            share(mount.as_fd(), group.shared, &origin.label)?;
        }
        Ok(Some(mount))
    };
    plan.groups.iter().map(carrier).collect()
}

fn share(mount: BorrowedFd<'_>, shared: bool, label: &str) -> Result<(), Error> {
    match shared {
        true => attributes::propagate(mount, Propagation::Shared, false)
            .map_err(failed("make a peer group of", label)),
        false => Ok(()),
    }
}

/// One member of each group, from which the others get theirs; those with something outside are there already.
pub(super) fn carry(
    plan: &Mounts,
    origins: &[Opened],
    outside: Vec<Option<OwnedFd>>,
    yard: &mut Yard,
) -> Result<Vec<OwnedFd>, Error> {
    let mut carriers: Vec<OwnedFd> = Vec::with_capacity(plan.groups.len());
    for (group, outside) in plan.groups.iter().zip(outside) {
        let label = &origins[group.filesystem].label;
        let carrier = match (outside, group.kinship) {
            (Some(outside), _) => outside,
            (None, Kinship::Slaves(master)) => {
                let slave = clone(carriers[master].as_fd()).and_then(|slave| {
                    attributes::propagate(&slave, Propagation::Slave, false)?;
                    Ok(slave)
                });
                let slave = slave.map_err(failed("make a slave of", &**label))?;
                share(slave.as_fd(), group.shared, label)?;
                slave
            }
            (None, _) => {
                let alone = clone(origins[group.filesystem].mount.as_fd());
                let alone = alone.map_err(failed("clone", &**label))?;
                share(alone.as_fd(), group.shared, label)?;
                alone
            }
        };
        yard.attach(carrier.as_fd())?;
        carriers.push(carrier);
    }
    Ok(carriers)
}

/// Puts the mounts of a namespace, which this thread is in, where they belong, and makes their root its root.
pub(super) fn build(plan: &Mounts, namespace: usize, mounts: &[OwnedFd]) -> Result<(), Error> {
    if namespace != 0 {
        set_apart()?;
    }
    let members = plan.mounts.iter().zip(mounts);
    for (mount, fd) in members.filter(|(mount, _)| mount.namespace == namespace) {
        let object = || mount.point.to_string();
        let attached = match mount.parent {
            None => move_mount(fd, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH),
            Some(parent) => {
                way_in(plan, &plan.mounts[parent])(mounts[parent].as_fd(), &mount.at, OFlags::PATH)
                    .and_then(|at| move_mount(fd, "", at, "", ATTACH))
            }
        };
        attached.map_err(|errno| failed("mount", object())(errno))?;
        // Files may have to be made in what is read-only in the end.
        let open = mount.attributes.difference(Attributes::READ_ONLY);
        let set = attributes::set_attributes(fd, open);
        set.map_err(|errno| failed("set the flags of", object())(errno))?;
        if mount.unbindable {
            let set = attributes::propagate(fd, Propagation::Unbindable, false);
            set.map_err(|errno| failed("make unbindable", object())(errno))?;
        }
    }
    let mut roots = plan.mounts.iter().zip(mounts);
    let root = roots.find(|(mount, _)| mount.namespace == namespace && mount.parent.is_none());
    let Some((_, root)) = root else { return Ok(()) };
    // The new root takes the place of the old one, which then lies on top of it.
    let turned = fchdir(root).and_then(|()| pivot_root(".", "."));
    turned.map_err(failed("enter", "the new root"))
}

/// Makes mounts members of their groups.
pub(super) fn group(plan: &Mounts, mounts: &[OwnedFd], carriers: &[OwnedFd]) -> Result<(), Error> {
    for (mount, fd) in plan.mounts.iter().zip(mounts) {
        if let Some(group) = mount.group {
            let joined = attributes::join_group(&carriers[group], fd);
            joined
                .map_err(|errno| failed("set the peer group of", mount.point.to_string())(errno))?;
        }
    }
    Ok(())
}

/// Takes away what lies on the root of the namespace that this thread is in.
pub(super) fn leave_old(root: BorrowedFd<'_>, times: usize) -> Result<(), Error> {
    let left =
        fchdir(root).and_then(|()| (0..times).try_for_each(|_| unmount(".", UnmountFlags::DETACH)));
    left.map_err(failed("leave", "the old root"))
}
