//! An address space on tapes: mappings, the kernel's own areas, boundaries; and what follows the pages.

mod many;
mod protection;
mod segments;
mod together;

use std::ops::Range;
use std::os::fd::AsRawFd;

use gelid_sys::PAGE_SIZE;
use gelid_sys::mm::{MmMap, PR_SET_MM, PR_SET_MM_MAP};
use gelid_sys::syscall::nr;
use gelid_tape::Arg;

use super::kernel::Kernel;
use super::script::{Object, Reel};
use crate::Error;
use crate::files::OpenFiles;
use crate::plan::ranges::meet;
use crate::plan::space::{Area, Backing, Lock, Space, map};
use crate::plan::zone;

pub(crate) use many::{Many, Multitudes, Parting};
pub(crate) use protection::{check, suit};

const MAP_FIXED: u32 = 0x10;
const PROT_READ: u32 = 1;
const PROT_WRITE: u32 = 2;
const DONT_NEED: u64 = 4;
const POPULATE_WRITE: u64 = 23;
const MADV_GUARD_INSTALL: u64 = 102;
/// Advice that is given before the pages come: everything that madvise can set, by number.
const ADVICE: u64 = 1 << 1 | 1 << 2 | 1 << 10 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18;
/// `PR_SET_VMA` with `PR_SET_VMA_ANON_NAME`
const PR_SET_VMA: u64 = 0x5356_4d41;
const ANON_NAME: u64 = 0;
/// `PR_SET_MM_MAP` and the like need the size of an op and a little data.
const OP: usize = 128;

/// What is wanted of an area.
type Part<'a> = (Range<u64>, &'a Area);

/// Appends everything that must be there before pages are, of the areas what is in `missing`; returns where the system
/// call instruction is afterwards, and which areas have yet to get their permissions.
pub(crate) fn build(
    reel: &mut Reel,
    space: &Space,
    zone: &Range<u64>,
    missing: &[Range<u64>],
    kernel: &Kernel,
    files: &OpenFiles,
) -> Result<(Option<u64>, Option<Many>), Error> {
    let parts = parts(space, missing);
    map_all(reel, space, zone, &parts, files)?;
    let many = Many::of(&parts, zone);
    if many.is_none() {
        protect_groups(reel, &parts, zone, together::is_small);
    }
    let placed = kernel.place(reel, space, zone);
    boundaries(reel, space, files)?;
    Ok((placed, many))
}

/// Appends the areas, as far as they lie in `wanted`, as they are to be.
pub(crate) fn areas(
    reel: &mut Reel,
    space: &Space,
    zone: &Range<u64>,
    wanted: &[Range<u64>],
    files: &OpenFiles,
) -> Result<(), Error> {
    let parts = parts(space, wanted);
    map_all(reel, space, zone, &parts, files)?;
    protect_groups(reel, &parts, zone, |group| group.len() > 1);
    Ok(())
}

