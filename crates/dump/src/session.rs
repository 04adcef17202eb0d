//! A dump from its first phase to its last.
//!
//! Three threads share the time in which the tree stands still. The first freezes, plays tapes and writes the records
//! of tasks; the second looks at mappings and queues pages, which the workers of the store read meanwhile; the third
//! looks at what is open or mapped.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::thread::Scope;
use std::time::{Duration, Instant};

use gelid_image::{Dir, ImageKind, Staging, manifest};
use gelid_pages::Store;
use gelid_seize::{Checked, Tree};
use gelid_sys::proc;
use gelid_sys::proc::ns::{self, Kind};
use rustix::fs::AtFlags;

use crate::core::{self, Before};
use crate::core_images::CoreImages;
use crate::earlier::Earlier;
use crate::files::{Held, Links, Network, Spent};
use crate::foresight::Foresight;
use crate::namespace::Own;
use crate::pages::{Flow, Queued, Sink, Stored};
use crate::phase::Phases;
use crate::records::{Collecting, Context};
use crate::snapshot::{self, Copies, Taken};
use crate::survey;
use crate::{End, Error, Hook, Options, Outcome, Phase, account, inventory, shared};

/// Goes through all phases.
pub(crate) fn run(options: &Options) -> Result<Outcome, Error> {
    let started = Instant::now();
    let namespaces = Own::look()?;
    let options = &Options {
        run_id: Some(match &options.run_id {
            Some(name) => name.clone(),
            None => inventory::run_id()?,
        }),
        ..options.clone()
    };
    let earlier = Earlier::read(options)?;
    let staging = Staging::new(&options.images)?;
    if let Some(earlier) = &earlier {
        staging.link_parent(&earlier.path)?;
    }
    let foresight = Foresight::of(options);
    let named = OnceLock::new();
    let context = Context {
        options,
        staging: &staging,
        namespaces: &namespaces,
        foresight: &foresight,
        earlier: earlier.as_ref(),
        phases: Phases::new(options.fault),
        named: &named,
    };
    let phases = context.phases;
    let locked = NetworkLocked::new(options, &namespaces)?;

    let written = std::thread::scope(|scope| write(scope, context, &locked))?;
    let Written {
        standing,
        network,
        links,
        mut outcome,
        _store,
    } = written;
    phases.run(Phase::Commit, || Ok(staging.commit()?))?;
    if let Err(objection) = options.hooks.tell(Hook::PostDump, options.tree) {
        withdraw(&options.images);
        return Err(objection);
    }
    if options.end == End::Run {
        locked.over();
    }
    let ended = phases.run(Phase::Finish, || {
        finish(standing, network, options.end, &mut outcome)
    });
    if let Err(Error::Fault { .. }) = ended {
        withdraw(&options.images);
    }
    ended?;
    if options.end != End::Run {
        // A restore needs them; of a tree that runs on nothing of ours stays.
        links.keep();
        locked.keep();
    }
    outcome.elapsed = started.elapsed();
    Ok(outcome)
}

/// A dump whose images are all written, but not yet visible.
struct Written {
    /// `None` if it has been let go.
    standing: Option<Standing>,
    /// Its connections.
    network: Network,
    /// Names given to files that have lost theirs.
    links: Links,
    outcome: Outcome,
    /// Has nothing more to do; dropping it waits for its workers.
    _store: Store,
}

/// A tree that stands still. Should it not come to its end, duplicates are closed before it runs on.
struct Standing {
    held: Held,
    spent: Spent,
    tree: Tree,
}

