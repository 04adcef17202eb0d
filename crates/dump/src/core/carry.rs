//! Plays one tape in every thread of a tree: all address spaces at the same time, and as many threads of each
//! as there is room for.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use gelid_seize::Tree;
use gelid_sys::ptrace::{Dispatch, Stopped};
use gelid_tape::{Carrier, Ground, Host, Identity, Outcome, Saved, Tape};

use super::{Error, locking};

/// Most room that is mapped for tapes in an address space.
const ROOM_MAX: usize = 128 << 10;

/// Which thread plays which tape.
#[derive(Debug)]
pub(super) struct Job {
    /// Index of the process in the tree, and of the thread in it.
    pub(super) place: (usize, usize),
    pub(super) identity: Identity,
    pub(super) tape: Arc<Tape>,
}

/// The threads of an address space, of one process or several.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) ground: Ground,
    /// The first one comes first and goes last.
    pub(super) jobs: VecDeque<Job>,
}

/// A tape that was played, and where its thread stands.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) place: (usize, usize),
    pub(super) saved: Saved,
    /// How its system calls are diverted, if they are.
    pub(super) dispatch: Option<Dispatch>,
    pub(super) outcome: Outcome,
    /// Flags of `mlockall(2)` in force, by the first thread of an address space.
    pub(super) locking: Option<u32>,
    /// Memory of the program's own that was used, by the same thread.
    pub(super) lent: Vec<Range<u64>>,
}

/// Plays all tapes, and shows each that was played; those of an address space are shown in order. Whatever happens,
/// every thread is back in the tree as it was, unless it is gone.
pub(super) fn play(
    tree: &mut Tree,
    spaces: Vec<Space>,
    mut show: impl FnMut(Played),
) -> Result<(), Error> {
    let mut stage = Stage {
        tree,
        sites: Vec::with_capacity(spaces.len()),
        show: &mut show,
    };
    let done = stage.enter(spaces).and_then(|()| stage.rounds());
    let left = stage.leave();
    done.and(left)
}

/// A host and who is there.
#[derive(Debug)]
struct Site {
    host: Host,
    /// Whose tape gave the host its room.
    first: Option<(Carrier, Job)>,
    /// Flags of `mlockall(2)` in force.
    locking: Option<u32>,
    /// What the host uses of the program's memory.
    lent: Vec<Range<u64>>,
    /// In the room beside the first.
    aboard: Vec<(Carrier, Job)>,
    waiting: VecDeque<Job>,
    /// Where the room of the first ends.
    mark: u64,
}

struct Stage<'a> {
    tree: &'a mut Tree,
    sites: Vec<Site>,
    show: &'a mut dyn FnMut(Played),
}

