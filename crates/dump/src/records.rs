//! The records of tasks. What is open or mapped is looked at by a thread of its own, while the tapes play.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::{Scope, ScopedJoinHandle};

use gelid_image::messages::{CoreEntry, March, MmEntry, TaskCoreEntry};
use gelid_image::{ImageKind, Staging};
use gelid_pages::{Owner, StoreError};
use gelid_sys::ipc::shm::Segment;
use gelid_sys::{arch, pidfd, proc, sched};

use crate::apart::{self, Apart};
use crate::cgroup::Standings;
use crate::core::{self, Closing, Closings, Cores, Machine};
use crate::core_images::FoundOut;
use crate::earlier::Earlier;
use crate::files::{self, Collected, Collector, Held, Holder};
use crate::foresight::Foresight;
use crate::ipc::Segments;
use crate::namespace::{self, Census, Instance, Own};
use crate::pages::Stored;
use crate::phase::Phases;
use crate::survey::{Space, Task};
use crate::{Error, Options, Phase, fs, inventory, kinship, mm};

/// What is the same for all records of a dump.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) options: &'a Options,
    pub(crate) staging: &'a Staging,
    pub(crate) namespaces: &'a Own,
    /// Which images there may be.
    pub(crate) foresight: &'a Foresight,
    /// Images that pages are left to.
    pub(crate) earlier: Option<&'a Earlier>,
    pub(crate) phases: Phases,
    /// What somebody has named as external since the tree stands still.
    pub(crate) named: &'a OnceLock<Vec<String>>,
}

/// A tree that stands still.
type Frozen = (Arc<Vec<Task>>, Arc<Census>);
/// Segments of shared memory, by their namespace.
type InstanceSegments = Vec<(Instance, Vec<Segment>)>;

/// The thread that looks at descriptors and mappings, and writes `fdinfo`, `fs` and the images of files.
pub(crate) struct Collecting<'scope> {
    prepared: Receiver<()>,
    machine: Receiver<Machine>,
    tasks: Sender<Frozen>,
    thread: ScopedJoinHandle<'scope, Result<(Spaces, Collected), Error>>,
    /// When it goes, the tree may run on.
    _holder: Holder,
}

impl<'scope> Collecting<'scope> {
    /// Starts it, while the tree still runs: what the root has mapped is looked at in advance. What it finds out about
    /// threads is told as soon as it is known. It waits to be told what the owners of tables tell of descriptors.
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        context: Context<'scope>,
    ) -> Result<(Self, FoundOut, Sender<Closing>), Error> {
        let (tasks, frozen) = mpsc::channel();
        let (ready, prepared) = mpsc::channel();
        let (seen, machine) = mpsc::channel();
        let (stand, standings) = mpsc::channel();
        let (told, apart) = mpsc::channel();
        let (closing, closings) = mpsc::channel();
        let closings = Closings::new(closings);
        let holder = Holder::default();
        let held = holder.room(context.foresight.held());
        let work = move || {
            let before = (&ready, &seen, held);
            collect(context, before, (&frozen, closings), (&told, &stand))
        };
        let thread = match context.foresight.meets_at() {
            Some(processor) => sched::part(scope, "files", processor, work),
            None => sched::beside(scope, "files", work),
        };
        let thread = thread.map_err(|source| StoreError::Start {
            source: Arc::new(source),
        })?;
        // If it was put behind the caller, it begins now instead of when the caller waits for it.
        std::thread::yield_now();
        let collecting = Self {
            prepared,
            machine,
            tasks,
            thread,
            _holder: holder,
        };
        Ok((collecting, FoundOut { standings, apart }, closing))
    }

    /// Waits for what has to be done before the freeze.
    pub(crate) fn prepared(self) -> Result<Self, Error> {
        match self.prepared.recv() {
            Ok(()) => Ok(self),
            Err(_) => Err(self.why()),
        }
    }

    /// Waits for what is seen of the machine, while the tree is being stopped.
    pub(crate) fn machine(self) -> Result<(Self, Machine), Error> {
        match self.machine.recv() {
            Ok(machine) => Ok((self, machine)),
            Err(_) => Err(self.why()),
        }
    }

    /// What it has failed with.
    fn why(self) -> Error {
        self.finish().err().unwrap_or(StoreError::Stopped.into())
    }

    /// Begins with a tree that is frozen.
    pub(crate) fn begin(&self, tasks: &Arc<Vec<Task>>, census: &Arc<Census>) {
        // If nobody is there to take them, finish tells why.
        let _ = self.tasks.send((Arc::clone(tasks), Arc::clone(census)));
    }

    /// Waits for what it has found.
    pub(crate) fn finish(self) -> Result<(Spaces, Collected), Error> {
        let found = self.thread.join();
        let (spaces, mut files) = found.unwrap_or_else(|_| Err(StoreError::Panicked.into()))?;
        files.held.settle();
        Ok((spaces, files))
    }
}

