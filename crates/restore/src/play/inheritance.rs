//! What tasks do with the memory that they are born with, and what they make for those who are born of them.

use std::ops::Range;
use std::sync::Arc;

use gelid_pages::{FillRequest, Filler, Filling, ProcessTarget};
use gelid_sys::Pid;
use gelid_sys::syscall::nr;

use super::cgroup::Groups;
use super::crew::Crew;
use super::namespaces::further::Made;
use super::script::{Object, Reel};
use super::sources::Sources;
use super::space::{Many, Multitudes, Parting};
use super::{holes, space};
use crate::files::{Mounted, OpenFiles};
use crate::plan::births::Who;
use crate::plan::inheritance::Inheritance;
use crate::plan::pagemap::{by_owner, contents};
use crate::plan::ranges::{both, meet, without};
use crate::plan::space::{Space, TASK_SIZE};
use crate::plan::{Life, Plan};
use crate::{Error, pages};

const MADV_DONTNEED: u64 = 4;

/// Makes and fills, wave by wave, what children are to be born with.
pub(crate) struct Bequest<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) zone: &'a Range<u64>,
    pub(crate) files: &'a OpenFiles,
    /// Mount namespaces for them to join.
    pub(crate) mounted: Option<&'a Mounted>,
    /// Other namespaces for them to join.
    pub(crate) further: &'a Made,
    pub(crate) sources: &'a Sources<'a>,
    pub(crate) filler: &'a Filler,
    /// Cgroups for them to enter.
    pub(crate) groups: &'a Groups,
    /// Pages put in place so far.
    pub(crate) pages: u64,
}

impl Bequest<'_> {
    /// Does it for tasks that are born, before their children are.
    pub(crate) fn make(&mut self, wave: &[Who], crew: &mut Crew) -> Result<(), Error> {
        let mut reels = Vec::new();
        let mut made = Vec::new();
        for who in wave {
            let Who::Task(index) = *who else { continue };
            let inheritance = &self.plan.inheritance[index];
            let Some(space) = built_by(self.plan, index).filter(|_| inheritance.is_early) else {
                continue;
            };
            let body = crew.body(*who)?;
            let mut reel = Reel::new(body.carrier.room());
            settle(&mut reel, inheritance);
            space::areas(&mut reel, space, self.zone, &inheritance.early, self.files)?;
            reels.push((*who, reel.into_scripts()));
            made.push((index, body.pid));
        }
        crew.play_reels(reels)?;
        let mut fillings = Vec::new();
        for (index, pid) in made {
            let (at, place) = ((index, When::Early), (pid, self.zone));
            for request in requests(self.plan, self.sources, at, place, None, crew)? {
                fillings.push(self.filler.fill(request)?);
            }
        }
        for filling in fillings {
            self.pages += filling.wait()?.pages;
        }
        Ok(())
    }
}

/// Starts filling all address spaces.
pub(crate) fn fill(
    plan: &Plan,
    (sources, mut multitudes): (&Sources<'_>, Multitudes),
    zone: &Range<u64>,
    crew: &mut Crew,
    filler: &Filler,
) -> Result<Vec<Filling>, Error> {
    let mut filling = Vec::new();
    for index in 0..plan.lives.len() {
        let Some(body) = crew.bodies.get(&Who::Task(index)) else {
            continue;
        };
        let (at, place) = ((index, When::Late), (body.pid, zone));
        let many = multitudes.remove(&index);
        let requests = requests(plan, sources, at, place, many.as_ref(), crew)?;
        let Some(mut parting) = many.map(Parting::of) else {
            for request in requests {
                filling.push(filler.fill(request)?);
            }
            continue;
        };
        let who = Who::Task(index);
        for request in requests {
            let ready = |end| parting.below(end, who, crew);
            filling.push(filler.fill_behind(request, ready)?);
        }
        parting.below(u64::MAX, who, crew)?;
    }
    Ok(filling)
}

/// Appends what makes of inherited memory what belongs to the task.
pub(crate) fn settle(reel: &mut Reel, inheritance: &Inheritance) {
    let len = |range: &Range<u64>| (range.end - range.start).into();
    for range in &inheritance.unmapped {
        let args = [range.start.into(), len(range)];
        reel.must(Object::Area(range.start), nr::munmap, args);
    }
    for range in &inheritance.dropped {
        let args = [range.start.into(), len(range), MADV_DONTNEED.into()];
        reel.must(Object::Area(range.start), nr::madvise, args);
    }
    for (range, prot) in &inheritance.protected {
        let args = [range.start.into(), len(range), u64::from(*prot).into()];
        reel.must(Object::Area(range.start), nr::mprotect, args);
    }
}

/// What of its own areas a task has yet to make.
pub(crate) fn missing(inheritance: &Inheritance) -> Vec<Range<u64>> {
    without(&[0..TASK_SIZE], &inheritance.there())
}

/// When pages are put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the children are born: those that they may get.
    Early,
    /// When all are born: the rest.
    Late,
}

/// The pages that a task, the process `pid` with this zone, is to have: one request for each address space whose images
/// hold some. `many` of its areas have yet to be told apart.
pub(crate) fn requests(
    plan: &Plan,
    sources: &Sources<'_>,
    (index, when): (usize, When),
    (pid, zone): (Pid, &Range<u64>),
    many: Option<&Many>,
    crew: &mut Crew,
) -> Result<Vec<FillRequest>, Error> {
    let Some((number, space)) = space_of(plan, index).map(|at| (at, &plan.spaces[at])) else {
        return Ok(Vec::new());
    };
    let inheritance = &plan.inheritance[index];
    let wanted = match when {
        When::Early => inheritance.there(),
        When::Late if inheritance.is_early => missing(inheritance),
        When::Late => vec![0..TASK_SIZE],
    };
    let missing = without(&wanted, &inheritance.equal);
    // What is collapsed is shared no more.
    let huge = both(&without(&space.huge_ranges(), &inheritance.kept), &wanted);
    let compared = both(&inheritance.compared, &wanted);
    // The kernel's code has been put in place.
    let code = space.vdso.as_ref().map(|vdso| vdso.code.clone());
    let missing = without(&missing, code.as_slice());
    let request = |(owner, pages): (usize, Vec<(Range<u64>, u64)>)| {
        let wanted = meet(&pages, &missing).map(|(range, (_, shift), _)| (range, *shift));
        let placements = pages::placements(&plan.spaces[owner].pagemap.placements, wanted);
        if placements.is_empty() {
            return Ok(None);
        }
        Ok(Some(FillRequest {
            reader: sources.of(plan, owner)?,
            target: Arc::new(ProcessTarget::new(pid)),
            placements,
            huge: huge.clone(),
            compared: compared.clone(),
        }))
    };
    let owners = by_owner(contents(&plan.spaces, number));
    let requests = owners
        .into_iter()
        .filter_map(|owner| request(owner).transpose());
    let mut requests: Vec<_> = requests.collect::<Result<_, Error>>()?;
    if let [only] = &mut requests[..]
        && let Some(target) = holes::target(plan, (index, when), only, (zone, many), crew)?
    {
        only.target = Arc::new(target);
    }
    Ok(requests)
}

fn built_by(plan: &Plan, index: usize) -> Option<&Space> {
    Some(&plan.spaces[space_of(plan, index)?])
}

/// The number of the address space that a task builds.
fn space_of(plan: &Plan, index: usize) -> Option<usize> {
    match &plan.lives[index] {
        Life::Alive(alive) if alive.builds => Some(alive.space),
        _ => None,
    }
}
