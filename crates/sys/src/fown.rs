//! Who gets signals about an open file: `F_SETOWN_EX`, `F_SETSIG` and their likes of `fcntl(2)`.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

use crate::syscall::call;

// Of `asm-generic/fcntl.h`; libc has only some of them.
const F_SETSIG: usize = 10;
const F_GETSIG: usize = 11;
const F_SETOWN_EX: usize = 15;
const F_GETOWN_EX: usize = 16;
const F_GETOWNER_UIDS: usize = 17;

/// `struct f_owner_ex`
#[repr(C)]
#[derive(Default)]
struct OwnerEx {
    kind: i32,
    pid: i32,
}

const _: () = assert!(size_of::<OwnerEx>() == 8);

#[cfg(test)]
crate::layout::same!(whole OwnerEx, linux_raw_sys::general::f_owner_ex { kind = type_, pid = pid });

/// What kind of number an owner's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerKind {
    /// One thread, by its tid.
    Thread,
    /// A process.
    Process,
    /// A process group.
    Group,
}

/// Who gets the signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// What `pid` is.
    pub kind: OwnerKind,
    /// Number of the owner in the caller's pid namespace; 0 is nobody.
    pub pid: i32,
}

fn fcntl(fd: impl AsFd, command: usize, argument: usize) -> Result<usize> {
    let fd = fd.as_fd().as_raw_fd() as usize;
    // SAFETY: the callers below give numbers, or pointers to what the kernel reads or writes there.
    unsafe { call(libc::SYS_fcntl as usize, [fd, command, argument, 0, 0, 0]) }
}

/// The owner.
pub fn owner(fd: impl AsFd) -> Result<Owner> {
    let mut owner = OwnerEx::default();
    fcntl(fd, F_GETOWN_EX, &raw mut owner as usize)?;
    let kind = match owner.kind {
        0 => OwnerKind::Thread,
        1 => OwnerKind::Process,
        2 => OwnerKind::Group,
        _ => return Err(Errno::INVAL),
    };
    Ok(Owner {
        kind,
        pid: owner.pid,
    })
}

/// Sets the owner. The kernel remembers the caller's real and effective user with it, and later sends
/// signals with their rights.
///
/// # Errors
///
/// `ESRCH` if there is no such owner.
pub fn set_owner(fd: impl AsFd, owner: Owner) -> Result<()> {
    let owner = OwnerEx {
        kind: match owner.kind {
            OwnerKind::Thread => 0,
            OwnerKind::Process => 1,
            OwnerKind::Group => 2,
        },
        pid: owner.pid,
    };
    fcntl(fd, F_SETOWN_EX, &raw const owner as usize).map(drop)
}

/// Real and effective user of whom set the owner.
pub fn owner_users(fd: impl AsFd) -> Result<(u32, u32)> {
    let mut users = [0u32; 2];
    fcntl(fd, F_GETOWNER_UIDS, &raw mut users as usize)?;
    Ok((users[0], users[1]))
}

/// Signal that is sent; 0 is `SIGIO`, without details.
pub fn signal(fd: impl AsFd) -> Result<i32> {
    fcntl(fd, F_GETSIG, 0).map(|signal| signal as i32)
}

/// Sets the signal that is sent.
pub fn set_signal(fd: impl AsFd, signal: i32) -> Result<()> {
    let signal = usize::try_from(signal).map_err(|_| Errno::INVAL)?;
    fcntl(fd, F_SETSIG, signal).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_set_and_told() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let nobody = owner(&reader).unwrap();
        assert_eq!((nobody.pid, signal(&reader)), (0, Ok(0)));
        let me = rustix::process::getpid().as_raw_pid();
        for kind in [OwnerKind::Process, OwnerKind::Thread] {
            let wanted = Owner { kind, pid: me };
            set_owner(&reader, wanted).unwrap();
            assert_eq!(owner(&reader), Ok(wanted));
        }
        set_signal(&reader, libc::SIGUSR1).unwrap();
        assert_eq!(signal(&reader), Ok(libc::SIGUSR1));
        let uid = rustix::process::getuid().as_raw();
        let euid = rustix::process::geteuid().as_raw();
        assert_eq!(owner_users(&reader), Ok((uid, euid)));
        assert_eq!(set_signal(&reader, 99), Err(Errno::INVAL));
        assert_eq!(set_signal(&reader, -1), Err(Errno::INVAL));
    }
}
