//! `core-*.img`: records of threads get what is seen elsewhere, and are written.
//!
//! Those of threads that are not the first of their process are written while others still play their tapes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use gelid_image::ImageKind;
use gelid_image::messages::CoreEntry;
use gelid_pages::StoreError;
use gelid_sys::Pid;

use crate::Error;
use crate::apart::Apart;
use crate::cgroup::{Groups, Standings};
use crate::core::Cores;
use crate::namespace::Census;
use crate::records::Context;
use crate::survey::Task;

/// What the thread that looks at files finds out about threads before it begins with these.
pub(crate) struct FoundOut {
    pub(crate) standings: Receiver<Standings>,
    pub(crate) apart: Receiver<Arc<Vec<Apart>>>,
}

/// The images of all threads, in the making.
pub(crate) struct CoreImages<'a> {
    context: Context<'a>,
    census: &'a Census,
    found_out: FoundOut,
    known: Option<Known<'a>>,
    failed: Option<Error>,
}

struct Known<'a> {
    groups: Groups<'a>,
    /// The threads that have something of their own.
    apart: HashMap<Pid, Apart>,
}

impl<'a> CoreImages<'a> {
    pub(crate) fn new(context: Context<'a>, census: &'a Census, found_out: FoundOut) -> Self {
        Self {
            context,
            census,
            found_out,
            known: None,
            failed: None,
        }
    }

    /// Writes a thread whose record lacks nothing else. [`finish`](Self::finish) tells if that fails.
    pub(crate) fn write(&mut self, task: &Task, tid: Pid, mut core: Box<CoreEntry>) {
        if self.failed.is_none() {
            let complete = self.complete(task, tid, &mut core);
            let written = complete.and_then(|()| put(self.context, self.census, (tid, &core)));
            self.failed = written.err();
        }
    }

    /// Writes all others. `Stopped` if the thread that looks at files has failed, which knows why.
    pub(crate) fn finish(mut self, tasks: &[Task], cores: &mut [Cores]) -> Result<(), Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let live = tasks.iter().filter(|task| task.live.is_some());
        for (task, cores) in live.zip(&mut *cores) {
            // One that has ended is shown in the root of its hierarchies.
            self.complete(task, task.living, &mut cores.leader)?;
            for (tid, core) in &mut cores.threads {
                self.complete(task, *tid, core)?;
            }
        }
        let staging = self.context.staging;
        self.known()?.groups.write(staging)?;
        // What could still be refused about threads has been looked at.
        staging.name_early();
        let mut all: Vec<(Pid, &CoreEntry)> = Vec::new();
        for cores in cores {
            all.push((cores.pid, &cores.leader));
            all.extend(cores.threads.iter().map(|(tid, core)| (*tid, &**core)));
        }
        let write = |part: &[(Pid, &CoreEntry)]| {
            let mut all = part.iter();
            all.try_for_each(|core| put(self.context, self.census, *core))
        };
        // Two at a time if there are many.
        let written = gelid_image::shared_out("cores", &all, write);
        written.into_iter().collect()
    }

    /// Tells a thread where it stands, and what it has of its own.
    fn complete(&mut self, task: &Task, tid: Pid, core: &mut CoreEntry) -> Result<(), Error> {
        let known = self.known()?;
        known.groups.assign(task, tid, core)?;
        if let Some(apart) = known.apart.get(&tid) {
            apart.note(core);
        }
        Ok(())
    }

    fn known(&mut self) -> Result<&mut Known<'a>, Error> {
        if self.known.is_none() {
            let FoundOut { standings, apart } = &self.found_out;
            let standings = standings.recv().map_err(|_| StoreError::Stopped)?;
            let apart = apart.recv().map_err(|_| StoreError::Stopped)?;
            let groups = &self.context.options.cgroups;
            self.known = Some(Known {
                groups: Groups::new(groups, self.census, standings)?,
                apart: apart.iter().map(|it| (it.tid, it.clone())).collect(),
            });
        }
        self.known.as_mut().ok_or(StoreError::Stopped.into())
    }
}

fn put(context: Context<'_>, census: &Census, (tid, core): (Pid, &CoreEntry)) -> Result<(), Error> {
    let number = census.numbers.number(tid.as_raw_pid());
    Ok(context.staging.put(ImageKind::Core, number, core)?)
}
