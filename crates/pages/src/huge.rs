//! Which aligned 2 MiB of a target are worth a huge page, and who asks for it.
//!
//! Page faults, not copies, bound a restore: a 2 MiB area that the image holds whole is collapsed to one
//! huge page before most of it is written. Each area is claimed by the first worker that comes to it; a
//! second one that comes before the kernel is done just writes.
//!
//! A huge page costs more than it saves where the memory behind it is slow to come: in a virtual machine
//! whose host takes free memory back, the first touch of 2 MiB took 4.5 ms, 0.13 ms elsewhere. Then most areas
//! are left to small pages, and now and then one is tried again.

use crate::placement::Placement;
use crate::{HUGE_BYTES, PAGE_SIZE};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// A huge page that takes longer to get is slower than the small ones it stands for: two workers fill 2 MiB of those
/// in 0.8 ms, and a huge page that is there in 0.2 ms.
const SLOW: Duration = Duration::from_micros(600);
/// Areas passed over after a slow one, twice as many after the next, up to the largest; half as many after one that was
/// not. A slow one costs what many others save.
const FEWEST_PASSED: u32 = 32;
const MOST_PASSED: u32 = 512;

/// The areas of one request.
pub(crate) struct Areas {
    /// Ascending, without overlap.
    spans: Vec<Span>,
    /// Set after the kernel refused: the others would fare no better.
    refused: AtomicBool,
    /// Areas to be passed over, since huge pages are slow to get.
    passing: AtomicU32,
    /// How many were passed over last.
    passed: AtomicU32,
}

/// Adjacent areas.
struct Span {
    start: u64,
    claimed: Box<[AtomicBool]>,
}

impl Span {
    fn end(&self) -> u64 {
        self.start + self.claimed.len() as u64 * HUGE_BYTES
    }
}

impl Areas {
    /// The areas that lie wholly in one placement and in one of the ranges `allowed`.
    pub(crate) fn new(placements: &[Placement], allowed: &[Range<u64>]) -> Self {
        let mut spans: Vec<Span> = Vec::new();
        let mut placements: Vec<&Placement> = placements.iter().collect();
        placements.sort_by_key(|placement| placement.vaddr);
        for placement in placements {
            let end = placement.vaddr + placement.nr_pages * PAGE_SIZE as u64;
            let first = allowed.partition_point(|range| range.end <= placement.vaddr);
            for range in allowed[first..]
                .iter()
                .take_while(|range| range.start < end)
            {
                let start = range
                    .start
                    .max(placement.vaddr)
                    .checked_next_multiple_of(HUGE_BYTES);
                let end = range.end.min(end) / HUGE_BYTES;
                let behind_last = spans.last().map_or(0, Span::end);
                // That they overlap is no error: it is only a hint.
                if let Some(start) = start
                    && start >= behind_last
                    && start / HUGE_BYTES < end
                {
                    let count = end - start / HUGE_BYTES;
                    let claimed = (0..count).map(|_| AtomicBool::new(false)).collect();
                    spans.push(Span { start, claimed });
                }
            }
        }
        Self {
            spans,
            refused: AtomicBool::new(false),
            passing: AtomicU32::new(0),
            passed: AtomicU32::new(0),
        }
    }

    /// Claims what nobody has claimed yet of the areas that `range` touches.
    pub(crate) fn claim(&self, range: &Range<u64>, claimed: &mut Vec<Range<u64>>) {
        if self.refused.load(Ordering::Relaxed) {
            return;
        }
        let first = self.spans.partition_point(|span| span.end() <= range.start);
        for span in self.spans[first..]
            .iter()
            .take_while(|span| span.start < range.end)
        {
            let from = range.start.saturating_sub(span.start) / HUGE_BYTES;
            let to = (range.end.min(span.end()) - span.start).div_ceil(HUGE_BYTES);
            for index in from..to {
                if !span.claimed[index as usize].swap(true, Ordering::Relaxed) && !self.pass() {
                    let start = span.start + index * HUGE_BYTES;
                    claimed.push(start..start + HUGE_BYTES);
                }
            }
        }
    }

    /// True for an area that is to be passed over.
    fn pass(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.passing.fetch_update(set, fetch, one_less).is_ok()
    }

    /// Notes how long it took to get `count` huge pages; false if that was too long.
    pub(crate) fn took(&self, time: Duration, count: usize) -> bool {
        let slow = time > SLOW * u32::try_from(count).unwrap_or(u32::MAX);
        let passed = match self.passed.load(Ordering::Relaxed) {
            passed if !slow => passed / 2,
            0 => FEWEST_PASSED,
            passed => (passed * 2).min(MOST_PASSED),
        };
        self.passed.store(passed, Ordering::Relaxed);
        self.passing.store(passed, Ordering::Relaxed);
        !slow
    }

    /// Notes that no more huge pages are wanted, or that the kernel has no huge pages to give.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "slices of ranges are what is wanted"
)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn placement(vaddr: u64, bytes: u64) -> Placement {
        Placement {
            vaddr,
            first_page: 0,
            nr_pages: bytes / PAGE_SIZE as u64,
        }
    }

    fn all(areas: &Areas) -> Vec<Range<u64>> {
        let mut claimed = Vec::new();
        areas.claim(&(0..u64::MAX), &mut claimed);
        claimed
    }

    #[test]
    fn only_whole_aligned_areas_count() {
        let areas = Areas::new(&[placement(3 * MIB, 6 * MIB)], &[0..100 * MIB]);
        assert_eq!(all(&areas), [4 * MIB..6 * MIB, 6 * MIB..8 * MIB]);
        let areas = Areas::new(&[placement(4 * MIB, 2 * MIB)], &[0..100 * MIB]);
        assert_eq!(all(&areas), [4 * MIB..6 * MIB]);
        let areas = Areas::new(&[placement(4 * MIB, 2 * MIB - 4096)], &[0..100 * MIB]);
        assert_eq!(all(&areas), []);
    }

    #[test]
    fn one_run_over_two_mappings_keeps_to_both() {
        let allowed = [4 * MIB..7 * MIB, 7 * MIB..12 * MIB];
        let areas = Areas::new(&[placement(0, 20 * MIB)], &allowed);
        assert_eq!(
            all(&areas),
            [4 * MIB..6 * MIB, 8 * MIB..10 * MIB, 10 * MIB..12 * MIB]
        );
    }

    #[test]
    fn an_area_is_claimed_once() {
        let areas = Areas::new(&[placement(0, 8 * MIB)], &[0..8 * MIB]);
        let mut claimed = Vec::new();
        areas.claim(&(MIB..3 * MIB), &mut claimed);
        assert_eq!(claimed, [0..2 * MIB, 2 * MIB..4 * MIB]);
        assert_eq!(all(&areas), [4 * MIB..6 * MIB, 6 * MIB..8 * MIB]);
        areas.refuse();
        assert_eq!(all(&areas), []);
    }

    #[test]
    fn slow_pages_are_tried_now_and_then() {
        let areas = Areas::new(&[placement(0, 100 * MIB)], &[0..100 * MIB]);
        let mut claimed = Vec::new();
        areas.claim(&(0..1), &mut claimed);
        areas.took(2 * SLOW, 1);
        // After the first of the fifty.
        assert_eq!(all(&areas).len(), 49 - FEWEST_PASSED as usize);
        areas.took(SLOW, 1);
        assert!(areas.pass());
        (0..6).for_each(|_| assert!(areas.took(SLOW, 1)));
        assert!(!areas.pass());
    }
}
