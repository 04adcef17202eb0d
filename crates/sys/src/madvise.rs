//! Advice about the memory of another task: `process_madvise(2)`.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

use crate::syscall::call;

/// Advice that may be given from outside, `MADV_*` of `asm-generic/mman-common.h`. None of it changes
/// what the memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Advice {
    /// `MADV_WILLNEED`: read ahead from file or swap.
    WillNeed = 3,
    /// `MADV_COLD`: reclaim it before other memory.
    Cold = 20,
    /// `MADV_PAGEOUT`: reclaim it now.
    PageOut = 21,
    /// `MADV_POPULATE_READ`: fault it in for reading. Only with a pidfd of the caller (since Linux 6.13).
    PopulateRead = 22,
    /// `MADV_POPULATE_WRITE`: fault it in for writing. Only with a pidfd of the caller.
    PopulateWrite = 23,
    /// `MADV_COLLAPSE`: make huge pages of it now, whatever the setting of THP (since Linux 6.1).
    Collapse = 25,
}

macro_rules! for_tapes {
    ($($name:ident = $value:literal $about:literal;)*) => {
        /// Advice that a task can give only about itself, for tapes.
        pub mod tape {
            $(#[doc = $about]
            pub const $name: u64 = $value;)*
        }
    };
}

for_tapes! {
    MADV_NORMAL = 0 "Undoes `MADV_RANDOM` and `MADV_SEQUENTIAL`.";
    MADV_RANDOM = 1 "Expect reads in no order.";
    MADV_SEQUENTIAL = 2 "Expect reads in order.";
    MADV_DONTNEED = 4 "Drop the contents.";
    MADV_FREE = 8 "The contents may be dropped.";
    MADV_DONTFORK = 10 "Not for children.";
    MADV_DOFORK = 11 "Undoes `MADV_DONTFORK`.";
    MADV_MERGEABLE = 12 "Merge equal pages.";
    MADV_UNMERGEABLE = 13 "Undoes `MADV_MERGEABLE`.";
    MADV_HUGEPAGE = 14 "Use transparent huge pages.";
    MADV_NOHUGEPAGE = 15 "Use none.";
    MADV_DONTDUMP = 16 "Not for core dumps.";
    MADV_DODUMP = 17 "Undoes `MADV_DONTDUMP`.";
    MADV_WIPEONFORK = 18 "Zero in children.";
    MADV_KEEPONFORK = 19 "Undoes `MADV_WIPEONFORK`.";
    MADV_GUARD_INSTALL = 102 "Any access faults (since Linux 6.13).";
    MADV_GUARD_REMOVE = 103 "Undoes `MADV_GUARD_INSTALL`.";
}

/// Ranges in one call, `UIO_MAXIOV`.
const MAX_RANGES: usize = 1024;
/// Bytes in one call; the kernel silently cuts a call off at 2 GiB less a page. A multiple of 2 MiB, so
/// that no huge page is split.
const MAX_BYTES: u64 = 1 << 30;

/// Gives `advice` on `ranges` of the task behind `pidfd`, in as few calls as the kernel allows. Returns the
/// bytes advised, which is less than asked if the kernel stopped at a range after the first of a call.
///
/// # Errors
///
/// Those of `madvise(2)` for the first range of a call; `EPERM` without ptrace read access and
/// `CAP_SYS_NICE`; `EINVAL` for an advice that may not be given to another task, and for a range that
/// ends before it begins.
pub fn process_madvise(pidfd: impl AsFd, ranges: &[Range<u64>], advice: Advice) -> Result<u64> {
    let mut advised = 0;
    for_each_batch(ranges, |batch, bytes| {
        let done = advise(&pidfd, batch, advice)?;
        advised += done;
        Ok(done == bytes)
    })?;
    Ok(advised)
}

/// What came of [`best_effort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Bytes advised.
    pub advised: u64,
    /// Ranges (or pieces of 1 GiB of them) that the kernel refused.
    pub refused: usize,
    /// Why it refused the last of them.
    pub errno: Option<Errno>,
}

/// Gives `advice` like [`process_madvise`] but goes on behind a range that is refused. For advice that
/// merely helps, such as [`Advice::Collapse`] and [`Advice::WillNeed`].
pub fn best_effort(pidfd: impl AsFd, ranges: &[Range<u64>], advice: Advice) -> Outcome {
    let mut outcome = Outcome::default();
    let walked = for_each_batch(ranges, |mut batch, _| {
        while !batch.is_empty() {
            match advise(&pidfd, batch, advice) {
                Ok(0) => break,
                Ok(done) => {
                    outcome.advised += done;
                    batch = behind(batch, done);
                }
                Err(errno) => {
                    outcome.refused += 1;
                    outcome.errno = Some(errno);
                    batch = &batch[1..];
                }
            }
        }
        Ok(true)
    });
    if let Err(errno) = walked {
        outcome.refused += 1;
        outcome.errno = Some(errno);
    }
    outcome
}