/// The same; some lack their [permissions](protect_groups).
fn map_all(
    reel: &mut Reel,
    space: &Space,
    zone: &Range<u64>,
    parts: &[Part<'_>],
    files: &OpenFiles,
) -> Result<(), Error> {
    for group in together::groups(parts, zone) {
        if let [(part, area)] = group {
            alone(reel, space, area, (part, zone), files)?;
        } else {
            together::map(reel, group);
        }
    }
    Ok(())
}

/// Appends the permissions of some areas that were mapped together.
fn protect_groups(
    reel: &mut Reel,
    parts: &[Part<'_>],
    zone: &Range<u64>,
    which: impl Fn(&[Part<'_>]) -> bool,
) {
    for group in together::groups(parts, zone).filter(|group| which(group)) {
        together::protect(reel, group);
    }
}

/// What is wanted of each area.
fn parts<'s>(space: &'s Space, wanted: &'s [Range<u64>]) -> Vec<Part<'s>> {
    meet(&space.areas, wanted)
        .map(|(part, area, _)| (part, area))
        .collect()
}

/// Appends one area, or what is wanted of it.
fn alone(
    reel: &mut Reel,
    space: &Space,
    area: &Area,
    (part, zone): (&Range<u64>, &Range<u64>),
    files: &OpenFiles,
) -> Result<(), Error> {
    let fd = match area.backing {
        Backing::Segment { .. } => return segments::attach(reel, space, area, part, zone),
        Backing::Anonymous => -1,
        Backing::File { id, access, .. } => files.mapping(id, access)?.as_raw_fd(),
    };
    for range in around(part, zone) {
        map(reel, area, &range, fd);
    }
    Ok(())
}

/// A range without the zone.
fn around(range: &Range<u64>, zone: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let parts = if range.start <= zone.start && zone.end <= range.end {
        [range.start..zone.start, zone.end..range.end]
    } else {
        [range.clone(), 0..0]
    };
    parts.into_iter().filter(|part| !part.is_empty())
}

fn map(reel: &mut Reel, area: &Area, range: &Range<u64>, fd: i32) {
    let object = Object::Area(range.start);
    let written = is_written(area);
    let prot = area.prot | if written { PROT_WRITE } else { 0 };
    for part in steps(area, range, prot) {
        reel.must(object, nr::mmap, map_args(area, &part, prot, fd));
    }
    if written {
        protect(reel, area, range);
    }
    advise(reel, area, range);
}

/// What is mapped by one call each. Nobody gets more at once than the machine has of memory, but may come to have it
/// step by step, as a heap does; the parts become one mapping.
fn steps(area: &Area, range: &Range<u64>, prot: u32) -> impl Iterator<Item = Range<u64>> {
    const MOST: u64 = 1 << 30;
    const NOT_COUNTED: u32 = map::NORESERVE | map::HUGETLB | map::GROWSDOWN;
    let counted = area.is_private() && prot & PROT_WRITE != 0 && area.flags & NOT_COUNTED == 0;
    let (step, end) = (if counted { MOST } else { u64::MAX }, range.end);
    let first = Some(range.start);
    let starts = std::iter::successors(first, move |start| start.checked_add(step));
    let starts = starts.take_while(move |start| *start < end);
    starts.map(move |start| start..end.min(start.saturating_add(step)))
}

/// Whether an area that cannot be written could be once: pages that differ from the file were written, and the kernel
/// then counts the mapping as writable.
fn is_written(area: &Area) -> bool {
    (area.filled || area.accounted) && area.is_private() && area.prot & PROT_WRITE == 0
}

fn advise(reel: &mut Reel, area: &Area, range: &Range<u64>) {
    let object = Object::Area(range.start);
    let mut advice = area.advice & ADVICE;
    while advice != 0 {
        let number = u64::from(advice.trailing_zeros());
        reel.must(object, nr::madvise, sized(range, number));
        advice &= advice - 1;
    }
    if let Some(name) = &area.name {
        let script = reel.script(OP + name.len());
        let name = script.bytes(&[name, &b"\0"[..]].concat());
        let (start, len) = (range.start.into(), (range.end - range.start).into());
        let args = [PR_SET_VMA.into(), ANON_NAME.into(), start, len, name.into()];
        // Not every kernel has names, which are for people to read.
        script.call(nr::prctl, args);
    }
}

/// Takes the permission to write away. Memory that was never touched would not count as writable then.
fn protect(reel: &mut Reel, area: &Area, range: &Range<u64>) {
    let object = Object::Area(range.start);
    let first = range.start..range.start + PAGE_SIZE as u64;
    let anonymous = area.backing == Backing::Anonymous;
    if anonymous {
        reel.must(object, nr::madvise, sized(&first, POPULATE_WRITE));
    }
    reel.must(object, nr::mprotect, sized(range, area.prot.into()));
    if anonymous {
        reel.must(object, nr::madvise, sized(&first, DONT_NEED));
    }
}

fn map_args(area: &Area, range: &Range<u64>, prot: u32, fd: i32) -> [Arg; 6] {
    let offset = match area.backing {
        Backing::Anonymous | Backing::Segment { .. } => 0,
        Backing::File { offset, .. } => offset,
    };
    [
        range.start.into(),
        (range.end - range.start).into(),
        u64::from(prot).into(),
        u64::from(area.flags | MAP_FIXED).into(),
        fd.into(),
        (offset + (range.start - area.range.start)).into(),
    ]
}

fn sized(range: &Range<u64>, argument: u64) -> [Arg; 3] {
    [
        range.start.into(),
        (range.end - range.start).into(),
        argument.into(),
    ]
}

/// Boundaries, auxiliary vector and executable, in one call (`PR_SET_MM_MAP`).
fn boundaries(reel: &mut Reel, space: &Space, files: &OpenFiles) -> Result<(), Error> {
    let mm = &space.mm;
    let exe = files.fd(mm.exe_file_id).ok_or(Error::NoSuchFile {
        pid: space.pid,
        id: mm.exe_file_id,
    })?;
    let auxv: Vec<u8> = mm
        .mm_saved_auxv
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let map = MmMap {
        start_code: mm.mm_start_code,
        end_code: mm.mm_end_code,
        start_data: mm.mm_start_data,
        end_data: mm.mm_end_data,
        start_brk: mm.mm_start_brk,
        brk: mm.mm_brk,
        start_stack: mm.mm_start_stack,
        arg_start: mm.mm_arg_start,
        arg_end: mm.mm_arg_end,
        env_start: mm.mm_env_start,
        env_end: mm.mm_env_end,
        auxv: 0,
        auxv_size: auxv.len() as u32,
        exe_fd: exe.as_raw_fd().cast_unsigned(),
    };
    let script = reel.script(2 * OP + MmMap::SIZE + auxv.len());
    let data = script.bytes(&map.as_bytes());
    if !auxv.is_empty() {
        let auxv = script.bytes(&auxv);
        script
            .tape
            .link(data, std::mem::offset_of!(MmMap, auxv), auxv);
    }
    let args = [
        PR_SET_MM.into(),
        PR_SET_MM_MAP.into(),
        data.into(),
        (MmMap::SIZE as u64).into(),
        0.into(),
    ];
    script.must(Object::File(mm.exe_file_id), nr::prctl, args);
    Ok(())
}

/// What must wait until the pages are there; `missing` is what [`build`] was given.
pub(crate) fn complete(reel: &mut Reel, space: &Space, zone: &Range<u64>, missing: &[Range<u64>]) {
    protect_groups(reel, &parts(space, missing), zone, together::is_large);
    for guard in &space.guards {
        let args = sized(guard, MADV_GUARD_INSTALL);
        reel.must(Object::Area(guard.start), nr::madvise, args);
    }
    for area in &space.areas {
        const MLOCK_ONFAULT: u64 = 1;
        let Some(lock) = area.locked else { continue };
        let args = sized(
            &area.range,
            if lock == Lock::OnFault {
                MLOCK_ONFAULT
            } else {
                0
            },
        );
        let object = Object::Area(area.range.start);
        if area.prot & PROT_READ == 0 {
            // Locked, which counts, but without a page that could be brought in, which is told as an error.
            reel.script(OP).call(nr::mlock2, args);
        } else {
            reel.must(object, nr::mlock2, args);
        }
    }
    protection::add(reel, &space.protection);
}

/// The last call in an address space, which takes the zone away.
pub(crate) fn vacate(space: &Space, zone: &Range<u64>) -> (usize, [u64; 6]) {
    let len = zone.end - zone.start;
    match zone::covering(space, zone) {
        Some(area) => {
            let flags = u64::from(area.flags | MAP_FIXED);
            let prot = u64::from(area.prot);
            (nr::mmap, [zone.start, len, prot, flags, u64::MAX, 0])
        }
        None => (nr::munmap, [zone.start, len, 0, 0, 0, 0]),
    }
}