impl Stage<'_> {
    /// Puts a stub into each address space.
    fn enter(&mut self, spaces: Vec<Space>) -> Result<(), Error> {
        for mut space in spaces {
            let Some(job) = space.jobs.pop_front() else {
                continue;
            };
            let all: usize = space.jobs.iter().map(|job| region(&job.tape)).sum();
            let one = space.jobs.iter().map(|job| region(&job.tape)).max();
            let room = region(&job.tape) + all.min(ROOM_MAX).max(one.unwrap_or(0)) + region_slack();
            let task = self.take(job.place)?;
            let tid = task.pid();
            match Host::seized(task, job.identity, &space.ground, room, job.tape.size()) {
                Ok((host, carrier)) => self.sites.push(Site {
                    locking: host.mapped().and_then(|room| locking::look(tid, room)),
                    mark: host.mark(),
                    lent: host.lent(),
                    host,
                    first: Some((carrier, job)),
                    aboard: Vec::new(),
                    waiting: space.jobs,
                }),
                Err((source, task)) => {
                    self.put(job.place, task);
                    return Err(Error::Tape { tid, source });
                }
            }
        }
        Ok(())
    }

    fn rounds(&mut self) -> Result<(), Error> {
        self.round(true)?;
        while self.sites.iter().any(|site| !site.waiting.is_empty()) {
            self.round(false)?;
        }
        Ok(())
    }

    /// Starts as many tapes as there is room for, then waits for all of them.
    fn round(&mut self, is_first: bool) -> Result<(), Error> {
        let mut begun = Ok(());
        for index in 0..self.sites.len() {
            begun = begun.and_then(|()| self.begin(index, is_first));
        }
        // What has begun has to end, even if something has failed.
        let mut ended = Ok(());
        for index in 0..self.sites.len() {
            ended = ended.and(self.end(index, is_first));
        }
        begun.and(ended)
    }

    fn begin(&mut self, index: usize, is_first: bool) -> Result<(), Error> {
        if is_first && let Some((carrier, job)) = &mut self.sites[index].first {
            start(carrier, &job.tape)?;
        }
        loop {
            let site = &mut self.sites[index];
            let left = site.host.left();
            let fits = |job: &Job| job.tape.size() <= left;
            if !site.waiting.front().is_some_and(fits) {
                return Ok(());
            }
            let Some(job) = site.waiting.pop_front() else {
                return Ok(());
            };
            let task = self.take(job.place)?;
            let tid = task.pid();
            let site = &mut self.sites[index];
            match site.host.board(task, job.identity, job.tape.size()) {
                Ok(mut carrier) => {
                    let started = start(&mut carrier, &job.tape);
                    site.aboard.push((carrier, job));
                    started?;
                }
                Err((source, task)) => {
                    self.put(job.place, task);
                    return Err(Error::Tape { tid, source });
                }
            }
        }
    }

    fn end(&mut self, index: usize, is_first: bool) -> Result<(), Error> {
        let mut ended = Ok(());
        let site = &mut self.sites[index];
        if is_first && let Some((carrier, job)) = &mut site.first {
            let (locking, lent) = (site.locking, std::mem::take(&mut site.lent));
            ended = ended.and(finish(carrier, job).map(|played| {
                (self.show)(Played {
                    locking,
                    lent,
                    ..played
                });
            }));
        }
        let aboard = std::mem::take(&mut site.aboard);
        let before = aboard.len();
        for (mut carrier, job) in aboard {
            ended = ended.and(finish(&mut carrier, &job).map(|played| (self.show)(played)));
            ended = ended.and(self.release(carrier, &job));
        }
        let site = &mut self.sites[index];
        site.host.reset(site.mark);
        if before == 0
            && !is_first
            && let Some(job) = site.waiting.pop_front()
        {
            // It fits into an empty room, or else there is none.
            let (tid, size) = (self.tree.processes()[job.place.0].pid, job.tape.size());
            let room = self.sites[index].host.left();
            let source = gelid_tape::Error::TooLong { tid, size, room };
            return ended.and(Err(Error::Tape { tid, source }));
        }
        ended
    }

    /// Takes everything of ours out of all address spaces.
    fn leave(&mut self) -> Result<(), Error> {
        let mut left = Ok(());
        for site in std::mem::take(&mut self.sites) {
            for (carrier, job) in site.aboard {
                left = left.and(self.release(carrier, &job));
            }
            if let Some((carrier, job)) = site.first {
                let tid = carrier.tid();
                let (task, this) = match site.host.leave(carrier) {
                    Ok(task) => (Some(task), Ok(())),
                    Err((source, task)) => (task, Err(Error::Tape { tid, source })),
                };
                self.put(job.place, task);
                left = left.and(this);
            }
        }
        left
    }

    fn release(&mut self, carrier: Carrier, job: &Job) -> Result<(), Error> {
        let tid = carrier.tid();
        let (task, released) = match carrier.release() {
            Ok(task) => (Some(task), Ok(())),
            Err((source, task)) => (task, Err(Error::Tape { tid, source })),
        };
        self.put(job.place, task);
        released
    }

    fn take(&mut self, (process, thread): (usize, usize)) -> Result<Stopped, Error> {
        let thread = &mut self.tree.processes_mut()[process].threads[thread];
        thread.take().ok_or(Error::Gone { tid: thread.tid })
    }

    fn put(&mut self, (process, thread): (usize, usize), task: Option<Stopped>) {
        if let Some(task) = task {
            self.tree.processes_mut()[process].threads[thread].put(task);
        }
    }
}

fn region(tape: &Tape) -> usize {
    Host::region_size(tape.size())
}

/// What the host wants to be left over.
fn region_slack() -> usize {
    Host::region_size(16)
}

fn start(carrier: &mut Carrier, tape: &Tape) -> Result<(), Error> {
    let tid = carrier.tid();
    carrier
        .start(tape)
        .map_err(|source| Error::Tape { tid, source })
}

fn finish(carrier: &mut Carrier, job: &Job) -> Result<Played, Error> {
    let tid = carrier.tid();
    let outcome = carrier
        .finish()
        .map_err(|source| Error::Tape { tid, source })?;
    Ok(Played {
        place: job.place,
        saved: *carrier.saved(),
        dispatch: carrier.dispatch(),
        outcome,
        locking: None,
        lent: Vec::new(),
    })
}