/// What is left of `batch` behind its first `done` bytes, at whole ranges: the kernel stops between two.
fn behind(batch: &[libc::iovec], mut done: u64) -> &[libc::iovec] {
    let whole = batch.iter().take_while(|piece| {
        let fits = piece.iov_len as u64 <= done;
        done = done.saturating_sub(piece.iov_len as u64);
        fits
    });
    &batch[whole.count()..]
}

/// Cuts `ranges` into calls; `call` gets a batch and its bytes, and says whether to go on.
fn for_each_batch(
    ranges: &[Range<u64>],
    mut call: impl FnMut(&[libc::iovec], u64) -> Result<bool>,
) -> Result<()> {
    let mut batch = Vec::with_capacity(ranges.len().min(MAX_RANGES));
    let mut bytes = 0;
    for range in ranges {
        let mut at = range.start;
        if range.end < at {
            return Err(Errno::INVAL);
        }
        while at < range.end {
            if batch.len() == MAX_RANGES || bytes == MAX_BYTES {
                if !call(&batch, bytes)? {
                    return Ok(());
                }
                batch.clear();
                bytes = 0;
            }
            let len = (range.end - at).min(MAX_BYTES - bytes);
            batch.push(libc::iovec {
                iov_base: at as *mut _,
                iov_len: len as usize,
            });
            bytes += len;
            at += len;
        }
    }
    if !batch.is_empty() {
        call(&batch, bytes)?;
    }
    Ok(())
}

fn advise(pidfd: &impl AsFd, batch: &[libc::iovec], advice: Advice) -> Result<u64> {
    let fd = pidfd.as_fd().as_raw_fd() as usize;
    let args = [
        fd,
        batch.as_ptr() as usize,
        batch.len(),
        advice as usize,
        0,
        0,
    ];
    // SAFETY: the kernel reads `batch.len()` live iovecs. The addresses in them are those of the task
    // behind the descriptor, and even were it this one, no `Advice` changes what memory holds.
    let done = unsafe { call(libc::SYS_process_madvise as usize, args) }?;
    Ok(done as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_to_the_limits() {
        let mut sizes = Vec::new();
        let ranges: Vec<_> = (0..1500).map(|at| at * 8192..at * 8192 + 4096).collect();
        for_each_batch(&ranges, |batch, bytes| {
            sizes.push((batch.len(), bytes));
            Ok(true)
        })
        .unwrap();
        assert_eq!(sizes, [(1024, 1024 * 4096), (476, 476 * 4096)]);

        let mut pieces = Vec::new();
        for_each_batch(
            &[0..4096, 1 << 31..(1 << 31) + MAX_BYTES * 2],
            |batch, bytes| {
                assert!(bytes <= MAX_BYTES);
                pieces.extend(batch.iter().map(|piece| piece.iov_len as u64));
                Ok(true)
            },
        )
        .unwrap();
        assert_eq!(pieces, [4096, MAX_BYTES - 4096, MAX_BYTES, 4096]);
        let backwards = Range { start: 2, end: 1 };
        assert_eq!(
            for_each_batch(&[0..1, backwards], |_, _| Ok(true)),
            Err(Errno::INVAL)
        );
    }

    #[test]
    fn own_memory_is_faulted_in_and_collapsed() {
        const HUGE: usize = 2 << 20;
        let me = crate::pidfd::open(rustix::process::getpid()).unwrap();
        let map = memmap2::MmapMut::map_anon(3 * HUGE).unwrap();
        let start = (map.as_ptr() as usize).next_multiple_of(HUGE) as u64;
        let (one, two) = (
            start..start + HUGE as u64,
            start + HUGE as u64..start + 2 * HUGE as u64,
        );
        match process_madvise(&me, &[one.clone(), two.clone()], Advice::PopulateWrite) {
            Ok(bytes) => assert_eq!(bytes, 2 * HUGE as u64),
            Err(errno) => return assert_eq!(errno, Errno::INVAL), // Linux before 6.13
        }
        let outcome = best_effort(&me, &[one, 4096..8192, two], Advice::Collapse);
        assert!(outcome.refused >= 1, "{outcome:?}");
        assert!(outcome.errno.is_some());
    }
}
