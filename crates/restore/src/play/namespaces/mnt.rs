//! Makes mount namespaces by the new mount interface (`fsopen(2)`, `open_tree(2)`, `move_mount(2)`, `mount_setattr(2)`).
//!
//! **Model.** Everything is held by descriptors. File systems are opened or made where the restorer is, all mounts are
//! cloned from them, and then put together in the new namespaces by threads that have joined these. Mounts that nobody
//! has attached are gone when their descriptors are closed, so a failure needs no undoing.

pub(crate) mod automount;
mod contents;
mod idmap;
mod origin;
mod stage;
mod terminal;
#[cfg(test)]
mod tests;
mod tree;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_image::Dir;
use gelid_sys::Errno;
use gelid_sys::mount::attributes::{Attributes, set_attributes};
use gelid_sys::namespace::join;
use gelid_sys::proc::ns::Kind;

use super::maker::Maker as Leader;
use crate::Error;
use crate::files::{Closing, Mounted};
use crate::plan::namespaces::mnt::Mounts;
use crate::play::script::Script;

pub(crate) use stage::make;

/// Whose a file system is, where it is not the root's: pid and user namespaces below those of the root, a network or IPC
/// namespace that it shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose {
    pub(crate) pid_ns: Option<u32>,
    pub(crate) users: Option<u32>,
    pub(crate) shown: Option<(Kind, u32)>,
}

/// What making mounts needs of the task whose namespaces they are.
pub(crate) trait Place {
    /// Opens a file system of a kind as the root of the tree, whose namespaces it then belongs to; or as the first
    /// process of a pid namespace below the root's, or as somebody in a user namespace there.
    fn fsopen(&mut self, kind: &CStr, whose: Whose) -> Result<OwnedFd, Error>;

    /// Has this thread make files as the first user of a user namespace below the root's, or as before.
    fn make_files_in(&self, users: Option<u32>) -> Result<(), Error>;

    /// Has somebody be there whose process group an automounter leaves alone.
    fn lead(&mut self) -> Result<Leader, Error>;

    /// Has them make system calls.
    fn by(&mut self, leader: Leader, script: Script) -> Result<(), Error>;

    /// They are needed no more.
    fn dismiss(&mut self, leader: Leader) -> Result<(), Error>;

    /// Runs something in a thread that has joined a mount namespace of the tree, by its index.
    fn inside<T: Send>(
        &self,
        namespace: usize,
        job: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error>;

    /// Owner and group as the restorer sees them.
    fn owner(&self, uid: u32, gid: u32) -> (u32, u32);
}

/// Makes all mounts, in namespaces that are copies of the restorer's.
pub(crate) fn put_together(
    plan: &Mounts,
    place: &mut impl Place,
    dir: &Dir,
) -> Result<Mounted, Error> {
    let mut origins = Vec::with_capacity(plan.filesystems.len());
    for filesystem in &plan.filesystems {
        origins.push(origin::open(filesystem, place, dir)?);
    }
    let masters = terminal::masters(plan, &origins)?;
    let carriers = tree::outside(plan, &origins)?;
    let yard = origin::yard()?;
    let maps = idmap::Maps::make(plan)?;
    let (mounts, appeared, carriers) = place.inside(0, || {
        let mut yard = tree::Yard::settle(yard)?;
        for origin in &origins {
            yard.attach(origin.mount.as_fd())?;
        }
        let (mounts, appeared) = tree::clone_all(plan, &origins, &maps)?;
        let carriers = tree::carry(plan, &origins, carriers, &mut yard)?;
        // For another thread the yard would be the root.
        tree::build(plan, 0, &mounts)?;
        Ok((mounts, appeared, carriers))
    })?;
    for namespace in 1..plan.namespaces.len() {
        place.inside(namespace, || tree::build(plan, namespace, &mounts))?;
    }
    tree::group(plan, &mounts, &carriers)?;
    for (mount, fd) in plan.mounts.iter().zip(&mounts) {
        if mount.parent.is_none() {
            // What the namespace was a copy of, and above it in the first one the yard.
            let times = if mount.namespace == 0 { 2 } else { 1 };
            place.inside(mount.namespace, || tree::leave_old(fd.as_fd(), times))?;
        }
    }
    drop(appeared);
    let mut mounted = Mounted {
        by_mount: plan.by_mount(),
        masters,
        ..Mounted::default()
    };
    for (index, (filesystem, origin)) in plan.filesystems.iter().zip(origins).enumerate() {
        let automounter = origin.automounter.map(|root| (index, root));
        mounted.automounters.extend(automounter);
        if origin::is_closed_later(filesystem) {
            mounted.closing.push(Closing::Filesystem(origin.mount));
        }
    }
    for (mount, fd) in plan.mounts.iter().zip(mounts) {
        if mount.attributes.contains(Attributes::READ_ONLY) {
            let same = fd.try_clone().map_err(|_| {
                let object = mount.point.to_string();
                failed("hold", object)(Errno::MFILE)
            })?;
            mounted
                .closing
                .push(Closing::Mount(mount.namespace, same, mount.attributes));
        }
        match mount.parent {
            None => mounted.roots.push(fd),
            Some(_) => {
                let dev = plan.filesystems[mount.filesystem].dev;
                mounted.by_device.entry(dev).or_insert(fd);
            }
        }
    }
    Ok(mounted)
}

/// Makes read-only what was to be written in until now.
pub(crate) fn close(mounted: &Mounted) -> Result<(), Error> {
    let close = || {
        let mut at = None;
        for closing in &mounted.closing {
            match closing {
                Closing::Mount(namespace, mount, attributes) => {
                    if at != Some(*namespace) {
                        let namespace = mounted.namespaces.get(*namespace);
                        join(namespace.ok_or(Errno::NOENT)?, Kind::Mnt)?;
                    }
                    at = Some(*namespace);
                    set_attributes(mount, *attributes)?;
                }
                Closing::Filesystem(mount) => origin::close(mount.as_fd())?,
            }
        }
        Ok(())
    };
    if mounted.closing.is_empty() {
        return Ok(());
    }
    // Mounts are changed by who is where they are.
    let closed = std::thread::scope(|scope| scope.spawn(close).join());
    let closed = closed.unwrap_or(Err(Errno::IO));
    closed.map_err(failed("make read-only", "a mount"))
}

/// Turns an errno into an error, for `map_err`.
fn failed(operation: &'static str, object: impl Into<String>) -> impl FnOnce(Errno) -> Error {
    let object = object.into();
    move |errno| Error::Mount {
        operation,
        object,
        errno,
    }
}

/// Opens what a path below a directory leads to, which must not lead over a link, upwards or into another mount.
fn beneath(dir: BorrowedFd<'_>, path: &[u8], flags: rustix::fs::OFlags) -> Result<OwnedFd, Errno> {
    resolve(dir, path, flags, rustix::fs::ResolveFlags::NO_XDEV)
}

/// The same in an automounter, all of whose directories might lead into another mount. Those that ask nobody do not.
fn beneath_automount(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: rustix::fs::OFlags,
) -> Result<OwnedFd, Errno> {
    resolve(dir, path, flags, rustix::fs::ResolveFlags::empty())
}

fn resolve(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: rustix::fs::OFlags,
    more: rustix::fs::ResolveFlags,
) -> Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, ResolveFlags};
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | more;
    let flags = flags | rustix::fs::OFlags::CLOEXEC;
    let path = if path.is_empty() { b"." } else { path };
    loop {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}
