//! What rustix lacks of `inotify(7)`: the number of the next watch.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use crate::syscall::call;

/// `INOTIFY_IOC_SETNEXTWD`
const SET_NEXT: usize = 0x4004_4900;

/// Sets the number that the next new watch gets, if it is free.
///
/// # Errors
///
/// `ENOTTY` on a kernel without `CONFIG_CHECKPOINT_RESTORE`, `EINVAL` for a number below 1.
pub fn set_next(fd: impl AsFd, wd: i32) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd() as usize;
    let args = [fd, SET_NEXT, wd as usize, 0, 0, 0];
    // SAFETY: the argument is a number.
    unsafe { call(libc::SYS_ioctl as usize, args) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

    #[test]
    fn watches_are_numbered_as_told() {
        let fd = init(CreateFlags::CLOEXEC).unwrap();
        for wd in [1000, 7] {
            set_next(&fd, wd).unwrap();
            let path = format!("/proc/self/{}", if wd == 7 { "fd" } else { "task" });
            assert_eq!(add_watch(&fd, path, WatchFlags::CREATE), Ok(wd));
        }
        assert!(set_next(&fd, 0).is_err());
    }
}
