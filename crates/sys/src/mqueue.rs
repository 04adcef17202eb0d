//! POSIX message queues: `mq_overview(7)`.

use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

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
    fn who_is_told_is_told() {
        let text = b"QSIZE:5          NOTIFY:0     SIGNO:10    NOTIFY_PID:4711  \n";
        assert_eq!(notified(text), Some(4711));
        assert_eq!(notified(b"QSIZE:5"), None);
        let missing = open(c"gelid-no-such-queue", OFlags::RDONLY).unwrap_err();
        assert!(matches!(missing, Errno::NOENT | Errno::NOSYS));
    }
}
