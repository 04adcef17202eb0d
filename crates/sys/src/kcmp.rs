//! Whether two tasks share a kernel object: `kcmp(2)`.
//!
//! The call compares kernel addresses without giving them away. Its answer is a total order, good for
//! the whole life of both objects, so descriptors can be sorted and grouped with it.

use std::cmp::Ordering;
use std::os::fd::RawFd;

use rustix::io::{Errno, Result};
use rustix::process::Pid;

use crate::syscall::call;

/// What is compared, `enum kcmp_type` of `linux/kcmp.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Open file descriptions; the indices are descriptor numbers.
    File = 0,
    /// Address spaces (`CLONE_VM`).
    Vm = 1,
    /// Descriptor tables (`CLONE_FILES`).
    Files = 2,
    /// Root, working directory and umask (`CLONE_FS`).
    Fs = 3,
    /// Tables of signal handlers (`CLONE_SIGHAND`).
    Sighand = 4,
    /// I/O contexts (`CLONE_IO`).
    Io = 5,
    /// Lists of semaphore undo operations (`CLONE_SYSVSEM`).
    SysvSem = 6,
    /// An open file description against one watched by an epoll descriptor; see [`epoll`].
    EpollTfd = 7,
}

/// One descriptor watched by an epoll descriptor, `struct kcmp_epoll_slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct EpollSlot {
    /// Number of the epoll descriptor in the second task.
    pub efd: u32,
    /// Number under which the file was added to it.
    pub tfd: u32,
    /// Which of several entries with that number, counted from 0.
    pub toff: u32,
}

const _: () = assert!(size_of::<EpollSlot>() == 12);

/// Compares the object of `kind` that `a` and `b` have. The indices are descriptor numbers for
/// [`Kind::File`] and ignored for the rest.
///
/// # Errors
///
/// `EBADF` for a descriptor that is not open, `ESRCH` for a task that is gone, `EPERM` without ptrace
/// access to both, `ENOSYS` on a kernel without `CONFIG_KCMP`. A kernel that says "different, in no
/// order" gives `EOPNOTSUPP` (none does today).
pub fn kcmp(kind: Kind, a: (Pid, u64), b: (Pid, u64)) -> Result<Ordering> {
    if kind == Kind::EpollTfd {
        // Its second index is an address, and this function takes only numbers.
        return Err(Errno::INVAL);
    }
    // SAFETY: for every kind but the refused one the kernel takes both indices as plain numbers.
    unsafe { raw(kind, a, (b.0, b.1 as usize)) }
}

/// Compares two open file descriptions.
pub fn file(a: (Pid, RawFd), b: (Pid, RawFd)) -> Result<Ordering> {
    let index = |fd: RawFd| u64::try_from(fd).map_err(|_| Errno::BADF);
    kcmp(Kind::File, (a.0, index(a.1)?), (b.0, index(b.1)?))
}

/// Whether two descriptors are known to stand for the same description; false where that cannot be told.
#[must_use]
pub fn is_same_file(a: (Pid, RawFd), b: (Pid, RawFd)) -> bool {
    file(a, b).is_ok_and(Ordering::is_eq)
}

/// Whether both tasks share the object of `kind`, which is any but the two kinds of file.
pub fn shared(kind: Kind, a: Pid, b: Pid) -> Result<bool> {
    kcmp(kind, (a, 0), (b, 0)).map(Ordering::is_eq)
}

/// Compares descriptor `fd` of `a` with the file that `slot` names in an epoll descriptor of `b`.
pub fn epoll(a: Pid, fd: RawFd, b: Pid, slot: EpollSlot) -> Result<Ordering> {
    let fd = u64::try_from(fd).map_err(|_| Errno::BADF)?;
    let slot = &raw const slot;
    // SAFETY: the second index is the address of a live `kcmp_epoll_slot`, which the kernel reads.
    unsafe { raw(Kind::EpollTfd, (a, fd), (b, slot as usize)) }
}

/// # Safety
///
/// For [`Kind::EpollTfd`] the second index must be the address of a readable [`EpollSlot`].
unsafe fn raw(kind: Kind, a: (Pid, u64), b: (Pid, usize)) -> Result<Ordering> {
    let args = [
        a.0.as_raw_pid() as usize,
        b.0.as_raw_pid() as usize,
        kind as usize,
        a.1 as usize,
        b.1,
        0,
    ];
    // SAFETY: kcmp reads memory only through the slot, which the caller vouches for, and writes none.
    match unsafe { call(libc::SYS_kcmp as usize, args) }? {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        _ => Err(Errno::OPNOTSUPP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn duplicates_are_one_file() {
        let me = rustix::process::getpid();
        let (one, other) = rustix::pipe::pipe().unwrap();
        let twin = one.try_clone().unwrap();
        let (one, other, twin) = (one.as_raw_fd(), other.as_raw_fd(), twin.as_raw_fd());
        assert_eq!(file((me, one), (me, twin)), Ok(Ordering::Equal));
        let there = file((me, one), (me, other)).unwrap();
        assert_ne!(there, Ordering::Equal);
        assert_eq!(file((me, other), (me, one)), Ok(there.reverse()));
        assert_eq!(file((me, -1), (me, one)), Err(Errno::BADF));
    }

    #[test]
    fn a_task_shares_with_itself() {
        let me = rustix::process::getpid();
        for kind in [Kind::Vm, Kind::Files, Kind::Fs, Kind::Sighand, Kind::Io] {
            assert_eq!(shared(kind, me, me), Ok(true), "{kind:?}");
        }
        assert_eq!(shared(Kind::EpollTfd, me, me), Err(Errno::INVAL));
    }

    #[test]
    fn epoll_slot_finds_the_watched_file() {
        use rustix::event::epoll;
        let me = rustix::process::getpid();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(
            &set,
            &reader,
            epoll::EventData::new_u64(1),
            epoll::EventFlags::IN,
        )
        .unwrap();
        let slot = EpollSlot {
            efd: set.as_raw_fd() as u32,
            tfd: reader.as_raw_fd() as u32,
            toff: 0,
        };
        assert_eq!(
            super::epoll(me, reader.as_raw_fd(), me, slot),
            Ok(Ordering::Equal)
        );
        assert_ne!(
            super::epoll(me, writer.as_raw_fd(), me, slot),
            Ok(Ordering::Equal)
        );
        let missing = EpollSlot { toff: 1, ..slot };
        assert_eq!(
            super::epoll(me, reader.as_raw_fd(), me, missing),
            Err(Errno::NOENT)
        );
    }
}
