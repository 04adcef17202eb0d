//! A dump from its first phase to its last.

use std::time::{Duration, Instant};

use gelid_image::{Dir, Staging, manifest};
use gelid_pages::Store;
use gelid_seize::Tree;
use rustix::fs::AtFlags;

use crate::core::{self, Cores};
use crate::files::{Collected, Collector, Links};
use crate::ids::Namespaces;
use crate::pages::{Flow, Sink, Stored};
use crate::phase::Phases;
use crate::records::Records;
use crate::survey::{self, Task};
use crate::{End, Error, Options, Outcome, Phase, account, shared};

/// Goes through all phases.
pub(crate) fn run(options: &Options) -> Result<Outcome, Error> {
    let started = Instant::now();
    let phases = Phases::new(options.fault);
    // What can fail without the tree comes before the tree is touched.
    let namespaces = Namespaces::own()?;
    survey::root(options, &namespaces)?;
    let staging = Staging::new(&options.images)?;
    let store = Store::start(options.pages)?;
    let sink = Sink::new(store, options.pages.format, &staging);

    let mut tree = phases.run(Phase::Freeze, || freeze(options))?;
    let tasks = phases.run(Phase::Tree, || survey::tree(&tree, options, &namespaces))?;
    let observed = observe(&mut tree, &tasks, &staging, sink, options, phases)?;
    let mut outcome = account::outcome(&tree, &tasks, &observed);
    let tree = hold(tree, options.end, &mut outcome)?;
    let links = phases.run(Phase::Write, || {
        observed.write(&staging, &tasks, &namespaces)
    })?;
    phases.run(Phase::Commit, || Ok(staging.commit()?))?;
    let ended = phases.run(Phase::Finish, || finish(tree, options.end, &mut outcome));
    if let Err(Error::Fault { .. }) = ended {
        withdraw(&options.images);
    }
    ended?;
    if options.end == End::Kill {
        // A restore needs them; of a tree that lives on nothing of ours stays.
        links.keep();
    }
    outcome.elapsed = started.elapsed();
    Ok(outcome)
}

fn freeze(options: &Options) -> Result<Tree, Error> {
    let freezer = gelid_seize::Options {
        root: options.tree,
        timeout: options.timeout,
        freeze_cgroup: options.freeze_cgroup.clone(),
    };
    Ok(gelid_seize::freeze(&freezer)?)
}

/// All that is known when nothing more is wanted of the tree.
pub(crate) struct Observed {
    pub(crate) cores: Vec<Cores>,
    pub(crate) records: Records,
    /// Names given to files that have lost theirs.
    pub(crate) links: Links,
    /// Memory of tasks and shared objects.
    pub(crate) pages: Vec<Stored>,
    /// From the first page queued until all were.
    pub(crate) queuing: Duration,
    /// From then on until all were written.
    pub(crate) writing: Duration,
}

impl Observed {
    fn write(
        self,
        staging: &Staging,
        tasks: &[Task],
        namespaces: &Namespaces,
    ) -> Result<Links, Error> {
        for stored in &self.pages {
            stored.write(staging)?;
        }
        self.records
            .write(staging, tasks, &self.cores, &self.pages, namespaces)?;
        Ok(self.links)
    }
}

/// Collects tasks, files and pages, the latter beside the former.
fn observe(
    tree: &mut Tree,
    tasks: &[Task],
    staging: &Staging,
    sink: Sink<'_>,
    options: &Options,
    phases: Phases,
) -> Result<Observed, Error> {
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let flow = phases.run(Phase::Memory, || Flow::start(scope, sink, tasks))?;
        let cores = phases.run(Phase::Tasks, || Ok(core::collect(tree, tasks)?))?;
        let (records, Collected { memory, links }) = phases.run(Phase::Files, || {
            let mut files = Collector::new(options, staging)?;
            let records = Records::collect(tasks, &cores, &mut files)?;
            Ok((records, files.finish()?))
        })?;
        phases.run(Phase::Pages, || {
            let (mut sink, mut queued) = flow.finish()?;
            queued.extend(shared::queue(&mut sink, memory)?);
            let all_queued = Instant::now();
            let pages = queued.into_iter().map(|object| object.wait());
            let pages = pages.collect::<Result<_, _>>()?;
            Ok(Observed {
                cores,
                records,
                links,
                pages,
                queuing: all_queued - begun,
                writing: all_queued.elapsed(),
            })
        })
    })
}

/// Lets a tree that is to run on go as soon as nothing more is wanted of it.
fn hold(tree: Tree, end: End, outcome: &mut Outcome) -> Result<Option<Tree>, Error> {
    if end != End::Run {
        return Ok(Some(tree));
    }
    account::end_of_freeze(&tree, outcome);
    tree.thaw()?;
    Ok(None)
}

fn finish(tree: Option<Tree>, end: End, outcome: &mut Outcome) -> Result<(), Error> {
    let Some(tree) = tree else {
        return Ok(());
    };
    account::end_of_freeze(&tree, outcome);
    match end {
        End::Kill => tree.kill()?,
        End::Stop => tree.leave_stopped()?,
        End::Run => tree.thaw()?,
    }
    Ok(())
}

/// Takes the images back whose tree was not ended.
fn withdraw(images: &Dir) {
    let manifest = manifest::read(images).ok().flatten();
    let names = manifest.iter().flat_map(|manifest| manifest.names());
    // The inventory first: without it no file of the set counts.
    for name in ["inventory.img"]
        .into_iter()
        .chain(names)
        .chain([manifest::FILE_NAME])
    {
        let _ = rustix::fs::unlinkat(images, name, AtFlags::empty());
    }
}
