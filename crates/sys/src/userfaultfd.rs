//! Pages put into the holes of another task's memory: `userfaultfd(2)`.
//!
//! `UFFDIO_COPY` makes a page of the caller's bytes at once: nothing is cleared first and no fault is taken, so that
//! 1 GiB of small pages takes two thirds of the time of `process_vm_writev(2)`.
//!
//! The descriptor is made by a task of the address space, and can be used from outside. While an area is registered,
//! whoever else touches a hole in it waits for nobody: the access fails.

use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use crate::syscall::call;

/// `O_CLOEXEC | UFFD_USER_MODE_ONLY`, for tapes: what the kernel touches on behalf of a task fails instead of waiting.
/// No capability is needed for it.
pub const FLAGS: u64 = libc::O_CLOEXEC as u64 | 1;

/// `struct uffdio_api` of `linux/userfaultfd.h`.
#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`, its range as two fields.
#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`
#[repr(C)]
struct UffdioCopy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

#[cfg(test)]
mod layout {
    use super::{UffdioApi, UffdioCopy, UffdioRegister};

    crate::layout::same!(whole UffdioApi, linux_raw_sys::general::uffdio_api { api, features, ioctls });
    crate::layout::same!(whole UffdioRegister, linux_raw_sys::general::uffdio_register {
        start = range, mode = mode, ioctls = ioctls
    });
    crate::layout::same!(whole UffdioCopy, linux_raw_sys::general::uffdio_copy { dst, src, len, mode });
}

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: usize = 0xc018_aa3f;
const UFFDIO_REGISTER: usize = 0xc020_aa00;
const UFFDIO_COPY: usize = 0xc028_aa03;
const MODE_MISSING: u64 = 1;

/// The features of userfaultfd that this kernel has, `UFFD_FEATURE_*`.
///
/// # Errors
///
/// Those of `userfaultfd(2)`: `EPERM` for a task that may not have one, `ENOSYS`.
pub fn features() -> Result<u64> {
    agree(&make(libc::O_CLOEXEC as usize)?)
}

fn make(flags: usize) -> Result<OwnedFd> {
    // SAFETY: userfaultfd takes a number.
    let fd = unsafe { call(libc::SYS_userfaultfd as usize, [flags, 0, 0, 0, 0, 0]) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Agrees on the one version of the interface.
fn agree(fd: &OwnedFd) -> Result<u64> {
    let mut api = UffdioApi {
        api: UFFD_API,
        features: 0,
        ioctls: 0,
    };
    // SAFETY: the kernel reads and writes one live `uffdio_api`.
    unsafe { control(fd, UFFDIO_API, &raw mut api as usize) }?;
    Ok(api.features)
}

/// # Safety
///
/// `argument` must be what `request` wants.
unsafe fn control(fd: &OwnedFd, request: usize, argument: usize) -> Result<()> {
    let args = [fd.as_raw_fd() as usize, request, argument, 0, 0, 0];
    // SAFETY: the caller vouches for the argument.
    unsafe { call(libc::SYS_ioctl as usize, args) }?;
    Ok(())
}

/// The holes of one address space, as far as they are registered. They are ordinary holes again when this is dropped
/// and the task that made the descriptor has closed its own.
#[derive(Debug)]
pub struct Holes(OwnedFd);

impl Holes {
    /// Those of this process.
    ///
    /// # Errors
    ///
    /// Those of `userfaultfd(2)`: `EPERM` where a filter of system calls forbids it, `EMFILE`, `ENOSYS`.
    pub fn own() -> Result<Self> {
        Self::of(make(FLAGS as usize)?)
    }

    /// Those of the address space in which `fd` was made by `userfaultfd(2)` with [`FLAGS`].
    ///
    /// # Errors
    ///
    /// `EINVAL` if somebody has done this before; `ENOTTY` for another kind of descriptor.
    pub fn of(fd: OwnedFd) -> Result<Self> {
        agree(&fd)?;
        Ok(Self(fd))
    }

    /// Registers whole mappings, page-aligned.
    ///
    /// # Errors
    ///
    /// `EINVAL` if not all of the range is private anonymous memory; `EBUSY` if it is registered elsewhere; `ENOMEM` if
    /// the task is gone or has too many mappings.
    pub fn register(&self, range: &Range<u64>) -> Result<()> {
        let mut register = UffdioRegister {
            start: range.start,
            len: range.end.checked_sub(range.start).ok_or(Errno::INVAL)?,
            mode: MODE_MISSING,
            ioctls: 0,
        };
        // SAFETY: the kernel reads and writes one live `uffdio_register`. The memory is another task's; were it this
        // one's, holes in it would be reported instead of filled with zeros, which is what was asked for.
        unsafe { control(&self.0, UFFDIO_REGISTER, &raw mut register as usize) }
    }

    /// Puts `bytes`, whole pages, to `start` on, where holes must be; returns how many of them it has, before one was not.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is a page at `start`; `ENOENT` if it is not registered; `ESRCH` if the task is gone; `ENOMEM`.
    pub fn fill(&self, start: u64, bytes: &[u8]) -> Result<usize> {
        let mut copy = UffdioCopy {
            dst: start,
            src: bytes.as_ptr() as u64,
            len: bytes.len() as u64,
            mode: 0,
            copy: 0,
        };
        // SAFETY: the kernel reads `bytes` and writes one live `uffdio_copy`; it makes pages only where there are none.
        let result = unsafe { control(&self.0, UFFDIO_COPY, &raw mut copy as usize) };
        match usize::try_from(copy.copy) {
            Ok(copied) if copied > 0 => Ok(copied.min(bytes.len())),
            _ => result.map(|()| 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;
    use memmap2::MmapMut;
    use std::slice::from_ref;

    #[test]
    fn holes_are_filled_and_pages_are_not() {
        let Ok(holes) = Holes::own() else {
            return eprintln!("skipped: no userfaultfd");
        };
        let mut map = MmapMut::map_anon(4 * PAGE_SIZE).unwrap();
        map[2 * PAGE_SIZE] = 7;
        let start = map.as_ptr() as u64;
        let bytes = vec![9; 4 * PAGE_SIZE];
        assert_eq!(holes.fill(start, &bytes), Err(Errno::NOENT));
        holes
            .register(&(start..start + 4 * PAGE_SIZE as u64))
            .unwrap();
        assert_eq!(holes.fill(start, &bytes), Ok(2 * PAGE_SIZE));
        let rest = start + 2 * PAGE_SIZE as u64;
        assert_eq!(holes.fill(rest, &bytes[..PAGE_SIZE]), Err(Errno::EXIST));
        drop(holes);
        assert_eq!((map[0], map[PAGE_SIZE], map[2 * PAGE_SIZE]), (9, 9, 7));
        assert_eq!(map[3 * PAGE_SIZE], 0);
    }

    #[test]
    fn whoever_touches_a_hole_fails() {
        let Ok(holes) = Holes::own() else {
            return eprintln!("skipped: no userfaultfd");
        };
        let map = MmapMut::map_anon(PAGE_SIZE).unwrap();
        let start = map.as_ptr() as u64;
        let page = start..start + PAGE_SIZE as u64;
        holes.register(&page).unwrap();
        let me = rustix::process::getpid();
        let bytes = vec![1; PAGE_SIZE];
        let written = crate::vm::write_ranges(me, &bytes, from_ref(&page));
        assert_eq!(written, Err(Errno::FAULT));
        drop(holes);
        let written = crate::vm::write_ranges(me, &bytes, from_ref(&page));
        assert_eq!(written, Ok(PAGE_SIZE));
    }
}
