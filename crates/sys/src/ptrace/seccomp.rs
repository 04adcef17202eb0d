//! Seccomp filters of a stopped thread.

use rustix::io::{Errno, Result};

use super::{Stopped, ptrace};

const SECCOMP_GET_FILTER: u32 = 0x420c;
const SECCOMP_GET_METADATA: u32 = 0x420d;

/// One instruction of a classic BPF program: `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are those of linux/filter.h")]
pub struct SockFilter {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

const _: () = assert!(size_of::<SockFilter>() == 8);

#[cfg(test)]
crate::layout::same!(whole SockFilter, linux_raw_sys::ptrace::sock_filter { code, jt, jf, k });

/// `struct seccomp_metadata`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Metadata {
    filter_off: u64,
    flags: u64,
}

#[cfg(test)]
crate::layout::same!(whole Metadata, linux_raw_sys::ptrace::seccomp_metadata { filter_off, flags });

impl Stopped {
    /// Seccomp filter `index` of the thread, 0 the one installed first. `None` behind the last one.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it has none, `EACCES` without `CAP_SYS_ADMIN` or under seccomp itself; `EMEDIUMTYPE` for a
    /// filter that has no classic form.
    pub fn seccomp_filter(&self, index: usize) -> Result<Option<Vec<SockFilter>>> {
        // SAFETY: with a null pointer the kernel only tells the length.
        let len = match unsafe { ptrace(SECCOMP_GET_FILTER, self.pid, index, 0) } {
            Ok(len) => len,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let mut program = vec![SockFilter::default(); len];
        // SAFETY: the kernel writes the `len` instructions it has just announced; the task is stopped, so
        // the filter cannot change.
        unsafe {
            ptrace(
                SECCOMP_GET_FILTER,
                self.pid,
                index,
                program.as_mut_ptr() as usize,
            )
        }?;
        Ok(Some(program))
    }

    /// Flags that are left of those the same filter was installed with: `SECCOMP_FILTER_FLAG_LOG`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such filter, and those of [`seccomp_filter`](Self::seccomp_filter).
    pub fn seccomp_flags(&self, index: usize) -> Result<u64> {
        let mut metadata = Metadata {
            filter_off: index as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads and writes `metadata`, whose size it is told.
        unsafe {
            ptrace(
                SECCOMP_GET_METADATA,
                self.pid,
                size_of::<Metadata>(),
                (&raw mut metadata) as usize,
            )
        }?;
        Ok(metadata.flags)
    }
}
