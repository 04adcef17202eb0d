//! Namespaces of the calling thread: `setns(2)`, `unshare(2)`.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use crate::proc::ns::Kind;
use crate::syscall;

/// Has the calling thread, and no other, join a namespace of a kind, by its descriptor. For a mount namespace the
/// thread gets a root and working directory of its own, which become the root of that.
///
/// # Errors
///
/// As `setns(2)`: `EPERM` without the privilege for it, `EINVAL` for another kind, a user namespace among them while
/// other threads are there.
pub fn join(namespace: impl AsFd, kind: Kind) -> Result<()> {
    if kind == Kind::Mnt {
        // SAFETY: no memory and no descriptor is concerned.
        unsafe {
            syscall::call(
                libc::SYS_unshare as usize,
                [libc::CLONE_FS as usize, 0, 0, 0, 0, 0],
            )
        }?;
    }
    let fd = namespace.as_fd().as_raw_fd() as usize;
    let flag = flag(kind) as usize;
    // SAFETY: as above.
    unsafe { syscall::call(libc::SYS_setns as usize, [fd, flag, 0, 0, 0, 0]) }.map(drop)
}

/// Runs something in a thread that has [joined](join) a namespace, and does nothing else: with all capabilities of this
/// process.
///
/// # Errors
///
/// Those of `job`, and what `failed` makes of those of [`join`], or of `EIO` if the thread has panicked.
pub fn inside<T: Send, E: Send>(
    namespace: impl AsFd + Send,
    kind: Kind,
    failed: impl Fn(Errno) -> E + Sync,
    job: impl FnOnce() -> std::result::Result<T, E> + Send,
) -> std::result::Result<T, E> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| join(namespace, kind).map_err(&failed).and_then(|()| job()));
        thread.join().unwrap_or_else(|_| Err(failed(Errno::IO)))
    })
}

/// Has the calling thread, and no other, be in a new namespace of a kind.
///
/// # Errors
///
/// As `unshare(2)`: `EPERM` without the privilege for it, `EINVAL` for kinds that a process leaves as a whole.
pub fn leave(kind: Kind) -> Result<()> {
    let flag = flag(kind) as usize;
    // SAFETY: as above.
    unsafe { syscall::call(libc::SYS_unshare as usize, [flag, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Has files that the calling thread makes from now on belong to a user and a group. It may still do what it could, as
/// long as it changes no other of its users.
///
/// # Errors
///
/// As `prctl(2)` with `PR_SET_SECUREBITS`.
pub fn make_files_as(uid: u32, gid: u32) -> Result<()> {
    const NO_SETUID_FIXUP: usize = 1 << 2;
    let call = |nr: libc::c_long, args: [usize; 6]| {
        // SAFETY: numbers, which concern the credentials of this thread alone.
        unsafe { syscall::call(nr as usize, args) }
    };
    let get = [libc::PR_GET_SECUREBITS as usize, 0, 0, 0, 0, 0];
    let bits = call(libc::SYS_prctl, get)? | NO_SETUID_FIXUP;
    let set = [libc::PR_SET_SECUREBITS as usize, bits, 0, 0, 0, 0];
    call(libc::SYS_prctl, set)?;
    // These tell what it was before, and never fail.
    call(libc::SYS_setfsgid, [gid as usize, 0, 0, 0, 0, 0])?;
    call(libc::SYS_setfsuid, [uid as usize, 0, 0, 0, 0, 0]).map(drop)
}

/// The user namespace that a namespace belongs to; of a user namespace its parent.
///
/// # Errors
///
/// As `ioctl_nsfs(2)`: `EPERM` if it is neither that of the caller nor below it.
pub fn owner(namespace: impl AsFd) -> Result<OwnedFd> {
    const NS_GET_USERNS: usize = 0xb701;
    related(namespace, NS_GET_USERNS)
}

/// The parent of a pid or user namespace.
///
/// # Errors
///
/// As [`owner`].
pub fn parent(namespace: impl AsFd) -> Result<OwnedFd> {
    const NS_GET_PARENT: usize = 0xb702;
    related(namespace, NS_GET_PARENT)
}

fn related(namespace: impl AsFd, request: usize) -> Result<OwnedFd> {
    let fd = namespace.as_fd().as_raw_fd() as usize;
    // SAFETY: the request takes no argument.
    let found = unsafe { syscall::call(libc::SYS_ioctl as usize, [fd, request, 0, 0, 0, 0]) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(found as i32) })
}

/// The user who has made a user namespace, as the caller sees him.
///
/// # Errors
///
/// As `ioctl_nsfs(2)`.
pub fn creator(namespace: impl AsFd) -> Result<u32> {
    const NS_GET_OWNER_UID: usize = 0xb704;
    let fd = namespace.as_fd().as_raw_fd() as usize;
    let mut uid = 0u32;
    let at = (&raw mut uid) as usize;
    // SAFETY: the kernel writes a number there.
    unsafe {
        syscall::call(
            libc::SYS_ioctl as usize,
            [fd, NS_GET_OWNER_UID, at, 0, 0, 0],
        )
    }?;
    Ok(uid)
}

/// The number that tells a namespace from all others of its kind.
///
/// # Errors
///
/// As `fstat(2)`.
pub fn inode(namespace: impl AsFd) -> Result<u64> {
    Ok(rustix::fs::fstat(namespace)?.st_ino)
}

/// The `CLONE_*` flag of a kind of namespace.
#[must_use]
pub fn flag(kind: Kind) -> u64 {
    use crate::clone::flags;
    match kind {
        Kind::Cgroup => flags::NEWCGROUP,
        Kind::Ipc => flags::NEWIPC,
        Kind::Mnt => flags::NEWNS,
        Kind::Net => flags::NEWNET,
        Kind::Pid | Kind::PidForChildren => flags::NEWPID,
        Kind::Time | Kind::TimeForChildren => flags::NEWTIME,
        Kind::User => flags::NEWUSER,
        Kind::Uts => flags::NEWUTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::{TaskDir, ns};

    #[test]
    fn namespaces_know_their_owners() {
        let own = TaskDir::open(rustix::process::getpid()).unwrap();
        let uts = ns::open(&own, Kind::Uts).unwrap();
        let Ok(owner) = owner(&uts) else { return };
        // Those of a container may belong to one above.
        if inode(&owner) == Ok(ns::id(&own, Kind::User).unwrap()) {
            creator(&owner).unwrap();
        }
        let refused = parent(&uts).map(drop);
        assert_eq!(refused, Err(rustix::io::Errno::INVAL));
    }

    #[test]
    fn one_of_another_kind_is_not_joined() {
        let own = TaskDir::open(rustix::process::getpid()).unwrap();
        let uts = ns::open(&own, Kind::Uts).unwrap();
        let joined = std::thread::spawn(move || join(uts, Kind::Net))
            .join()
            .unwrap();
        assert_eq!(joined, Err(rustix::io::Errno::INVAL));
    }
}
