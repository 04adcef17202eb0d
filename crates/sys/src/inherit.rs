//! What a program that this one executes finds open.

use rustix::io::Result;

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
