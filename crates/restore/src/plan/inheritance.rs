//! Memory that tasks get from whoever creates them, so that pages which were shared after a `fork(2)` are shared
//! again.
//!
//! A task whose children had areas like its own makes those before the children are born. A child keeps what fits,
//! with the pages that are equal in its own image, and gives the rest back. What is kept and what is not follows from
//! the areas alone; which pages are equal is seen when they are filled.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use super::Life;
use super::births::{Births, Step, Who};
use super::pagemap::contents;
use super::ranges::{both, without};
use super::space::{Area, Backing, Space, map};

/// `MADV_DONTFORK` and `MADV_WIPEONFORK`, by their numbers.
const NOT_INHERITED: u64 = 1 << 10 | 1 << 18;

/// What becomes of what a task finds in its memory when it is born, and what it makes before its children are. All
/// ranges are ascending.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Inheritance {
    /// Mappings to be given back.
    pub(crate) unmapped: Vec<Range<u64>>,
    /// Parts of its own areas that are there.
    pub(crate) kept: Vec<Range<u64>>,
    /// Those of them whose permissions are others.
    pub(crate) protected: Vec<(Range<u64>, u32)>,
    /// Pages that its image does not have.
    pub(crate) dropped: Vec<Range<u64>>,
    /// Pages that may be equal to those of its image.
    pub(crate) compared: Vec<Range<u64>>,
    /// Pages that are, as the images say.
    pub(crate) equal: Vec<Range<u64>>,
    /// Its children want some of it, so all of this is done before they are born.
    pub(crate) is_early: bool,
    /// Parts of its own areas to be made then.
    pub(crate) early: Vec<Range<u64>>,
}

impl Inheritance {
    /// What there is of its areas once that has been done; ascending.
    pub(crate) fn there(&self) -> Vec<Range<u64>> {
        let mut there: Vec<_> = self.kept.iter().chain(&self.early).cloned().collect();
        there.sort_by_key(|range| range.start);
        there
    }
}

/// What a task has in its memory, apart from its zone.
#[derive(Debug, Default)]
struct Held {
    /// Each with the range that is there.
    areas: Vec<Area>,
    /// Where pages are, each with the address space whose images hold them; ascending.
    pages: Vec<(Range<u64>, usize)>,
}

/// Plans it for each task, as they are born. Tasks that share an address space with others get nothing.
pub(crate) fn plan(
    births: &Births,
    lives: &[Life],
    spaces: &[Space],
    is_shared: impl Fn(usize) -> bool,
) -> Vec<Inheritance> {
    let planner = Planner {
        births,
        lives,
        spaces,
        is_shared: &is_shared,
    };
    let mut all = vec![Inheritance::default(); lives.len()];
    let mut born = VecDeque::from([(Who::Task(0), Rc::new(Held::default()))]);
    while let Some((who, held)) = born.pop_front() {
        let left = match who {
            Who::Task(index) => {
                let (own, left) = planner.task(index, &held);
                all[index] = own;
                left.map(Rc::new)
            }
            Who::Helper(_) => None,
        };
        let left = left.unwrap_or(held);
        let children = planner.children(who);
        born.extend(children.map(|child| (child, Rc::clone(&left))));
    }
    all
}

struct Planner<'a> {
    births: &'a Births,
    lives: &'a [Life],
    spaces: &'a [Space],
    is_shared: &'a dyn Fn(usize) -> bool,
}

impl<'a> Planner<'a> {
    /// What becomes of what a task holds at its birth; and what it holds when its children are born, if that is not
    /// the same.
    fn task(&self, index: usize, held: &Held) -> (Inheritance, Option<Held>) {
        let whole = |held: &Held| held.areas.iter().map(|area| area.range.clone()).collect();
        let mut own = Inheritance::default();
        let Some((number, space)) = self.space(index) else {
            // A guest leaves all to the one who builds its address space.
            if (self.is_shared)(index) {
                own.unmapped = whole(held);
            }
            return (own, None);
        };
        let kept = common(&held.areas, &space.areas);
        own.kept = kept.iter().map(|(range, ..)| range.clone()).collect();
        let other = |(range, from, to): &(Range<u64>, &Area, &Area)| {
            (from.prot != to.prot).then(|| (range.clone(), to.prot))
        };
        own.protected = kept.iter().filter_map(other).collect();
        let held_ranges: Vec<_> = whole(held);
        own.unmapped = without(&held_ranges, &own.kept);
        let pages = contents(self.spaces, number);
        let all = ranges(&pages);
        let found = both(&ranges(&held.pages), &own.kept);
        own.dropped = without(&found, &all);
        own.equal = both(&equal(&held.pages, &pages), &own.kept);
        own.compared = without(&both(&found, &all), &own.equal);
        let heirs = self.heirs(Who::Task(index));
        let wanted = |area: &&Area| {
            let alone = std::slice::from_ref(*area);
            heirs
                .iter()
                .any(|heir| !common(alone, &heir.areas).is_empty())
        };
        let wanted: Vec<&Area> = space.areas.iter().filter(wanted).collect();
        if wanted.is_empty() {
            return (own, None);
        }
        let wanted: Vec<_> = wanted.iter().map(|area| area.range.clone()).collect();
        own.early = without(&wanted, &own.kept);
        own.is_early = true;
        let there = own.there();
        let part = |area: &Area| {
            let parts = both(std::slice::from_ref(&area.range), &there);
            parts
                .into_iter()
                .map(|range| area.part(range))
                .collect::<Vec<_>>()
        };
        let left = Held {
            areas: space.areas.iter().flat_map(part).collect(),
            pages: within(&pages, &there),
        };
        (own, Some(left))
    }

