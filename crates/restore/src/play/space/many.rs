//! A multitude of small neighbours: told apart step by step, while those below are filled.

use std::collections::HashMap;
use std::ops::Range;

use super::super::crew::Crew;
use super::super::script::Reel;
use super::{Part, together};
use crate::Error;
use crate::plan::births::Who;

/// Fewer are told apart in one go.
const FEWEST: usize = 1024;
/// Told apart in a row at first, so that something can be filled soon, and at most: each step costs a stop of the task.
const STEPS: [usize; 2] = [512, 4096];

/// Small neighbours of one address space that wait for their permissions.
#[derive(Debug)]
pub(crate) struct Many {
    /// What was mapped by one call each; ascending.
    pub(crate) mapped: Vec<Range<u64>>,
    /// What becomes of them, with permissions; ascending.
    becoming: Vec<(Range<u64>, u32)>,
}

/// Those of several tasks, by the index of the one that builds the address space.
pub(crate) type Multitudes = HashMap<usize, Many>;

impl Many {
    /// Those among the parts of an address space; `None` if they are not many.
    pub(super) fn of(parts: &[Part<'_>], zone: &Range<u64>) -> Option<Self> {
        if parts.len() < FEWEST {
            return None;
        }
        let mut many = Self {
            mapped: Vec::new(),
            becoming: Vec::new(),
        };
        for group in together::groups(parts, zone).filter(|group| together::is_small(group)) {
            let first = many.becoming.len();
            many.becoming.extend(together::runs(group));
            if let [first, .., last] = &many.becoming[first..] {
                many.mapped.push(first.0.start..last.0.end);
            }
        }
        (many.becoming.len() >= FEWEST).then_some(many)
    }

    /// What becomes of them; ascending.
    pub(crate) fn ranges(&self) -> Vec<Range<u64>> {
        let all = self.becoming.iter();
        all.map(|(range, _)| range.clone()).collect()
    }
}

/// Tells them apart.
#[derive(Debug)]
pub(crate) struct Parting {
    many: Many,
    /// How many of them have been told apart.
    done: usize,
    step: usize,
}

impl Parting {
    pub(crate) fn of(many: Many) -> Self {
        let (done, step) = (0, STEPS[0]);
        Self { many, done, step }
    }

    /// Tells all below `end` apart, and maybe a few more.
    pub(crate) fn below(&mut self, end: u64, who: Who, crew: &mut Crew) -> Result<(), Error> {
        while let [next, ..] = &self.many.becoming[self.done..]
            && next.0.start < end
        {
            let rest = &self.many.becoming[self.done..];
            let step = &rest[..self.step.min(rest.len())];
            let mut reel = Reel::new(crew.body(who)?.carrier.room());
            for (range, prot) in step {
                together::restrict(&mut reel, range, *prot);
            }
            crew.play_reels(vec![(who, reel.into_scripts())])?;
            self.done += step.len();
            self.step = (self.step * 2).min(STEPS[1]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::space::{Area, Backing, map};

    const PAGE: u64 = 0x1000;
    const ZONE: Range<u64> = 0..0x8_0000;
    const START: u64 = 0x1000_0000;

    fn area(range: Range<u64>, prot: u32) -> Area {
        Area {
            range,
            prot,
            guarded: false,
            flags: map::PRIVATE | map::ANONYMOUS,
            backing: Backing::Anonymous,
            advice: 0,
            locked: None,
            accounted: true,
            filled: true,
            name: None,
        }
    }

    /// Neighbours of one page each, in turns only readable and writable.
    fn neighbours(start: u64, count: u64) -> Vec<Area> {
        let area = |page| {
            let at = start + page * PAGE;
            area(at..at + PAGE, if page % 2 == 0 { 1 } else { 3 })
        };
        (0..count).map(area).collect()
    }

    fn many(areas: &[Area]) -> Option<Many> {
        let parts: Vec<Part<'_>> = areas
            .iter()
            .map(|area| (area.range.clone(), area))
            .collect();
        Many::of(&parts, &ZONE)
    }

    #[test]
    fn few_are_not_many() {
        let enough = FEWEST as u64;
        assert!(many(&neighbours(START, enough - 1)).is_none());
        // Nobody is anybody's neighbour.
        let mut apart = neighbours(START, 2 * enough);
        apart.retain(|area| area.prot == 3);
        assert!(many(&apart).is_none());
        let all = many(&neighbours(START, enough)).unwrap();
        assert_eq!(all.mapped, [START..START + enough * PAGE]);
        assert_eq!(all.ranges().len(), FEWEST);
    }

    #[test]
    fn large_neighbours_wait_for_huge_pages() {
        let enough = FEWEST as u64;
        let mut areas = neighbours(START, enough);
        let large = START + enough * PAGE;
        let above = large + (4 << 20);
        areas.push(area(large..above, 1));
        areas.extend(neighbours(above, 3));
        let all = many(&areas).unwrap();
        assert_eq!(all.mapped, [START..large, above..above + 3 * PAGE]);
        assert!(!all.ranges().contains(&(large..above)));
    }

    #[test]
    fn equal_neighbours_become_one() {
        let mut areas = neighbours(START, FEWEST as u64);
        let next = areas.last().unwrap().range.end;
        areas.push(area(next..next + PAGE, 3));
        let all = many(&areas).unwrap();
        assert_eq!(all.ranges().len(), FEWEST);
        assert_eq!(all.ranges().last(), Some(&(next - PAGE..next + PAGE)));
    }
}
