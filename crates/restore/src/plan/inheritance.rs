//! Memory that tasks get from whoever creates them, so that pages which were shared after a `fork(2)` are shared
//! again.
//!
//! A task whose children had areas like its own makes those before the children are born. A child keeps what fits,
//! with the pages that are equal in its own image, and gives the rest back. What is kept and what is not follows from
//! the areas alone; which pages are equal is seen when they are filled.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use super::Life;
use super::births::{Births, Step, Who};
use super::pagemap::{Source, contents};
use super::ranges::{Ranged, both, meet, without};
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
    /// Where pages are, each with the images that hold them; ascending.
    pages: Vec<(Range<u64>, Source)>,
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
        // Whoever is born before there is anything gets nothing.
        let early = planner.early_children(who);
        born.extend(early.map(|child| (child, Rc::new(Held::default()))));
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
        let whole = |held: &Held| held.areas.iter().map(Area::range).collect::<Vec<_>>();
        let mut own = Inheritance::default();
        let Some((number, space)) = self.space(index) else {
            // A guest leaves all to the one who builds its address space.
            if (self.is_shared)(index) {
                own.unmapped = whole(held);
            }
            return (own, None);
        };
        for (range, from, to) in common(&held.areas, &space.areas) {
            if from.prot != to.prot {
                own.protected.push((range.clone(), to.prot));
            }
            own.kept.push(range);
        }
        own.unmapped = without(&whole(held), &own.kept);
        let pages = contents(self.spaces, number);
        let all = ranges(&pages);
        let found = both(&ranges(&held.pages), &own.kept);
        own.dropped = without(&found, &all);
        own.equal = both(&equal(&held.pages, &pages), &own.kept);
        own.compared = without(&both(&found, &all), &own.equal);
        let wanted = wanted(&space.areas, &self.heirs(Who::Task(index)));
        if wanted.is_empty() {
            return (own, None);
        }
        own.early = without(&wanted, &own.kept);
        own.is_early = true;
        let there = own.there();
        let areas = meet(&space.areas, &there).map(|(range, area, _)| area.part(range));
        let pages = meet(&pages, &there).map(|(range, (_, source), _)| (range, *source));
        let left = Held {
            areas: areas.collect(),
            pages: pages.collect(),
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

    /// Those who can inherit.
    fn children(&self, who: Who) -> impl Iterator<Item = Who> + use<'a> {
        born_by(self.births.late_steps(who))
    }

    fn early_children(&self, who: Who) -> impl Iterator<Item = Who> + use<'a> {
        born_by(self.births.early_steps(who))
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

/// The areas that an heir can keep.
fn wanted(areas: &[Area], heirs: &[&Space]) -> Vec<Range<u64>> {
    let mut left = areas.iter().filter(|area| is_inherited(area)).count();
    let mut is_wanted = vec![false; areas.len()];
    for heir in heirs {
        // Mostly the first wants all that there is.
        if left == 0 {
            break;
        }
        for (_, area, _) in common(areas, &heir.areas) {
            let at = areas.partition_point(|other| other.range.start < area.range.start);
            left -= usize::from(!std::mem::replace(&mut is_wanted[at], true));
        }
    }
    let all = areas.iter().zip(is_wanted);
    all.filter(|(_, is_wanted)| *is_wanted)
        .map(|(area, _)| area.range())
        .collect()
}

fn born_by(steps: &[Step]) -> impl Iterator<Item = Who> + use<'_> {
    steps.iter().filter_map(|step| match step {
        Step::Fork { child, .. } => Some(*child),
        Step::SetSid => None,
    })
}

fn ranges(pages: &[(Range<u64>, Source)]) -> Vec<Range<u64>> {
    pages.iter().map(Ranged::range).collect()
}

/// Where both have the same pages of the same images.
fn equal(one: &[(Range<u64>, Source)], other: &[(Range<u64>, Source)]) -> Vec<Range<u64>> {
    let equal = meet(one, other).filter(|(_, (_, source), (_, others))| source == others);
    equal.map(|(range, ..)| range).collect()
}

/// Where an area of the second list can be one of the first: the range, and both.
fn common<'a>(
    held: &'a [Area],
    own: &'a [Area],
) -> impl Iterator<Item = (Range<u64>, &'a Area, &'a Area)> {
    meet(held, own).filter(|(_, from, to)| fits(from, to))
}

/// Whether two areas at the same place differ in nothing but their permissions and their pages.
fn fits(from: &Area, to: &Area) -> bool {
    let origin = |area: &Area| match area.backing {
        Backing::Anonymous | Backing::Segment { .. } => None,
        Backing::File { id, access, offset } => {
            Some((id, access, offset.wrapping_sub(area.range.start)))
        }
    };
    is_inherited(from)
        && is_inherited(to)
        && from.flags == to.flags
        && from.advice == to.advice
        && from.name == to.name
        && origin(from) == origin(to)
}

/// Whether children have the pages of an area after a `fork(2)`, and it has any.
fn is_inherited(area: &Area) -> bool {
    area.filled
        && area.flags & map::PRIVATE != 0
        && area.flags & map::HUGETLB == 0
        && area.advice & NOT_INHERITED == 0
}