/// Address spaces that are not yet complete, by the number of their tasks.
#[derive(Debug, Default)]
pub(crate) struct Spaces(HashMap<usize, MmEntry>);

fn collect(
    context: Context<'_>,
    (ready, seen, held): (&Sender<()>, &Sender<Machine>, Held),
    (frozen, closings): (&Receiver<Frozen>, Closings),
    (told, stand): (&Sender<Arc<Vec<Apart>>>, &Sender<Standings>),
) -> Result<(Spaces, Collected), Error> {
    let mut files = Collector::new(context.options, context.staging)?;
    let foresight = context.foresight;
    files.may_hold(held);
    foresight.prepare(context.staging);
    // If nobody takes them, the dump has failed already.
    let _ = ready.send(());
    let _ = seen.send(Machine::look()?);
    arch::acquaint();
    // Until the tree is frozen and known there is time for what is mapped.
    if let Ok(root) = proc::task_dir(context.options.tree) {
        files.foresee(&root);
    }
    let tree = foresight.await_tree(context.staging, frozen);
    let (tasks, census) = tree.map_err(|_| StoreError::Stopped)?;
    files.name(context.named.get().map_or(&[], Vec::as_slice))?;
    let phases = context.phases;
    let found = phases.run(Phase::Namespaces, || namespace::dump(context, &census))?;
    files.know_mounts(found.mounts);
    let _ = stand.send(Standings::look(&context.options.cgroups, &tasks)?);
    namespace::join(&census)?;
    phases.run(Phase::Files, || {
        let census_of_mounts = Arc::clone(&census);
        let known = (census, closings, found.segments);
        let (spaces, collected) = look(context, (&tasks, told), known, files)?;
        for automounter in &found.automounters {
            automounter.write(
                context.staging,
                (&tasks, &census_of_mounts),
                &collected.pipes,
            )?;
        }
        Ok((spaces, collected))
    })
}

fn look(
    context: Context<'_>,
    (tasks, told): (&[Task], &Sender<Arc<Vec<Apart>>>),
    (census, mut closings, segments): (Arc<Census>, Closings, InstanceSegments),
    mut files: Collector<'_>,
) -> Result<(Spaces, Collected), Error> {
    let apart = Arc::new(apart::find(tasks, &census)?);
    // If nobody is there to take them, nothing more is wanted.
    let _ = told.send(Arc::clone(&apart));
    files.know_apart(apart.iter().map(|thread| thread.tid).collect());
    let processes = tasks.iter().map(|task| task.pid);
    let threads = tasks.iter().flat_map(|task| task.tids.iter().copied());
    files.know_tree(processes.collect(), threads.collect(), Arc::clone(&census));
    let headless = tasks.iter().filter(|task| !task.has_leader());
    files.know_headless(headless.map(|task| (task.living, task.pid)).collect());
    let mut segments = Segments::new(segments);
    files.reserve(segments.keys()?);
    segments.name(|| files.new_shmid());
    let mut spaces = Spaces::default();
    let mut tables = HashSet::new();
    for (index, task) in tasks.iter().enumerate() {
        files.process(&task.stat);
        let Some(live) = &task.live else { continue };
        let pid = task.living;
        let pidfd = match task.has_leader() {
            true => pidfd::open(pid),
            false => pidfd::open_thread(pid),
        };
        let pidfd = pidfd.map_err(|errno| Error::Pidfd { pid, errno })?;
        let held = files::Task {
            pid,
            dir: &proc::task_dir(pid)?,
            pidfd: pidfd.as_fd(),
        };
        if tables.insert(live.ids.files_id) {
            let table_of = (live.ids.files_id, live.status.fd_size);
            let mut told = || closings.of(live.ids.files_id);
            let told: Option<files::Told<'_>> = match core::is_asked(live) {
                true => Some(&mut told),
                false => None,
            };
            table(context.staging, table_of, (held, told), &mut files)?;
        }
        let fs = fs::entry(&mut files, held, &live.status)?;
        context.staging.put(ImageKind::Fs, task.number(), &fs)?;
        for thread in apart.iter().filter(|thread| thread.task == index) {
            thread.write(context.staging, &mut files, (task, &census.numbers))?;
        }
        if let Space::Own(layout) = &live.space {
            let layout = layout.get().ok_or(StoreError::Stopped)?;
            let mm = mm::entry(task, layout, held, &mut files, &mut segments)?;
            spaces.0.insert(index, mm);
        }
    }
    let attached = segments.finish(context.staging, context.namespaces, &census)?;
    namespace::dump_rules(context, &census)?;
    let mut collected = files.finish()?;
    collected.memory.extend(attached);
    write_survey(context, tasks, &census)?;
    // What can go wrong from here on does not do so as a rule: pages are read, and the tree ends.
    context.staging.name_finished();
    Ok((spaces, collected))
}

