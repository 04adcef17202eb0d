//! Neighbours that differ in little but their permissions: they are mapped by one call and told apart afterwards.

use std::ops::Range;

use gelid_sys::PAGE_SIZE;
use gelid_sys::syscall::nr;

use super::super::script::{Object, Reel};
use super::{
    DONT_NEED, POPULATE_WRITE, PROT_READ, PROT_WRITE, advise, is_written, map_args, sized, steps,
};
use crate::plan::space::{Area, Backing, map};

/// What may be done with them until their pages are there.
const OPEN: u32 = PROT_READ | PROT_WRITE;

/// A part of an area that is to be mapped.
type Part<'a> = (Range<u64>, &'a Area);

/// Whether two parts may be mapped at once: both private memory that could be written, now or once.
pub(super) fn can_be(one: &Part<'_>, next: &Part<'_>, zone: &Range<u64>) -> bool {
    one.0.end == next.0.start
        && [one, next].into_iter().all(|part| is_plain(part, zone))
        && one.1.flags == next.1.flags
        && one.1.advice == next.1.advice
        && one.1.name == next.1.name
}

fn is_plain((range, area): &Part<'_>, zone: &Range<u64>) -> bool {
    let plain = map::PRIVATE | map::ANONYMOUS | map::NORESERVE;
    area.backing == Backing::Anonymous
        && area.is_private()
        && area.flags & !plain == 0
        && (area.prot & PROT_WRITE != 0 || is_written(area))
        && (range.end <= zone.start || zone.end <= range.start)
}

/// Appends what maps parts that follow each other, all of them readable and writable for the time.
pub(super) fn map(reel: &mut Reel, parts: &[Part<'_>]) {
    let (Some((first, area)), Some((last, _))) = (parts.first(), parts.last()) else {
        return;
    };
    let whole = first.start..last.end;
    let object = Object::Area(whole.start);
    for step in steps(area, &whole, OPEN) {
        reel.must(object, nr::mmap, map_args(area, &step, OPEN, -1));
    }
    if parts.iter().any(|(_, area)| is_written(area)) {
        // Memory that was never touched would not count as writable when the permission is taken away.
        let page = whole.start..whole.start + PAGE_SIZE as u64;
        reel.must(object, nr::madvise, sized(&page, POPULATE_WRITE));
        reel.must(object, nr::madvise, sized(&page, DONT_NEED));
    }
    advise(reel, area, &whole);
}

/// Appends what gives them their permissions. That comes best after the pages: those of all of them are put in place
/// together then.
pub(super) fn protect(reel: &mut Reel, parts: &[Part<'_>]) {
    for same in parts.chunk_by(|(_, one), (_, next)| one.prot == next.prot) {
        if let (Some((first, area)), Some((last, _))) = (same.first(), same.last())
            && area.prot != OPEN
        {
            let range = first.start..last.end;
            let args = sized(&range, area.prot.into());
            reel.must(Object::Area(range.start), nr::mprotect, args);
        }
    }
}
