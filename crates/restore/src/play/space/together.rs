//! Neighbours that differ in little but their permissions: they are mapped by one call and told apart afterwards.
//!
//! Small ones are told apart before there are pages, since each border costs twice as much later; what is to be read
//! only is then filled by force. Where huge pages may come, that waits for them.

use std::ops::Range;

use gelid_sys::PAGE_SIZE;
use gelid_sys::syscall::nr;

use super::super::script::{Object, Reel};
use super::{
    DONT_NEED, POPULATE_WRITE, PROT_READ, PROT_WRITE, Part, advise, is_written, map_args, sized,
    steps,
};
use crate::plan::space::{Backing, map};

/// Smaller mappings have no huge pages.
const SMALLEST_HUGE: u64 = 2 << 20;
/// What may be done with them until then.
const OPEN: u32 = PROT_READ | PROT_WRITE;

/// Parts that may be mapped at once, two or more; or one that is alone.
pub(super) fn groups<'p, 'a>(
    parts: &'p [Part<'a>],
    zone: &Range<u64>,
) -> impl Iterator<Item = &'p [Part<'a>]> {
    parts.chunk_by(|one, next| can_be(one, next, zone))
}

/// Whether two parts may be: both private memory that could be written, now or once.
fn can_be(one: &Part<'_>, next: &Part<'_>, zone: &Range<u64>) -> bool {
    one.0.end == next.0.start
        && [one, next].into_iter().all(|part| is_plain(part, zone))
        && one.1.flags == next.1.flags
        && one.1.advice == next.1.advice
        && one.1.name == next.1.name
        && has_huge_pages(&one.0) == has_huge_pages(&next.0)
}

fn has_huge_pages(range: &Range<u64>) -> bool {
    range.end - range.start >= SMALLEST_HUGE
}

/// Whether a group is to be told apart before its pages are there.
pub(super) fn is_small(group: &[Part<'_>]) -> bool {
    group.len() > 1 && !has_huge_pages(&group[0].0)
}

/// Whether a group is to be told apart when its pages are there.
pub(super) fn is_large(group: &[Part<'_>]) -> bool {
    group.len() > 1 && has_huge_pages(&group[0].0)
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

/// Appends what gives them their permissions.
pub(super) fn protect(reel: &mut Reel, parts: &[Part<'_>]) {
    for (range, prot) in runs(parts) {
        restrict(reel, &range, prot);
    }
}

/// What they are told apart into, with permissions.
pub(super) fn runs(parts: &[Part<'_>]) -> impl Iterator<Item = (Range<u64>, u32)> {
    let same = parts.chunk_by(|(_, one), (_, next)| one.prot == next.prot);
    same.filter_map(|same| {
        let ((first, area), (last, _)) = (same.first()?, same.last()?);
        Some((first.start..last.end, area.prot))
    })
}

/// Appends what gives one of them its permissions.
pub(super) fn restrict(reel: &mut Reel, range: &Range<u64>, prot: u32) {
    if prot != OPEN {
        let args = sized(range, prot.into());
        reel.must(Object::Area(range.start), nr::mprotect, args);
    }
}
