//! Whoever begins a pid namespace, and all above: born before there are any files, with the descriptors of this process.

use std::os::fd::AsRawFd;

use gelid_sys::clone::flags;
use gelid_sys::syscall::nr;

use super::{Birth, Births};
use crate::Error;
use crate::files::Mounted;
use crate::plan::Plan;
use crate::plan::births::{Step, Who};
use crate::play::crew::Crew;
use crate::play::namespaces::below;
use crate::play::namespaces::further::Made;
use crate::play::script::{Object, Script};

/// Bears them. The root is there.
pub(crate) fn bear(
    plan: &Plan,
    further: &mut Made,
    base: i32,
    crew: &mut Crew,
) -> Result<(), Error> {
    if !plan.births.is_nested() {
        return Ok(());
    }
    let mut wave = vec![Who::Task(0)];
    while !wave.is_empty() {
        let bears = |who: &&Who| !plan.births.early_steps(**who).is_empty();
        let bearing: Vec<Who> = wave.iter().filter(bears).copied().collect();
        further.leave_clocks(plan, &bearing, crew)?;
        let mut births = Births {
            plan,
            files: None,
            mounted: None,
            further,
            crew,
        };
        wave = births.next(&wave, Birth::early_steps)?;
        for who in &wave {
            below::take(plan, *who, further, base, crew)?;
        }
    }
    Ok(())
}

/// Lets all that are born have descriptors of their own.
pub(crate) fn part(crew: &mut Crew) -> Result<(), Error> {
    for_all(crew, |_| {
        let mut script = Script::default();
        script.must(Object::Itself, nr::unshare, [flags::FILES.into()]);
        script
    })
}

/// Lets all but the root, which is there, enter the root directory of their new mounts.
pub(crate) fn enter_root(mounted: &Mounted, crew: &mut Crew) -> Result<(), Error> {
    let Some(root) = mounted.roots.first() else {
        return Ok(());
    };
    let root = root.as_raw_fd();
    for_all(crew, |_| {
        let mut script = Script::default();
        script.must(Object::Itself, nr::fchdir, [root.into()]);
        let here = script.bytes(b".\0");
        script.must(Object::Itself, nr::chroot, [here.into()]);
        script
    })
}

fn for_all(crew: &mut Crew, script: impl Fn(Who) -> Script) -> Result<(), Error> {
    let all: Vec<Who> = crew.bodies.keys().copied().collect();
    let work: Vec<_> = all.into_iter().map(|who| (who, script(who))).collect();
    crew.play(&work).map(drop)
}

impl Births<'_> {
    /// All that have been born early are there to go on; their sessions take their terminals.
    pub(super) fn begin(&mut self) -> Result<Vec<Who>, Error> {
        let mut wave: Vec<Who> = self.crew.bodies.keys().copied().collect();
        wave.sort_unstable();
        if !self.plan.births.is_nested() {
            return Ok(wave);
        }
        let mut work = Vec::new();
        for who in &wave {
            let steps = self.plan.births.early_steps(*who);
            if steps.contains(&Step::SetSid) {
                let mut script = Script::default();
                self.take_terminal(*who, &mut script);
                work.push((*who, script));
            }
        }
        self.crew.play(&work)?;
        Ok(wave)
    }
}