    /// The address space that a task builds for itself alone.
    fn space(&self, index: usize) -> Option<(usize, &'a Space)> {
        match &self.lives[index] {
            Life::Alive(alive) if alive.builds && !(self.is_shared)(index) => {
                Some((alive.space, &self.spaces[alive.space]))
            }
            _ => None,
        }
    }

    fn children(&self, who: Who) -> impl Iterator<Item = Who> + use<'a> {
        let steps = match who {
            Who::Task(index) => &self.births.steps[index],
            Who::Helper(index) => &self.births.helpers[index].steps,
        };
        steps.iter().filter_map(|step| match step {
            Step::Fork { child, .. } => Some(*child),
            Step::SetSid => None,
        })
    }

    /// The address spaces of those that are born with a copy of the memory of `who`.
    fn heirs(&self, who: Who) -> Vec<&'a Space> {
        let mut heirs = Vec::new();
        let mut born: Vec<Who> = self.children(who).collect();
        while let Some(child) = born.pop() {
            match child {
                Who::Task(index) => heirs.extend(self.space(index).map(|(_, space)| space)),
                // It hands on what it has.
                Who::Helper(_) => born.extend(self.children(child)),
            }
        }
        heirs
    }
}

fn ranges(pages: &[(Range<u64>, usize)]) -> Vec<Range<u64>> {
    pages.iter().map(|(range, _)| range.clone()).collect()
}

/// The parts of pages that lie in some ranges.
fn within(pages: &[(Range<u64>, usize)], inside: &[Range<u64>]) -> Vec<(Range<u64>, usize)> {
    let mut pages = pages.iter().peekable();
    let all: Vec<_> = pages.clone().map(|(range, _)| range.clone()).collect();
    let mut parts = Vec::new();
    for part in both(&all, inside) {
        while pages
            .next_if(|(range, _)| range.end <= part.start)
            .is_some()
        {}
        parts.extend(pages.peek().map(|(_, owner)| (part, *owner)));
    }
    parts
}

/// Where both have pages of the same images.
fn equal(one: &[(Range<u64>, usize)], other: &[(Range<u64>, usize)]) -> Vec<Range<u64>> {
    let of = |pages: &[(Range<u64>, usize)]| {
        let mut owners: BTreeMap<usize, Vec<Range<u64>>> = BTreeMap::new();
        for (range, owner) in pages {
            owners.entry(*owner).or_default().push(range.clone());
        }
        owners
    };
    let others = of(other);
    let mut equal = Vec::new();
    for (owner, ranges) in of(one) {
        equal.extend(both(&ranges, others.get(&owner).map_or(&[], Vec::as_slice)));
    }
    equal.sort_by_key(|range| range.start);
    equal
}

/// Where an area of the second list can be one of the first: the range, and both.
fn common<'a>(held: &'a [Area], own: &'a [Area]) -> Vec<(Range<u64>, &'a Area, &'a Area)> {
    let (mut held, mut own) = (held.iter().peekable(), own.iter().peekable());
    let mut common = Vec::new();
    while let (Some(from), Some(to)) = (held.peek(), own.peek()) {
        let range = from.range.start.max(to.range.start)..from.range.end.min(to.range.end);
        if !range.is_empty() && fits(from, to) {
            common.push((range, *from, *to));
        }
        if from.range.end <= to.range.end {
            held.next();
        } else {
            own.next();
        }
    }
    common
}

/// Whether two areas at the same place differ in nothing but their permissions and their pages.
fn fits(from: &Area, to: &Area) -> bool {
    let origin = |area: &Area| match area.backing {
        Backing::Anonymous => None,
        Backing::File { id, access, offset } => {
            Some((id, access, offset.wrapping_sub(area.range.start)))
        }
    };
    is_inherited(from)
        && is_inherited(to)
        && from.flags == to.flags
        && from.advice == to.advice
        && origin(from) == origin(to)
}

/// Whether children have the pages of an area after a `fork(2)`, and it has any.
fn is_inherited(area: &Area) -> bool {
    area.filled
        && area.flags & map::PRIVATE != 0
        && area.flags & map::HUGETLB == 0
        && area.advice & NOT_INHERITED == 0
}