/// Everything between the first look and the commit.
fn write<'scope, 'a: 'scope>(
    scope: &'scope Scope<'scope, '_>,
    context: Context<'a>,
    locked: &NetworkLocked<'_>,
) -> Result<Written, Error> {
    let phases = context.phases;
    let (collecting, found_out, closing) = Collecting::start(scope, context)?;
    let pages = context.options.pages;
    let beside = !context.foresight.is_small() || pages.dedup;
    let store = match beside {
        true => Store::start(pages)?,
        false => Store::in_place(pages.format),
    };
    let sink = Sink::new(store, pages.format, context.staging);
    // What is queued at once may have to be thrown away, and nobody is to refer to it by then.
    // What earlier images have is known by number, and numbers are known when the tree is.
    let is_compared = context.options.pages.dedup || context.earlier.is_some();
    let at_once = !snapshot::may_be(context.options) && !is_compared;
    let mut flow = Flow::start(scope, sink, (beside, at_once))?;
    // On every way out but the last it is to stop.
    let stopper = flow.stopper();
    // What can fail without the tree comes before the tree is touched. Files are made meanwhile.
    let checked = survey::root(context.options, context.namespaces)?;
    let collecting = collecting.prepared()?;
    let room = shared::Room::prepare(context.options, context.foresight.shared());
    // From here on nothing takes long.
    let before = Before::look(context.options.tree);
    // They end when the tree runs again.
    let mut copies = Copies::new(context.options.tree);
    let mut tree = phases.run(Phase::Freeze, || freeze(context.options, checked))?;
    let (collecting, machine) = collecting.machine()?;
    locked.tell()?;
    let named = context.options.hooks.external(context.options.tree)?;
    // It is set here alone.
    let _ = context.named.set(named);
    let (tasks, census, layouts) = phases.run(Phase::Tree, || {
        survey::tree(&tree, context.options, context.namespaces, &flow)
    })?;
    let (tasks, census) = (Arc::new(tasks), Arc::new(census));
    // What is open is looked at while the mappings are.
    collecting.begin(&tasks, &census);
    let begun = Instant::now();
    let wanted = phases.run(Phase::Memory, || {
        layouts.wait(&flow)?;
        let wanted = snapshot::wanted(context.options, &tree, &tasks);
        let earlier = context.earlier.map(|earlier| earlier.of(&tasks));
        flow.queue(wanted.clone(), earlier.unwrap_or_default())?;
        Ok(wanted)
    })?;
    let mut images = CoreImages::new(context, &census, found_out);
    let (mut cores, filters) = phases.run(Phase::Tasks, || {
        let write = |task: &_, tid, core| images.write(task, tid, core);
        let seen = (&tasks[..], &*census, &before, &machine);
        let taking = (Some(Box::new(write) as _), Some(closing));
        Ok(core::collect(&mut tree, seen, taking)?)
    })?;
    if let Err(error) = images.finish(&tasks, &mut cores) {
        // What the other thread has failed with is why.
        return Err(collecting.finish().err().unwrap_or(error));
    }
    context.staging.put(ImageKind::Seccomp, (), &filters)?;
    flow.work();
    let (spaces, mut files) = collecting.finish()?;
    if context.options.end == End::Run {
        // Packets may come again.
        files.network = Network::default();
    }
    // Nobody looks for others who have files of the tree any more.
    let standing = copies.take(&mut tree, &tasks, &cores, &wanted);
    let memory = shared::Object::all(files.memory)?;
    let (memory, memory_copied) = shared::copied(memory, copies.taken(), (context.options, room));
    let (mut pages, mut sink) = phases.run(Phase::Pages, || {
        let (mut sink, mut queued) = flow.finish()?;
        sink.queue_again(&mut queued, &tasks, &cores)?;
        queued.extend(queue_taken(&mut sink, &standing)?);
        queued.extend(shared::queue(&mut sink, &memory)?);
        Ok((Pages::wait(queued, begun)?, sink))
    })?;
    core::settled(&cores)?;
    drop(stopper);
    let mut outcome = account::outcome(&tree, &tasks);
    let is_copied = !copies.taken().is_empty() || !memory_copied.is_empty();
    let tree = hold(tree, (context.options, locked), is_copied, &mut outcome)?;
    let (held, spent) = (files.held, files.spent);
    let standing = tree.map(|tree| Standing { held, spent, tree });
    if is_copied {
        let begun = Instant::now();
        let mut queued = queue_taken(&mut sink, copies.taken())?;
        queued.extend(shared::queue(&mut sink, &memory_copied)?);
        pages.add(Pages::wait(queued, begun)?);
        account::more_freeze(copies.end(), &mut outcome);
    }
    account::add_pages(&mut outcome, &pages);
    phases.run(Phase::Write, || {
        spaces.write(context, (&tasks, &census), &cores, &pages.stored)
    })?;
    let mut store = sink.into_store();
    store.dismiss();
    Ok(Written {
        standing,
        network: files.network,
        links: files.links,
        outcome,
        _store: store,
    })
}

fn freeze(options: &Options, checked: Checked) -> Result<Tree, Error> {
    let freezer = gelid_seize::Options {
        root: options.tree,
        timeout: options.timeout,
        freeze_cgroup: options.freeze_cgroup.clone(),
        checked: Some(checked),
    };
    Ok(gelid_seize::freeze(&freezer)?)
}

