//! Runs of pages: what a pagemap image records.

use crate::PAGE_SIZE;
use std::ops::Range;

bitflags::bitflags! {
    /// What is known about the pages of a run; the numbers are those of `pagemap_entry.flags`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct RunFlags: u32 {
        /// The pages are in the parent image set.
        const PARENT = 1;
        /// The pages may be, or without [`Self::PRESENT`] must be, delivered later.
        const LAZY = 2;
        /// The pages are in the store.
        const PRESENT = 4;
    }
}

/// Adjacent pages with equal flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Address of the first page, or its byte offset in a shared object; a multiple of the page size.
    pub vaddr: u64,
    /// Number of pages, never 0.
    pub nr_pages: u64,
    /// Where the pages are.
    pub flags: RunFlags,
}

impl Run {
    /// The addresses of the run; its end saturates at the end of the address space.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        let bytes = self.nr_pages.saturating_mul(PAGE_SIZE as u64);
        self.vaddr..self.vaddr.saturating_add(bytes)
    }

    /// True if the store holds the pages of the run.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.flags.contains(RunFlags::PRESENT)
    }
}

/// Appends `run`, as one with its predecessor where that ends at its start and has its flags.
pub(crate) fn append(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.flags == run.flags && last.range().end == run.vaddr => {
            last.nr_pages += run.nr_pages;
        }
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_equal_flags_merge() {
        let run = |vaddr, nr_pages, flags| Run {
            vaddr,
            nr_pages,
            flags,
        };
        let mut runs = Vec::new();
        append(&mut runs, run(0x1000, 1, RunFlags::PRESENT));
        append(&mut runs, run(0x2000, 2, RunFlags::PRESENT));
        append(&mut runs, run(0x4000, 1, RunFlags::PARENT));
        append(&mut runs, run(0x6000, 1, RunFlags::PARENT));
        let want = [
            run(0x1000, 3, RunFlags::PRESENT),
            run(0x4000, 1, RunFlags::PARENT),
            run(0x6000, 1, RunFlags::PARENT),
        ];
        assert_eq!(runs, want);
    }

    #[test]
    fn a_hostile_run_does_not_overflow() {
        let run = Run {
            vaddr: u64::MAX - 4095,
            nr_pages: u64::MAX,
            flags: RunFlags::PRESENT,
        };
        assert_eq!(run.range().end, u64::MAX);
    }
}
