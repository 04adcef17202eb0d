//! Locks of files, as arguments of calls on tapes: `fcntl(2)`, `flock(2)`.

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
