//! Leave to fill the holes of a task's mappings: of many small ones at once, of large ones where huge pages turn out to be
//! slow to get.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::slice;

use gelid_pages::{FillRequest, HoleMappings, PAGE_SIZE, ProcessTarget};
use gelid_sys::syscall::nr;
use gelid_sys::userfaultfd::{FLAGS, Holes};
use gelid_sys::{Pid, pidfd};

use super::crew::Crew;
use super::inheritance::When;
use super::script::{Object, Script};
use super::space::Many;
use crate::Error;
use crate::plan::births::Who;
use crate::plan::inheritance::Inheritance;
use crate::plan::ranges::{meet, without};
use crate::plan::space::{Space, TASK_SIZE};
use crate::plan::{Life, Plan};

/// Bytes to be filled below which two more tapes are not worth it.
const FEWEST: u64 = 32 << 20;
/// Mappings smaller than this have no huge pages.
const SMALLEST: u64 = 2 << 20;
/// Registered mappings at most: each costs a system call.
const MOST: usize = 256;
const PROT_WRITE: u32 = 2;

/// The target of `request`, the only one then for a task that has just made what is filled; `None` if it stays as it is.
pub(crate) fn target(
    plan: &Plan,
    (index, when): (usize, When),
    request: &FillRequest,
    (zone, many): (&Range<u64>, Option<&Many>),
    crew: &mut Crew,
) -> Result<Option<ProcessTarget>, Error> {
    let Life::Alive(alive) = &plan.lives[index] else {
        return Ok(None);
    };
    if !alive.builds {
        return Ok(None);
    }
    let fresh = fresh(&plan.inheritance[index], when);
    let mut huge = mappings(&plan.spaces[alive.space], zone);
    huge.retain(|range| without(slice::from_ref(range), &fresh).is_empty());
    if !is_worth_it(request, &huge) {
        huge.clear();
    }
    if huge.is_empty() && many.is_none() {
        return Ok(None);
    }
    let who = Who::Task(index);
    let pid = crew.body(who)?.pid;
    let Some(fd) = open(who, pid, crew)? else {
        return Ok(None);
    };
    let Ok(holes) = Holes::of(fd) else {
        return Ok(None);
    };
    let mut registered = Vec::new();
    if let Some(many) = many {
        // Before they are told apart, it is one call for all that were mapped by one.
        if many
            .mapped
            .iter()
            .any(|range| holes.register(range).is_err())
        {
            return Ok(None);
        }
        registered = many.ranges();
    }
    let mappings = HoleMappings {
        holes,
        registered,
        huge,
    };
    Ok(Some(ProcessTarget::with_holes(pid, mappings)))
}

/// Where a task that got nothing at its birth has made mappings that nobody else knows of yet.
fn fresh(inheritance: &Inheritance, when: When) -> Vec<Range<u64>> {
    let born_bare = inheritance.kept.is_empty() && inheritance.equal.is_empty();
    match when {
        _ if !born_bare => Vec::new(),
        When::Early => inheritance.early.clone(),
        When::Late if inheritance.is_early => Vec::new(),
        When::Late => vec![0..TASK_SIZE],
    }
}

/// What the kernel would let anybody fill, and where nobody but the filler is at.
fn mappings(space: &Space, zone: &Range<u64>) -> Vec<Range<u64>> {
    let writable = |range: &Range<u64>| {
        let at = space
            .areas
            .partition_point(|area| area.range.end <= range.start);
        space
            .areas
            .get(at)
            .is_some_and(|area| area.prot & PROT_WRITE != 0)
    };
    let beside = |range: &Range<u64>| range.end <= zone.start || zone.end <= range.start;
    let large = |range: &Range<u64>| range.end - range.start >= SMALLEST;
    let ranges = space.huge_ranges().into_iter();
    ranges
        .filter(|range| large(range) && beside(range) && writable(range))
        .take(MOST)
        .collect()
}

fn is_worth_it(request: &FillRequest, mappings: &[Range<u64>]) -> bool {
    let pages = PAGE_SIZE as u64;
    let mut placed: Vec<Range<u64>> = request
        .placements
        .iter()
        .map(|place| place.vaddr..place.vaddr + place.nr_pages * pages)
        .collect();
    placed.sort_by_key(|range| range.start);
    let bytes = meet(&placed, mappings).map(|(common, ..)| common.end - common.start);
    bytes.sum::<u64>() >= FEWEST
}

/// Has the task make the descriptor and takes it over; `None` if it may not, or has no place for one.
fn open(who: Who, pid: Pid, crew: &mut Crew) -> Result<Option<OwnedFd>, Error> {
    let mut script = Script::default();
    let op = script.call(nr::userfaultfd, [FLAGS.into()]);
    let outcomes = crew.play(&[(who, script)])?;
    let number = outcomes.first().and_then(|outcome| outcome.ok(op).ok());
    let Some(number) = number.and_then(|number| i32::try_from(number).ok()) else {
        return Ok(None);
    };
    let taken = pidfd::open(pid).and_then(|task| pidfd::getfd(task, number));
    let mut script = Script::default();
    script.must(Object::Descriptor(number), nr::close, [number.into()]);
    crew.play(&[(who, script)])?;
    Ok(taken.ok())
}
