//! `signalfd(2)`.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Result;

use crate::signal::SigSet;
use crate::syscall::call;

/// Makes a signalfd that takes these signals, with `O_CLOEXEC` and `O_NONBLOCK`.
pub fn create(signals: SigSet) -> Result<OwnedFd> {
    let flags = (libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as usize;
    let mask = &raw const signals as usize;
    let args = [usize::MAX, mask, size_of::<SigSet>(), flags, 0, 0];
    // SAFETY: the kernel reads the set, which is alive.
    let fd = unsafe { call(libc::SYS_signalfd4 as usize, args) }?;
    // SAFETY: the call has made the descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_mask_is_told() {
        let fd = create(SigSet(0x205)).unwrap();
        let me = proc::task_dir(rustix::process::getpid()).unwrap();
        let info = proc::fdinfo::read(&me, fd.as_raw_fd()).unwrap();
        // SIGKILL cannot be taken.
        assert_eq!(info.signalfd(), Ok(0x205));
        assert!(info.cloexec());
    }
}
