//! What the pages of an address space are: the `PAGEMAP_SCAN` ioctl and the entries of
//! `/proc/PID/pagemap` (`Documentation/admin-guide/mm/pagemap.rst`).
//!
//! [`scan`] reports runs of pages; [`scan_entries`] answers the same question from the plain entries on
//! kernels before 6.7, without [`PFNZERO`](Categories::PFNZERO), [`HUGE`](Categories::HUGE) and
//! [`WRITTEN`](Categories::WRITTEN), which entries do not show.

use std::mem::offset_of;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use bitflags::bitflags;
use rustix::io::{Errno, Result};

use crate::PAGE_SIZE;
use crate::syscall::call;

bitflags! {
    /// What a page is, `PAGE_IS_*` of `linux/fs.h`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    #[repr(transparent)]
    pub struct Categories: u64 {
        /// Lies in a range registered for asynchronous write-protection.
        const WPALLOWED = 1 << 0;
        /// Written since it was write-protected.
        const WRITTEN = 1 << 1;
        /// Backed by a file or shared memory.
        const FILE = 1 << 2;
        /// In memory.
        const PRESENT = 1 << 3;
        /// In swap (or under migration).
        const SWAPPED = 1 << 4;
        /// The shared page of zeros.
        const PFNZERO = 1 << 5;
        /// Mapped by a huge entry.
        const HUGE = 1 << 6;
        /// Soft-dirty.
        const SOFT_DIRTY = 1 << 7;
        /// A guard marker of `MADV_GUARD_INSTALL` (since Linux 6.18).
        const GUARD = 1 << 8;
    }
}

bitflags! {
    /// `PM_SCAN_*` of `linux/fs.h`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct ScanFlags: u64 {
        /// Write-protect the pages that match, in the same step.
        const WP_MATCHING = 1 << 0;
        /// Fail with `EPERM` if the range holds memory that is not registered for asynchronous
        /// write-protection.
        const CHECK_WPASYNC = 1 << 1;
    }
}

/// A run of pages with the same reported categories, `struct page_region`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// The categories asked for that these pages have.
    pub categories: Categories,
}

const _: () = {
    assert!(size_of::<Region>() == 24);
    assert!(offset_of!(Region, end) == 8);
    assert!(offset_of!(Region, categories) == 16);
};

impl Region {
    /// The addresses as a range.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }
}

/// Which pages to report and what about them. A page matches if, after its bits in `inverted` are
/// flipped, it has all of `required` and, unless that is empty, one of `any_of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Query {
    /// Categories whose sense is turned round (`category_inverted`).
    pub inverted: Categories,
    /// Categories a page must have (`category_mask`).
    pub required: Categories,
    /// Categories of which a page must have one (`category_anyof_mask`).
    pub any_of: Categories,
    /// Categories to report (`return_mask`). Runs split where these differ; they are never inverted.
    pub report: Categories,
    /// What to do with the pages that match.
    pub flags: ScanFlags,
}

impl Query {
    /// Whether a page of the given categories is asked for.
    pub fn matches(&self, page: Categories) -> bool {
        let page = page ^ self.inverted;
        page.contains(self.required) && (self.any_of.is_empty() || page.intersects(self.any_of))
    }
}

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = {
    assert!(size_of::<PmScanArg>() == 96);
    assert!(offset_of!(PmScanArg, walk_end) == 32);
    assert!(offset_of!(PmScanArg, max_pages) == 56);
    assert!(offset_of!(PmScanArg, return_mask) == 88);
};

#[cfg(test)]
crate::layout::same!(whole Region, linux_raw_sys::general::page_region { start, end, categories });
#[cfg(test)]
crate::layout::same!(whole PmScanArg, linux_raw_sys::general::pm_scan_arg {
    size, flags, start, end, walk_end, vec, vec_len, max_pages,
    category_inverted, category_mask, category_anyof_mask, return_mask,
});

