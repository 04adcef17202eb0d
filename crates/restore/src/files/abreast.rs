//! What two threads open, if it is much.

use gelid_sys::sched;

use super::open::Opener;
use super::{Error, FilesPlan, Kind, Remap, fifo, pipe, regular};

/// Opens what has a path, and makes pipes: a thread of its own if both are many.
pub(super) fn open_paths(opener: &mut Opener<'_>) -> Result<pipe::Made, Error> {
    let plan = opener.plan;
    let paths = |opener: &mut Opener<'_>| {
        regular::open_all(opener)?;
        fifo::open_all(opener)
    };
    if !plan.is_worth_sharing() || opener.crowded {
        paths(opener)?;
        return pipe::make_all(plan);
    }
    std::thread::scope(|scope| {
        let beside = sched::beside(scope, "pipes", || pipe::make_all(plan));
        let opened = paths(opener);
        let made = beside.map(|beside| {
            let made = beside.join();
            made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        opened?;
        // If there can be no other thread, this one does it all.
        made.unwrap_or_else(|_| pipe::make_all(plan))
    })
}

impl FilesPlan {
    /// Whether pipes are made by one thread while another opens what has a path. Whoever is born meanwhile, in place of a
    /// process that has ended, would have some of them open.
    fn is_worth_sharing(&self) -> bool {
        /// As many a thread has done before there is another.
        const FEW: usize = 256;
        let (mut paths, mut pipes) = (0, 0);
        for description in self.descriptions.values() {
            match &description.kind {
                Kind::Regular(file) => match file.remap {
                    Some(Remap::Process(_)) => return false,
                    _ => paths += 1,
                },
                Kind::Pipe(_) => pipes += 1,
                _ => {}
            }
        }
        paths > FEW && pipes > FEW
    }
}
