//! Probes of what the kernel tells and does about memory.

use std::fs::File;

use memmap2::MmapMut;
use rustix::io::{Errno, Result};

use super::{Reason, Support};
use crate::pagemap::{Categories, Entry, Query};
use crate::syscall::call;
use crate::{PAGE_SIZE, madvise, mm, pagemap, proc, procmap, userfaultfd};

const HUGE_PAGE: usize = 2 << 20;

fn open(path: &str) -> Result<File> {
    File::open(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A page of memory that has been written.
fn touched_page() -> Result<MmapMut> {
    let mut page = MmapMut::map_anon(PAGE_SIZE).map_err(|_| Errno::NOMEM)?;
    page[0] = 1;
    Ok(page)
}

fn scan_one_page(query: &Query) -> Result<usize> {
    let page = touched_page()?;
    let start = page.as_ptr() as u64;
    let pagemap = open("/proc/self/pagemap")?;
    let mut regions = Vec::with_capacity(1);
    pagemap::scan(
        &pagemap,
        start..start + PAGE_SIZE as u64,
        query,
        &mut regions,
    )?;
    Ok(regions.len())
}

pub(super) fn pagemap_scan() -> Support {
    let query = Query {
        required: Categories::PRESENT,
        ..Query::default()
    };
    scan_one_page(&query).into()
}

pub(super) fn pagemap_scan_guard() -> Support {
    let query = Query {
        required: Categories::GUARD,
        ..Query::default()
    };
    scan_one_page(&query).into()
}

pub(super) fn procmap_query() -> Support {
    open("/proc/self/maps")
        .and_then(|maps| procmap::Query::new(maps).next_from(0))
        .into()
}

pub(super) fn collapse() -> Support {
    let try_it = || {
        let mut memory = MmapMut::map_anon(2 * HUGE_PAGE).map_err(|_| Errno::NOMEM)?;
        let skip = memory.as_ptr().align_offset(HUGE_PAGE);
        let start = memory.as_ptr() as u64 + skip as u64;
        memory[skip] = 1;
        let me = crate::pidfd::open(rustix::process::getpid())?;
        let range = start..start + HUGE_PAGE as u64;
        madvise::process_madvise(me, &[range], madvise::Advice::Collapse)
    };
    match try_it() {
        // No huge page was free: the call is there.
        Err(Errno::NOMEM | Errno::AGAIN | Errno::BUSY) => Support::Yes,
        other => other.into(),
    }
}

pub(super) fn guard_pages() -> Support {
    let install = || {
        let page = touched_page()?;
        let advice = madvise::tape::MADV_GUARD_INSTALL as usize;
        let args = [page.as_ptr() as usize, PAGE_SIZE, advice, 0, 0, 0];
        // SAFETY: the page is ours alone, and it is unmapped without another access.
        unsafe { call(libc::SYS_madvise as usize, args) }
    };
    install().into()
}

pub(super) fn set_mm_map() -> Support {
    mm::map_size().into()
}

/// `UFFD_FEATURE_EVENT_FORK`, `_REMAP`, `_REMOVE`, `_UNMAP`
const UFFD_EVENTS: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6;
/// `UFFD_FEATURE_WP_ASYNC`
const UFFD_WP_ASYNC: u64 = 1 << 15;

fn uffd_with(features: u64) -> Support {
    match userfaultfd::features() {
        Ok(found) => Support::when(
            found & features == features,
            "userfaultfd is there without it",
        ),
        Err(errno) => Support::No(Reason::Errno(errno)),
    }
}

pub(super) fn uffd() -> Support {
    uffd_with(0)
}

pub(super) fn uffd_noncoop() -> Support {
    uffd_with(UFFD_EVENTS)
}

pub(super) fn uffd_wp_async() -> Support {
    uffd_with(UFFD_WP_ASYNC)
}

pub(super) fn soft_dirty() -> Support {
    let look = || {
        let page = touched_page()?;
        let mut entry = [Entry::default()];
        let pagemap = open("/proc/self/pagemap")?;
        pagemap::read_entries(&pagemap, page.as_ptr() as u64, &mut entry)?;
        Ok(entry[0].soft_dirty())
    };
    match look() {
        Ok(set) => Support::when(set, "a page just written is not marked"),
        Err(errno) => Support::No(Reason::Errno(errno)),
    }
}

pub(super) fn dirty_track() -> Support {
    match soft_dirty() {
        Support::Yes => Support::Yes,
        _ => match pagemap_scan() {
            Support::Yes => uffd_wp_async(),
            no => no,
        },
    }
}

pub(super) fn memfd_hugetlb() -> Support {
    use rustix::fs::{MemfdFlags, memfd_create};
    memfd_create("probe", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB).into()
}

pub(super) fn map_files() -> Support {
    let look = || {
        let task = proc::task_dir(rustix::process::getpid())?;
        let maps = proc::maps::read(&task)?;
        let Some(map) = maps.iter().find(|map| map.has_file()) else {
            return Ok(None);
        };
        let name = format!("map_files/{:x}-{:x}", map.start, map.end);
        task.open_file(&name, rustix::fs::OFlags::PATH).map(Some)
    };
    match look() {
        Ok(Some(_)) => Support::Yes,
        Ok(None) => Support::Unknown(Reason::Says("no file is mapped here")),
        Err(proc::Error::Read { errno, .. }) => Support::No(Reason::Errno(errno)),
        Err(proc::Error::Parse { what, .. }) => Support::Unknown(Reason::Says(what.0)),
    }
}

pub(super) fn aio_remap() -> Support {
    let mut context = 0usize;
    // SAFETY: the kernel writes one word.
    let made = unsafe {
        call(
            libc::SYS_io_setup as usize,
            [1, &raw mut context as usize, 0, 0, 0, 0],
        )
    };
    if let Err(errno) = made {
        return Support::No(Reason::Errno(errno));
    }
    let moved = remap_ring(context);
    let context = *moved.as_ref().unwrap_or(&context);
    // SAFETY: the context is the one made above, under the address that it has now; this unmaps its ring.
    let gone = unsafe { call(libc::SYS_io_destroy as usize, [context, 0, 0, 0, 0, 0]) };
    moved.and(gone).into()
}

/// Moves the ring of an AIO context and returns its new address.
fn remap_ring(context: usize) -> Result<usize> {
    let task = proc::task_dir(rustix::process::getpid()).map_err(|error| error.errno())?;
    let maps = proc::maps::read(&task).map_err(|error| error.errno())?;
    let ring = maps
        .iter()
        .find(|map| map.start == context as u64)
        .ok_or(Errno::NOENT)?;
    let size = ring.size() as usize;
    let place = MmapMut::map_anon(size).map_err(|_| Errno::NOMEM)?;
    let new = place.as_ptr() as usize;
    // The ring takes over the memory of `place`, so that must not be unmapped by its owner.
    std::mem::forget(place);
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as usize;
    // SAFETY: the old range is the ring of a context that nobody else knows, the new one is `size` bytes
    // of which no reference is left.
    unsafe {
        call(
            libc::SYS_mremap as usize,
            [context, size, size, flags, new, 0],
        )
    }
}

/// `ARCH_MAP_VDSO_64` of `asm/prctl.h`
const ARCH_MAP_VDSO_64: usize = 0x2003;

pub(super) fn can_map_vdso() -> Support {
    // SAFETY: this process has a vDSO, and a second one is refused with EEXIST.
    match unsafe {
        call(
            libc::SYS_arch_prctl as usize,
            [ARCH_MAP_VDSO_64, 0, 0, 0, 0, 0],
        )
    } {
        Ok(_) | Err(Errno::EXIST) => Support::Yes,
        Err(errno) => Support::No(Reason::Errno(errno)),
    }
}