/// `PAGEMAP_SCAN`, `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: usize = 0xc060_6610;

/// Scans `range` of the open `/proc/PID/pagemap` and fills `regions` from its start, replacing what it
/// held, up to its capacity (which must not be 0). Returns where the walk stopped: `range.end`, or an
/// address to go on from when the vector was full.
///
/// # Errors
///
/// `ENOTTY` on kernels before 6.7, `EINVAL` for an unaligned range, a category this kernel does not know
/// or a vector without capacity, `EPERM` with [`ScanFlags::CHECK_WPASYNC`].
pub fn scan(
    pagemap: impl AsFd,
    range: Range<u64>,
    query: &Query,
    regions: &mut Vec<Region>,
) -> Result<u64> {
    regions.clear();
    if regions.capacity() == 0 {
        return Err(Errno::INVAL);
    }
    let mut arg = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        flags: query.flags.bits(),
        start: range.start,
        end: range.end,
        walk_end: 0,
        vec: regions.as_mut_ptr() as u64,
        vec_len: regions.capacity() as u64,
        max_pages: 0,
        category_inverted: query.inverted.bits(),
        category_mask: query.required.bits(),
        category_anyof_mask: query.any_of.bits(),
        return_mask: query.report.bits(),
    };
    let fd = pagemap.as_fd().as_raw_fd() as usize;
    let args = [fd, PAGEMAP_SCAN, &raw mut arg as usize, 0, 0, 0];
    // SAFETY: the argument and the vector it points to are alive and exclusively ours during the call,
    // and the kernel writes at most `vec_len` regions. On a descriptor that is no pagemap the number
    // means nothing else: 'f' 16 of that size is this ioctl alone.
    let filled = unsafe { call(libc::SYS_ioctl as usize, args) }?;
    if filled > regions.capacity() {
        return Err(Errno::OVERFLOW);
    }
    // SAFETY: the kernel has written `filled` whole regions, of which every bit pattern is valid.
    unsafe { regions.set_len(filled) };
    Ok(arg.walk_end)
}

/// Regions that [`scan_all`] asks for at once.
const BATCH: usize = 512;

/// Scans the whole of `range`, however many regions it has, and hands each to `found` in ascending
/// order. Runs that touch and are alike come as one unless a batch of 512 ended between them.
pub fn scan_each(
    pagemap: impl AsFd,
    range: Range<u64>,
    query: &Query,
    mut found: impl FnMut(Region),
) -> Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut at = range.start;
    while at < range.end {
        let next = scan(&pagemap, at..range.end, query, &mut batch)?;
        batch.drain(..).for_each(&mut found);
        if next <= at {
            return Err(Errno::OVERFLOW);
        }
        at = next;
    }
    Ok(())
}

/// The regions of the whole of `range`, in ascending order, touching runs that are alike joined.
pub fn scan_all(pagemap: impl AsFd, range: Range<u64>, query: &Query) -> Result<Vec<Region>> {
    let mut all = Vec::new();
    scan_each(pagemap, range, query, |region| join(&mut all, region))?;
    Ok(all)
}

/// Appends `region`, or extends the last one by it.
fn join(all: &mut Vec<Region>, region: Region) {
    match all.last_mut() {
        Some(last) if last.end == region.start && last.categories == region.categories => {
            last.end = region.end;
        }
        _ => all.push(region),
    }
}

/// One entry of `/proc/PID/pagemap`: the state of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entry(pub u64);

impl Entry {
    /// In memory.
    pub fn present(self) -> bool {
        self.0 >> 63 & 1 != 0
    }

    /// In swap (or a marker, or under migration).
    pub fn swapped(self) -> bool {
        self.0 >> 62 & 1 != 0
    }

    /// A page of a file or of shared memory, not anonymous.
    pub fn is_file(self) -> bool {
        self.0 >> 61 & 1 != 0
    }

    /// A guard marker (since Linux 6.15).
    pub fn guard(self) -> bool {
        self.0 >> 58 & 1 != 0
    }

