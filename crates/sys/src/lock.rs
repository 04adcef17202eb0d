//! Locks of files: `fcntl(2)`, `flock(2)`. Most is for arguments of calls on tapes.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use crate::syscall::call;

/// Takes a lock that belongs to the descriptor table.
pub const F_SETLK: i32 = libc::F_SETLK;
/// Takes a lock that belongs to the description.
pub const F_OFD_SETLK: i32 = libc::F_OFD_SETLK;
/// Takes a lease.
pub const F_SETLEASE: i32 = libc::F_SETLEASE;
/// Sets who gets signals about a file.
pub const F_SETOWN: i32 = libc::F_SETOWN;
/// For reading.
pub const F_RDLCK: i32 = libc::F_RDLCK;
/// For writing.
pub const F_WRLCK: i32 = libc::F_WRLCK;
/// A shared lock, without waiting for it.
pub const FLOCK_SHARED: i32 = libc::LOCK_SH | libc::LOCK_NB;
/// An exclusive lock, without waiting for it.
pub const FLOCK_EXCLUSIVE: i32 = libc::LOCK_EX | libc::LOCK_NB;

/// `struct flock` for bytes from `start` on; a `len` of 0 is all up to the end.
#[must_use]
pub fn range(lock_type: i32, start: i64, len: i64) -> [u8; size_of::<libc::flock>()] {
    let mut bytes = [0; size_of::<libc::flock>()];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(
        std::mem::offset_of!(libc::flock, l_type),
        &(lock_type as i16).to_ne_bytes(),
    );
    put(
        std::mem::offset_of!(libc::flock, l_start),
        &start.to_ne_bytes(),
    );
    put(std::mem::offset_of!(libc::flock, l_len), &len.to_ne_bytes());
    bytes
}

/// Whether some byte of a file is locked by `F_SETLK` or `F_OFD_SETLK`, by whomsoever: another table of descriptors than
/// the caller's, or another description.
///
/// # Errors
///
/// As `F_GETLK` of `fcntl(2)`. A file of another machine may take as long as that one takes to answer.
pub fn is_locked(file: impl AsFd) -> Result<bool> {
    let mut asked = range(F_WRLCK, 0, 0);
    let (fd, lock) = (
        file.as_fd().as_raw_fd() as usize,
        asked.as_mut_ptr() as usize,
    );
    let nr = libc::SYS_fcntl as usize;
    // SAFETY: the kernel reads and writes a `struct flock`, which is as long as the array.
    unsafe { call(nr, [fd, libc::F_GETLK as usize, lock, 0, 0, 0]) }?;
    // Its type is made this if nothing is in the way.
    let unlocked = range(libc::F_UNLCK, 0, 0);
    let at = std::mem::offset_of!(libc::flock, l_type);
    Ok(asked[at..at + 2] != unlocked[at..at + 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, MemfdFlags, fcntl_lock, memfd_create};

    #[test]
    fn locks_of_others_are_seen() {
        let file = memfd_create("lock", MemfdFlags::CLOEXEC).unwrap();
        assert!(!is_locked(&file).unwrap());
        // One of the caller's own table is in nobody's way.
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(!is_locked(&file).unwrap());
        fcntl_lock(&file, FlockOperation::Unlock).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let other = std::fs::File::open(path).unwrap();
        let lock = range(F_RDLCK, 3, 1);
        let nr = libc::SYS_fcntl as usize;
        let args = [
            other.as_raw_fd() as usize,
            F_OFD_SETLK as usize,
            lock.as_ptr() as usize,
            0,
            0,
            0,
        ];
        // SAFETY: it is a `struct flock`.
        unsafe { call(nr, args) }.unwrap();
        assert!(is_locked(&file).unwrap());
        drop(other);
        assert!(!is_locked(&file).unwrap());
    }
}
