//! Automounters: `autofs`, by the calls on the root directory of one, and on `/dev/autofs`.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use crate::syscall::call;

/// `AUTOFS_IOC_CATATONIC`, a call on the root directory: see [`make_catatonic`].
pub const CATATONIC: usize = 0x9362;
/// `AUTOFS_IOC_SETTIMEOUT`
const SET_TIMEOUT: usize = 0xc008_9364;
/// `AUTOFS_DEV_IOCTL_SETPIPEFD`, a call on `/dev/autofs`.
pub const SET_PIPE: usize = 0xc018_9378;

/// Has nobody be asked for anything any more: what is not there is missing, and what is there can be opened.
///
/// # Errors
///
/// `ENOTTY` for what is no automounter's root, `EPERM` without `CAP_SYS_ADMIN` on the machine.
pub fn make_catatonic(root: impl AsFd) -> Result<()> {
    let fd = root.as_fd().as_raw_fd() as usize;
    // SAFETY: the request takes no argument.
    unsafe { call(libc::SYS_ioctl as usize, [fd, CATATONIC, 0, 0, 0, 0]) }.map(drop)
}

/// Sets after how many seconds without use something may be unmounted.
///
/// # Errors
///
/// As [`make_catatonic`].
pub fn set_timeout(root: impl AsFd, seconds: u64) -> Result<()> {
    let fd = root.as_fd().as_raw_fd() as usize;
    let mut seconds = seconds;
    let args = [fd, SET_TIMEOUT, &raw mut seconds as usize, 0, 0, 0];
    // SAFETY: the kernel reads and writes the number, which is alive; the request says so whatever the descriptor is.
    unsafe { call(libc::SYS_ioctl as usize, args) }.map(drop)
}

/// What [`SET_PIPE`] takes: descriptors of the root directory of a catatonic mount, and of the pipe to ask by. The
/// caller's process group is that of the daemon then.
#[must_use]
pub fn pipe_argument(root: i32, pipe: i32) -> [u8; 24] {
    let words = [1, 1, 24, root, pipe, 0];
    let mut bytes = [0; 24];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_have_no_such_calls() {
        let file = std::fs::File::open("/").unwrap();
        assert_eq!(make_catatonic(&file), Err(rustix::io::Errno::NOTTY));
        assert_eq!(set_timeout(&file, 1), Err(rustix::io::Errno::NOTTY));
        assert_eq!(pipe_argument(3, 4)[8..13], [24, 0, 0, 0, 3]);
    }
}