/// Writes what needs no tape: `inventory`, `pstree`, `ids`, and `core` of processes that have ended.
fn write_survey(context: Context<'_>, tasks: &[Task], census: &Census) -> Result<(), Error> {
    let staging = context.staging;
    let (options, namespaces) = (context.options, context.namespaces);
    inventory::write(staging, options, namespaces, census, context.earlier)?;
    kinship::write(staging, tasks, &census.numbers)?;
    for task in tasks {
        let key = task.number();
        match &task.live {
            Some(live) => staging.put(ImageKind::Ids, key, &live.ids)?,
            None => staging.put(ImageKind::Core, key, &zombie(task))?,
        }
    }
    Ok(())
}

/// Records a table with a number, of so many slots.
pub(crate) fn table(
    staging: &Staging,
    (id, slots): (u32, u32),
    (held, told): (files::Task<'_>, Option<files::Told<'_>>),
    files: &mut Collector<'_>,
) -> Result<(), Error> {
    let mut writer = staging.writer(ImageKind::Fdinfo, id)?;
    // The image of an empty table is there too.
    writer.touch()?;
    for entry in files.table(held, slots, told)? {
        writer.push(&entry)?;
    }
    writer.finish()?;
    Ok(())
}

impl Spaces {
    /// Writes what needed the pages: `mm` and `pagemap`.
    pub(crate) fn write(
        mut self,
        context: Context<'_>,
        (tasks, census): (&[Task], &Census),
        cores: &[Cores],
        pages: &[Stored],
    ) -> Result<(), Error> {
        self.complete(tasks, cores, pages);
        let staging = context.staging;
        let spaces = tasks.iter().enumerate().filter_map(|(index, task)| {
            let first = match task.live.as_ref()?.space {
                Space::Own(_) => index,
                Space::Of(first) => first,
            };
            Some((task.number(), self.0.get(&first)?))
        });
        let spaces: Vec<(i32, &MmEntry)> = spaces.collect();
        let write = |part: &[(i32, &MmEntry)]| {
            let mut each = part.iter();
            each.try_for_each(|(key, mm)| staging.put(ImageKind::Mm, *key, *mm))
        };
        let written = gelid_image::shared_out("spaces", &spaces, write);
        written.into_iter().collect::<Result<(), _>>()?;
        let headless = tasks.iter().filter(|task| !task.has_leader());
        let headless: HashMap<i32, i32> = headless
            .map(|task| (task.living.as_raw_pid(), task.number()))
            .collect();
        let number = |pid: i32| match headless.get(&pid) {
            Some(number) => *number,
            None => census.numbers.number(pid),
        };
        let all = pages.iter().map(|stored| (stored.owner, stored)).collect();
        let write = |part: &[Stored]| {
            let mut each = part.iter();
            each.try_for_each(|stored| stored.write(staging, &all, number))
        };
        let written = gelid_image::shared_out("pagemaps", pages, write);
        written.into_iter().collect()
    }

    fn complete(&mut self, tasks: &[Task], cores: &[Cores], pages: &[Stored]) {
        let guards: HashMap<Owner, &[_]> = pages
            .iter()
            .map(|stored| (stored.owner, stored.guards.as_slice()))
            .collect();
        let live = tasks
            .iter()
            .enumerate()
            .filter(|(_, task)| task.live.is_some());
        for ((index, task), cores) in live.zip(cores) {
            let guards = guards.get(&Owner::Task(task.living.as_raw_pid()));
            if let Some(mm) = self.0.get_mut(&index) {
                mm::complete(mm, cores, guards.copied().unwrap_or_default());
            }
        }
    }
}

/// What is left of a process that has ended. Section 7.1 of the format.
fn zombie(task: &Task) -> CoreEntry {
    /// `task_state` of a zombie.
    const DEAD: u32 = 2;
    CoreEntry {
        mtype: March::X86_64.into(),
        tc: Some(TaskCoreEntry {
            task_state: DEAD,
            // The bits of a wait status.
            exit_code: task.stat.exit_code.cast_unsigned(),
            flags: task.stat.flags,
            comm: task.stat.comm.clone(),
            ..TaskCoreEntry::default()
        }),
        ..CoreEntry::default()
    }
}
