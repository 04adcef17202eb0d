//! POSIX message queues: `mq_overview(7)`.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::OFlags;
use rustix::io::Result;

use crate::syscall::call;

/// Opens a queue of the caller's IPC namespace that is there. The name has no slash.
///
/// # Errors
///
/// `ENOENT` if there is none of that name, and others of `mq_open(3)`.
pub fn open(name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let args = [name.as_ptr() as usize, flags.bits() as usize, 0, 0, 0, 0];
    // SAFETY: `name` is a string that outlives the call, which only reads it.
    let fd = unsafe { call(libc::SYS_mq_open as usize, args) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// What a queue can hold, and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The most messages.
    pub most: u32,
    /// The most bytes of a message.
    pub size: u32,
    /// Messages in it.
    pub count: u64,
}

/// Looks at an open queue.
///
/// # Errors
///
/// `EBADF` if it is none.
pub fn attributes(queue: impl AsFd) -> Result<Attributes> {
    let mut found = MaybeUninit::<libc::mq_attr>::zeroed();
    let fd = queue.as_fd().as_raw_fd() as usize;
    let args = [fd, 0, found.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: the kernel writes one such structure.
    unsafe { call(libc::SYS_mq_getsetattr as usize, args) }?;
    // SAFETY: zeros and what the kernel has written are such a structure.
    let found = unsafe { found.assume_init() };
    Ok(Attributes {
        // The kernel has ints.
        most: found.mq_maxmsg as u32,
        size: found.mq_msgsize as u32,
        count: found.mq_curmsgs.cast_unsigned(),
    })
}

/// Makes an empty queue that was not there. The name has no slash.
///
/// # Errors
///
/// `EEXIST` if it was, `EINVAL` and `ENOSPC` for limits, and others of `mq_open(3)`.
pub fn create(name: &CStr, mode: u32, most: u32, size: u32) -> Result<OwnedFd> {
    // SAFETY: a structure of numbers.
    let mut wanted: libc::mq_attr = unsafe { MaybeUninit::zeroed().assume_init() };
    (wanted.mq_maxmsg, wanted.mq_msgsize) = (most.into(), size.into());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let args = [
        name.as_ptr() as usize,
        flags.bits() as usize,
        mode as usize,
        (&raw const wanted) as usize,
        0,
        0,
    ];
    // SAFETY: name and structure outlive the call, which only reads them.
    let fd = unsafe { call(libc::SYS_mq_open as usize, args) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Removes a queue by its name.
///
/// # Errors
///
/// As `mq_unlink(3)`.
pub fn unlink(name: &CStr) -> Result<()> {
    let args = [name.as_ptr() as usize, 0, 0, 0, 0, 0];
    // SAFETY: `name` is a string that outlives the call, which only reads it.
    unsafe { call(libc::SYS_mq_unlink as usize, args) }.map(drop)
}

/// The process that wants to be told of the next message, by what reading a queue tells: `QSIZE:0 NOTIFY:0 SIGNO:0
/// NOTIFY_PID:0`. 0 if there is none.
#[must_use]
pub fn notified(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok()?;
    let mut fields = text.split_ascii_whitespace();
    fields
        .find_map(|field| field.strip_prefix("NOTIFY_PID:"))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_queue_is_made_looked_at_and_removed() {
        let name = format!("gelid-sys.{}", std::process::id());
        let name = std::ffi::CString::new(name).unwrap();
        let queue = match create(&name, 0o600, 3, 100) {
            Err(Errno::NOSYS) => return,
            queue => queue.unwrap(),
        };
        let empty = Attributes {
            most: 3,
            size: 100,
            count: 0,
        };
        assert_eq!(attributes(&queue), Ok(empty));
        assert_eq!(create(&name, 0o600, 3, 100).unwrap_err(), Errno::EXIST);
        unlink(&name).unwrap();
        assert_eq!(open(&name, OFlags::RDONLY).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn who_is_told_is_told() {
        let text = b"QSIZE:5          NOTIFY:0     SIGNO:10    NOTIFY_PID:4711  \n";
        assert_eq!(notified(text), Some(4711));
        assert_eq!(notified(b"QSIZE:5"), None);
        let missing = open(c"gelid-no-such-queue", OFlags::RDONLY).unwrap_err();
        assert!(matches!(missing, Errno::NOENT | Errno::NOSYS));
    }
}
