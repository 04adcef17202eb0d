//! `fanotify(7)`: groups and their marks.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Result;

use crate::syscall::call;

/// Adds a mark.
pub const MARK_ADD: u32 = libc::FAN_MARK_ADD;
/// On a mount.
pub const MARK_MOUNT: u32 = libc::FAN_MARK_MOUNT;
/// On a whole file system.
pub const MARK_FILESYSTEM: u32 = libc::FAN_MARK_FILESYSTEM;
/// The mask is one of events that are ignored.
pub const MARK_IGNORED_MASK: u32 = libc::FAN_MARK_IGNORED_MASK;
/// The ignored mask survives changes.
pub const MARK_IGNORED_SURV_MODIFY: u32 = libc::FAN_MARK_IGNORED_SURV_MODIFY;
/// Does not keep the inode in memory.
pub const MARK_EVICTABLE: u32 = 0x200;
/// As `MARK_IGNORED_MASK`, with flags of events.
pub const MARK_IGNORE: u32 = 0x400;
/// Events that wait for an answer: opening, reading, executing, reading before there is anything.
pub const PERMISSION: u32 = 0x1_0000 | 0x2_0000 | 0x4_0000 | 0x10_0000;

/// Makes a group.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` for flags that this kernel does not know.
pub fn init(flags: u32, event_flags: u32) -> Result<OwnedFd> {
    let args = [flags as usize, event_flags as usize, 0, 0, 0, 0];
    // SAFETY: two numbers.
    let fd = unsafe { call(libc::SYS_fanotify_init as usize, args) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Changes a mark on the file that `path` leads to, links included.
///
/// # Errors
///
/// Those of `fanotify_mark(2)`.
pub fn mark(group: impl AsFd, flags: u32, mask: u64, path: &CStr) -> Result<()> {
    let args = [
        group.as_fd().as_raw_fd() as usize,
        flags as usize,
        mask as usize,
        libc::AT_FDCWD as usize,
        path.as_ptr() as usize,
        0,
    ];
    // SAFETY: `path` is a string that outlives the call, which only reads it.
    unsafe { call(libc::SYS_fanotify_mark as usize, args) }.map(drop)
}