/// Whoever keeps packets away from a tree that has a network namespace of its own is told to begin, and to end it unless
/// the tree ends.
struct NetworkLocked<'a> {
    options: &'a Options,
    concerned: bool,
    told: Cell<bool>,
}

impl<'a> NetworkLocked<'a> {
    fn new(options: &'a Options, own: &Own) -> Result<Self, Error> {
        let concerned = match proc::task_dir(options.tree) {
            Ok(root) if !options.hooks.is_empty() => {
                ns::id(&root, Kind::Net)? != own.inode(Kind::Net)
            }
            // The freezer knows how to say that there is no such process.
            _ => false,
        };
        Ok(Self {
            options,
            concerned,
            told: Cell::new(false),
        })
    }

    fn tell(&self) -> Result<(), Error> {
        if self.concerned {
            let Options { hooks, tree, .. } = self.options;
            hooks.tell(Hook::NetworkLock, *tree)?;
            self.told.set(true);
        }
        Ok(())
    }

    fn keep(self) {
        self.told.set(false);
    }

    fn over(&self) {
        let Options { hooks, tree, .. } = self.options;
        if self.told.replace(false)
            && let Err(error) = hooks.tell(Hook::NetworkUnlock, *tree)
        {
            tracing::error!("{error}");
        }
    }
}

impl Drop for NetworkLocked<'_> {
    fn drop(&mut self) {
        self.over();
    }
}

/// All pages are in the store.
pub(crate) struct Pages {
    /// Memory of tasks and shared objects.
    pub(crate) stored: Vec<Stored>,
    /// From the first page queued until all were.
    pub(crate) queuing: Duration,
    /// From then on until all were written.
    pub(crate) writing: Duration,
}

/// Queues the pages of tasks, wherever they are.
fn queue_taken(sink: &mut Sink<'_>, taken: &[Taken]) -> Result<Vec<Queued>, Error> {
    let of = taken.iter();
    let of = of.map(|taken| (taken.task, &*taken.layout, taken.origin()));
    sink.queue(of, &AtomicBool::new(false))
}

impl Pages {
    fn wait(queued: Vec<Queued>, begun: Instant) -> Result<Self, Error> {
        let all_queued = Instant::now();
        let stored = queued.into_iter().map(Queued::wait);
        Ok(Self {
            stored: stored.collect::<Result<_, _>>()?,
            queuing: all_queued - begun,
            writing: all_queued.elapsed(),
        })
    }

    fn add(&mut self, more: Self) {
        self.stored.extend(more.stored);
        self.queuing += more.queuing;
        self.writing += more.writing;
    }
}

/// Lets a tree that is to run on go as soon as nothing more is wanted of it. Whoever is told of the images finds it
/// standing still, unless its memory was copied all the same.
fn hold(
    tree: Tree,
    (options, locked): (&Options, &NetworkLocked<'_>),
    is_copied: bool,
    outcome: &mut Outcome,
) -> Result<Option<Tree>, Error> {
    if options.end != End::Run || (!options.hooks.is_empty() && !is_copied) {
        return Ok(Some(tree));
    }
    locked.over();
    account::end_of_freeze(&tree, outcome);
    tree.thaw()?;
    Ok(None)
}

fn finish(
    standing: Option<Standing>,
    network: Network,
    end: End,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let Some(standing) = standing else {
        return Ok(());
    };
    account::end_of_freeze(&standing.tree, outcome);
    match end {
        End::Kill => network.part(|| standing.kill())?,
        // Whoever kills it then wants connections to end as silently.
        End::Stop => network.part(|| Ok::<_, Error>(standing.tree.leave_stopped()?))?,
        End::Run => standing.tree.thaw()?,
    }
    Ok(())
}

impl Standing {
    fn kill(self) -> Result<(), Error> {
        let Self { held, spent, tree } = self;
        let beside = || {
            held.close_behind();
            drop(spent);
        };
        Ok(tree.kill_beside(beside)?)
    }
}

/// Takes the images back whose tree was not ended.
fn withdraw(images: &Dir) {
    let manifest = manifest::read(images).ok().flatten();
    let names = manifest.iter().flat_map(|manifest| manifest.names());
    // The inventory first: without it no file of the set counts.
    for name in ["inventory.img"]
        .into_iter()
        .chain(names)
        .chain([manifest::FILE_NAME, "parent"])
    {
        let _ = rustix::fs::unlinkat(images, name, AtFlags::empty());
    }
}
