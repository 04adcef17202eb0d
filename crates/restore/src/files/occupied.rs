//! Numbers below those that files are opened at, occupied for the time.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use gelid_sys::row::Row;
use gelid_sys::unix;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// Descriptors that come with a message, at most.
const TOGETHER: usize = 253;

/// Occupies the numbers below `base`, if that is less work than to move `count` descriptors there, which takes two calls
/// each. If not, or if there is no more, whatever is opened there is moved.
pub(super) fn below(own: &OwnedFd, base: RawFd, count: usize) -> Row {
    let mut below = Row::default();
    if usize::try_from(base).is_ok_and(|base| base < 2 * count) {
        if base > TOGETHER as RawFd
            && let Err(errno) = together(own, base, &mut below)
        {
            tracing::debug!("numbers are occupied one by one: {errno}");
        }
        while let Ok(fd) = rustix::io::fcntl_dupfd_cloexec(own, 0) {
            if fd.as_raw_fd() >= base {
                break;
            }
            below.push(fd);
        }
    }
    below
}

/// Occupies most of the free numbers below `base`: with a message to itself, which this process looks at again and again.
/// Each look gives it as many descriptors as the message has, at the lowest free numbers.
fn together(own: &OwnedFd, base: RawFd, below: &mut Row) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC;
    let (from, to) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    unix::send(&from, None, &[0], &[own.as_fd(); TOGETHER])?;
    loop {
        let message = unix::peek(&to, &mut [0])?;
        let last = message.rights.last().map(AsRawFd::as_raw_fd);
        let fit = |fd: &OwnedFd| fd.as_raw_fd() < base;
        message
            .rights
            .into_iter()
            .filter(fit)
            .for_each(|fd| below.push(fd));
        if last.is_none_or(|last| last >= base - TOGETHER as RawFd) {
            return Ok(());
        }
    }
}
