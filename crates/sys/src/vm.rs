//! Memory of another task: `process_vm_readv(2)`, `process_vm_writev(2)` and `/proc/PID/mem`.
//!
//! The first two are fast and obey the protection of the mapping; the last forces its way through it
//! (a write to a private mapping copies the page) and needs ptrace access.

use crate::{Pid, syscall};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use std::ops::Range;

/// Ranges handed to the kernel in one call.
pub const IOV_MAX: usize = 1024;

/// Reads the remote `ranges` one behind the other into `buf`, which must have room for all of them.
/// Returns the bytes read: fewer than asked if a page in the middle cannot be read.
///
/// # Errors
///
/// As `process_vm_readv(2)`; `EFAULT` if not even the first page could be read, `ESRCH` if the task is
/// gone; `EINVAL` if `buf` is too small.
pub fn read_ranges(pid: Pid, ranges: &[Range<u64>], buf: &mut [u8]) -> Result<usize> {
    let total = total(ranges).ok_or(Errno::INVAL)?;
    if total > buf.len() {
        return Err(Errno::INVAL);
    }
    let local = buf.as_mut_ptr().cast::<libc::c_void>();
    // SAFETY: the kernel writes at most `total` bytes to `buf`, which has room for them.
    unsafe { transfer(libc::SYS_process_vm_readv, pid, local, ranges) }
}

/// Writes `data` one behind the other into the remote `ranges`, whose total must not exceed it.
/// Returns the bytes written.
///
/// # Errors
///
/// As `process_vm_writev(2)`; `EFAULT` if not even the first page could be written (not mapped, not
/// writable); `EINVAL` if `data` is too short.
pub fn write_ranges(pid: Pid, data: &[u8], ranges: &[Range<u64>]) -> Result<usize> {
    let total = total(ranges).ok_or(Errno::INVAL)?;
    if total > data.len() {
        return Err(Errno::INVAL);
    }
    let local = data.as_ptr().cast_mut().cast::<libc::c_void>();
    // SAFETY: this direction only reads from `data`, at most `total` bytes.
    unsafe { transfer(libc::SYS_process_vm_writev, pid, local, ranges) }
}

/// Bytes of all ranges together, `None` on overflow or on a range that ends before it starts.
fn total(ranges: &[Range<u64>]) -> Option<usize> {
    ranges.iter().try_fold(0_usize, |sum, range| {
        sum.checked_add(usize::try_from(range.end.checked_sub(range.start)?).ok()?)
    })
}

/// # Safety
///
/// `local` must be valid, for the direction of the call `nr`, for the total length of `ranges`.
unsafe fn transfer(
    nr: libc::c_long,
    pid: Pid,
    local: *mut libc::c_void,
    ranges: &[Range<u64>],
) -> Result<usize> {
    let mut done = 0;
    let mut remote = [const {
        libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }
    }; IOV_MAX];
    for batch in ranges.chunks(IOV_MAX) {
        let mut want = 0;
        for (slot, range) in remote.iter_mut().zip(batch) {
            slot.iov_base = range.start as *mut libc::c_void;
            slot.iov_len = (range.end - range.start) as usize;
            want += slot.iov_len;
        }
        let here = libc::iovec {
            // SAFETY: `done + want` stays within the total that the caller vouches for.
            iov_base: unsafe { local.byte_add(done) },
            iov_len: want,
        };
        // SAFETY: both vectors live during the call; the local one as vouched for by the caller.
        let got = unsafe {
            syscall::call(
                nr as usize,
                [
                    pid.as_raw_nonzero().get() as usize,
                    (&raw const here) as usize,
                    1,
                    remote.as_ptr() as usize,
                    batch.len(),
                    0,
                ],
            )
        };
        match got {
            Ok(got) => done += got,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => return Ok(done),
        }
        if !matches!(got, Ok(got) if got == want) {
            break;
        }
    }
    Ok(done)
}

/// `/proc/PID/mem`: reaches also what the protection of a mapping forbids (`proc_pid_mem(5)`).
#[derive(Debug)]
pub struct Mem(OwnedFd);

impl Mem {
    /// Opens the memory of `pid` for reading and writing.
    ///
    /// # Errors
    ///
    /// `EACCES` or `EPERM` without ptrace access, `ENOENT` if the task is gone.
    pub fn open(pid: Pid) -> Result<Self> {
        let path = format!("/proc/{}/mem", pid.as_raw_nonzero());
        rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    /// Reads at `address` until `buf` is full.
    ///
    /// # Errors
    ///
    /// `EIO` if nothing is mapped there.
    pub fn read(&self, address: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(&self.0, &mut buf[done..], address + done as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(got) => done += got,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Writes all of `data` at `address`.
    ///
    /// # Errors
    ///
    /// `EIO` if nothing is mapped there or a shared mapping is not writable.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pwrite(&self.0, &data[done..], address + done as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(put) => done += put,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_its_own_memory() {
        let pid = rustix::process::getpid();
        let mut data = vec![7_u8; 8192];
        let at = data.as_mut_ptr() as u64;
        let ranges = [at..at + 16, at + 4096..at + 4112];
        let mut back = [0; 32];
        assert_eq!(read_ranges(pid, &ranges, &mut back), Ok(32));
        assert_eq!(back, [7; 32]);
        assert_eq!(write_ranges(pid, &[9; 32], &ranges), Ok(32));
        assert_eq!((data[0], data[16], data[4096]), (9, 7, 9));
    }

    #[test]
    fn a_hole_ends_the_transfer() {
        let pid = rustix::process::getpid();
        let turned = Range {
            start: 4096,
            end: 0,
        };
        assert_eq!(
            read_ranges(pid, &[0..4096], &mut [0; 4096]),
            Err(Errno::FAULT)
        );
        assert_eq!(
            read_ranges(pid, &[turned], &mut [0; 4096]),
            Err(Errno::INVAL)
        );
        assert_eq!(
            read_ranges(pid, &[0..4096], &mut [0; 16]),
            Err(Errno::INVAL)
        );
    }
}
