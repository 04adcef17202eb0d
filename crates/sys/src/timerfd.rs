//! What `timerfd_create(2)` and its likes lack: setting expirations that nobody has read.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use crate::syscall::call;

/// `TFD_IOC_SET_TICKS`
const SET_TICKS: usize = 0x4008_5400;

/// Sets the number of expirations that a read gives, which is not 0.
///
/// # Errors
///
/// `ENOTTY` on a kernel without `CONFIG_CHECKPOINT_RESTORE`.
pub fn set_ticks(fd: impl AsFd, ticks: u64) -> Result<()> {
    let fd = fd.as_fd().as_raw_fd() as usize;
    let args = [fd, SET_TICKS, &raw const ticks as usize, 0, 0, 0];
    // SAFETY: the kernel reads the number, which is alive; whatever the descriptor is, the request is this.
    unsafe { call(libc::SYS_ioctl as usize, args) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

    #[test]
    fn ticks_are_read() {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags).unwrap();
        set_ticks(&fd, 77).unwrap();
        let mut ticks = [0; 8];
        assert_eq!(rustix::io::read(&fd, &mut ticks), Ok(8));
        assert_eq!(u64::from_ne_bytes(ticks), 77);
    }
}
