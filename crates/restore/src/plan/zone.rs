//! A range where tasks can keep stub and tapes while their address spaces are built.

use std::ops::Range;

use gelid_sys::PAGE_SIZE;

use super::PlanError;
use super::space::{Area, Space, TASK_SIZE};

/// Bytes of the range: the stub's page, room for tapes, and a place for the kernel's own mappings.
pub(crate) const ZONE_SIZE: u64 = 512 << 10;
/// Bytes at its end for the vDSO and its data.
pub(crate) const PARKING: u64 = 128 << 10;
/// Nothing is mapped below by default (`vm.mmap_min_addr`).
const LOWEST: u64 = 1 << 20;

/// Finds a range that no address space uses. `taken` are the mappings of the process that the root task
/// is forked from.
///
/// Where an address space is full, a reservation without pages gives its place up for a while.
pub(crate) fn find(spaces: &[Space], taken: &[Range<u64>]) -> Result<Range<u64>, PlanError> {
    let all = spaces.iter().flat_map(Space::occupied);
    let holes = holes(all.chain(taken.iter().cloned()).collect());
    if let Some(zone) = holes.first() {
        return Ok(zone.clone());
    }
    let fixed = |space: &Space| -> Vec<Range<u64>> {
        let areas = space.areas.iter().filter(|area| !gives_way(area));
        let kernels = space.vdso.iter();
        let kernels = kernels.flat_map(|vdso| vdso.data.iter().chain([&vdso.code]));
        areas
            .map(|area| &area.range)
            .chain(kernels)
            .cloned()
            .collect()
    };
    let fixed: Vec<_> = spaces
        .iter()
        .flat_map(fixed)
        .chain(taken.iter().cloned())
        .collect();
    self::holes(fixed)
        .into_iter()
        .find(|zone| {
            spaces
                .iter()
                .all(|space| covering(space, zone).is_some() || is_free(space, zone))
        })
        .ok_or(PlanError::NoRoom { need: ZONE_SIZE })
}

/// Finds a range of `len` bytes, aligned to `page`, that neither the address space nor the zone uses.
pub(crate) fn hole(
    space: &Space,
    zone: &Range<u64>,
    len: u64,
    page: u64,
) -> Result<Range<u64>, PlanError> {
    let none = PlanError::NoRoom { need: len };
    let mut used: Vec<_> = space.occupied().chain([zone.clone()]).collect();
    used.sort_by_key(|range| range.start);
    used.push(TASK_SIZE..TASK_SIZE);
    let mut end = LOWEST;
    for range in used {
        let start = end.checked_next_multiple_of(page);
        let stop = start.and_then(|start| start.checked_add(len));
        match (start, stop) {
            (Some(start), Some(stop)) if stop <= range.start => return Ok(start..stop),
            (Some(_), Some(_)) => end = end.max(range.end),
            _ => return Err(none),
        }
    }
    Err(none)
}

/// The reservation that the zone is taken from, if it is.
pub(crate) fn covering<'a>(space: &'a Space, zone: &Range<u64>) -> Option<&'a Area> {
    space.areas.iter().find(|area| {
        area.range.start <= zone.start && zone.end <= area.range.end && gives_way(area)
    })
}

fn gives_way(area: &Area) -> bool {
    area.is_reservation() && area.range.end - area.range.start >= 4 * ZONE_SIZE
}

fn is_free(space: &Space, zone: &Range<u64>) -> bool {
    space
        .occupied()
        .all(|range| range.end <= zone.start || zone.end <= range.start)
}

/// Ranges of the size of a zone, one in each hole between those in use. A stack that grows keeps its
/// distance from what is below, hence the margin.
fn holes(mut used: Vec<Range<u64>>) -> Vec<Range<u64>> {
    const MARGIN: u64 = 256 * PAGE_SIZE as u64;
    used.sort_by_key(|range| range.start);
    used.push(TASK_SIZE..TASK_SIZE);
    let mut holes = Vec::new();
    let mut end = LOWEST;
    for range in used {
        if end >= TASK_SIZE {
            break;
        }
        let start = end.next_multiple_of(PAGE_SIZE as u64);
        if range.start > start && range.start - start >= ZONE_SIZE + MARGIN {
            holes.push(start..start + ZONE_SIZE);
        }
        end = end.max(range.end);
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_hole_is_taken() {
        let zone = find(&[], &[LOWEST..LOWEST + 0x5000]).unwrap();
        assert_eq!(zone.start, LOWEST + 0x5000);
        assert_eq!(zone.end - zone.start, ZONE_SIZE);
        let vsyscall = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;
        find(&[], &[0..TASK_SIZE, vsyscall]).unwrap_err();
    }
}