    /// Write-protected through userfaultfd.
    pub fn write_protected(self) -> bool {
        self.0 >> 57 & 1 != 0
    }

    /// Mapped by this address space alone.
    pub fn exclusive(self) -> bool {
        self.0 >> 56 & 1 != 0
    }

    /// Soft-dirty; always false without `CONFIG_MEM_SOFT_DIRTY`.
    pub fn soft_dirty(self) -> bool {
        self.0 >> 55 & 1 != 0
    }

    /// Number of the physical page, `None` if the page is not present or the kernel hides it from a
    /// reader without `CAP_SYS_ADMIN`.
    pub fn pfn(self) -> Option<u64> {
        let pfn = self.0 & ((1 << 55) - 1);
        (self.present() && pfn != 0).then_some(pfn)
    }

    /// The categories that an entry shows.
    pub fn categories(self) -> Categories {
        let mut categories = Categories::empty();
        categories.set(Categories::PRESENT, self.present());
        categories.set(Categories::SWAPPED, self.swapped());
        categories.set(Categories::FILE, self.is_file());
        categories.set(Categories::SOFT_DIRTY, self.soft_dirty());
        categories.set(Categories::GUARD, self.guard());
        categories
    }
}

/// Reads the entries of consecutive pages from the one at `address` on, until `entries` is full or the
/// address space ends. Returns the number read.
///
/// # Errors
///
/// `EINVAL` if `address` is not a multiple of the page size.
pub fn read_entries(pagemap: impl AsFd, address: u64, entries: &mut [Entry]) -> Result<usize> {
    if !address.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Errno::INVAL);
    }
    let mut offset = address / PAGE_SIZE as u64 * 8;
    let mut done = 0;
    let mut bytes = [0u8; 32 * 1024];
    while done < entries.len() {
        let want = bytes.len().min((entries.len() - done) * 8);
        let got = rustix::io::pread(&pagemap, &mut bytes[..want], offset)?;
        if got == 0 {
            break;
        }
        for word in bytes[..got].chunks_exact(8) {
            let mut entry = [0; 8];
            entry.copy_from_slice(word);
            entries[done] = Entry(u64::from_ne_bytes(entry));
            done += 1;
        }
        offset += got as u64;
    }
    Ok(done)
}

/// Answers `query` for `range` from the plain entries, for kernels without `PAGEMAP_SCAN`.
///
/// # Errors
///
/// `EINVAL` for an unaligned range, `EOPNOTSUPP` if the query asks for a category that entries do not
/// show, or for write-protection.
pub fn scan_entries(pagemap: impl AsFd, range: Range<u64>, query: &Query) -> Result<Vec<Region>> {
    let shown = Categories::PRESENT
        | Categories::SWAPPED
        | Categories::FILE
        | Categories::SOFT_DIRTY
        | Categories::GUARD;
    let asked = query.inverted | query.required | query.any_of | query.report;
    if !shown.contains(asked) || !query.flags.is_empty() {
        return Err(Errno::OPNOTSUPP);
    }
    let page = PAGE_SIZE as u64;
    if !range.start.is_multiple_of(page) || !range.end.is_multiple_of(page) {
        return Err(Errno::INVAL);
    }
    let mut all = Vec::new();
    let mut entries = vec![Entry::default(); 4096];
    let mut at = range.start;
    while at < range.end {
        let want = usize::try_from((range.end - at) / page)
            .unwrap_or(usize::MAX)
            .min(entries.len());
        let got = read_entries(&pagemap, at, &mut entries[..want])?;
        if got == 0 {
            break;
        }
        for entry in &entries[..got] {
            let categories = entry.categories();
            if query.matches(categories) {
                let categories = categories & query.report;
                join(
                    &mut all,
                    Region {
                        start: at,
                        end: at + page,
                        categories,
                    },
                );
            }
            at += page;
        }
    }
    Ok(all)
}
