//! What a program that this one executes finds open, and what this one has found so.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Result;

/// A duplicate of a descriptor that this process knows by its number alone, with close-on-exec.
///
/// # Errors
///
/// `EBADF` if it is not open.
pub fn duplicate(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: the call takes three numbers.
    let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    match duplicate {
        -1 => Err(crate::syscall::last()),
        // SAFETY: it is new, and nobody else's.
        duplicate => Ok(unsafe { OwnedFd::from_raw_fd(duplicate) }),
    }
}

/// Sets close-on-exec for every descriptor from `first` on: `close_range(2)` with `CLOSE_RANGE_CLOEXEC`, Linux 5.11.
///
/// # Errors
///
/// `ENOSYS` or `EINVAL` of an older kernel.
pub fn nothing_from(first: u32) -> Result<()> {
    // SAFETY: the call takes three numbers, and closes nothing.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(crate::syscall::last()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use rustix::io::{Errno, FdFlags, fcntl_getfd};

    #[test]
    fn a_number_becomes_a_descriptor() {
        use std::os::fd::AsRawFd;
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
        let duplicate = duplicate(null.as_raw_fd()).unwrap();
        assert_eq!(fcntl_getfd(&duplicate), Ok(FdFlags::CLOEXEC));
        assert_eq!(super::duplicate(987_654).err(), Some(Errno::BADF));
    }

    #[test]
    fn a_descriptor_is_not_passed_on() {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(fcntl_getfd(&null), Ok(FdFlags::empty()));
        match nothing_from(3) {
            Err(Errno::NOSYS) => println!("skipped: no close_range(2)"),
            done => {
                done.unwrap();
                assert_eq!(fcntl_getfd(&null), Ok(FdFlags::CLOEXEC));
            }
        }
    }
}
