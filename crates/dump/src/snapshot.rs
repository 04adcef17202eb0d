//! Copies of large address spaces, so that a tree that is to run on need not wait until all of its pages are written.
//!
//! The copy is made by the kernel, as by `fork(2)`: the tree stands still only for that, and whatever it writes
//! afterwards is copied then. It is a process that never runs, belongs to the tracer, and ends with it.
//!
//! A tree in which somebody would adopt it stands still once more, for a moment, to collect it.

mod collect;
mod copy;
mod headroom;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use gelid_pages::{Memory, PageSource, ProcessSource};
use gelid_seize::Tree;
use gelid_sys::Pid;
use gelid_sys::proc::smaps::{Area, VmFlags};
use gelid_sys::proc::{TaskDir, status};

use self::copy::{Copy, Parent};
use crate::core::{self, Cores};
use crate::layout::Layout;
use crate::pages::Origin;
use crate::survey::{Live, Space, Task};
use crate::vma::{self, Kind};
use crate::{End, Options};

/// Address spaces with less than this are read sooner than they are copied, bytes.
const SMALL: u64 = 8 << 20;
/// Memory that copies do not have is read before; with more of it, bytes, there is no copy.
const KEPT: u64 = 16 << 20;

/// When address spaces are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Snapshot {
    /// Where they are large, and there is memory for all that may be written meanwhile.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Whatever their size.
    Always,
}

/// Whether address spaces may be copied at all.
pub(crate) fn may_be(options: &Options) -> bool {
    // Hooks find the tree standing still after all is written, unless somebody says that they need not.
    let hooks = options.hooks.is_empty() || options.snapshot == Snapshot::Always;
    options.snapshot != Snapshot::Never && options.end == End::Run && hooks
}

/// Whether so many bytes are to be copied rather than read while the tree stands still.
pub(crate) fn is_worth_while(options: &Options, bytes: u64) -> bool {
    let large = match options.snapshot {
        Snapshot::Always => 1,
        Snapshot::Auto | Snapshot::Never => SMALL,
    };
    may_be(options) && bytes >= large
}

/// Bytes that a process may still get, of its cgroups and of the machine.
pub(crate) fn headroom(pid: Pid) -> u64 {
    headroom::of_group(pid).min(headroom::of_machine())
}

/// Address spaces that are to be copied, by the number of the task that was seen with it first.
pub(crate) fn wanted(options: &Options, tree: &Tree, tasks: &[Task]) -> HashSet<Pid> {
    // In a cgroup that is frozen again, a copy would neither read nor end; and where the next child is the first
    // process of a pid namespace, it would be that.
    if !may_be(options)
        || tree.was_frozen()
        || tasks.iter().any(|task| task.pid_ns_for_children.is_some())
    {
        return HashSet::new();
    }
    let mut all = 0;
    let mut wanted = HashSet::new();
    // The copy of one that has lost its main thread would be a child of nobody knows whom.
    let spaces = spaces(tasks).filter(|(task, _)| task.has_leader());
    for (task, layout) in spaces {
        let bytes = anonymous(layout);
        // A copy would be attached to segments too, and nobody may be that is not in the tree.
        let can = |area: &Area| {
            !area.flags.contains(VmFlags::HUGETLB) && vma::kind(area) != Kind::Segment
        };
        if is_worth_while(options, bytes)
            && layout.areas.iter().all(can)
            && headroom::of_group(task.pid) >= bytes
        {
            all += bytes;
            wanted.insert(task.pid);
        }
    }
    match all > 0 && headroom::of_machine() < all {
        true => HashSet::new(),
        false => wanted,
    }
}

fn anonymous(layout: &Layout) -> u64 {
    layout.areas.iter().map(|area| area.anonymous).sum()
}

/// The address spaces of a tree.
fn spaces(tasks: &[Task]) -> impl Iterator<Item = (&Task, &Arc<Layout>)> {
    tasks.iter().filter_map(|task| match &task.live {
        Some(Live {
            space: Space::Own(layout),
            ..
        }) => Some((task, layout.get()?)),
        _ => None,
    })
}

/// The pages of a task as they were, wherever they are now.
pub(crate) struct Taken {
    pub(crate) task: Pid,
    pub(crate) layout: Arc<Layout>,
    /// `None` if there is no copy and the task has to stand still.
    copy: Option<Copy>,
    kept: Vec<(u64, Arc<Memory>)>,
}

impl Taken {
    /// Whether the task may run on.
    pub(crate) fn is_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Bytes that the copy may come to take.
    pub(crate) fn bytes(&self) -> u64 {
        anonymous(&self.layout)
    }

    /// Where its pages are read.
    pub(crate) fn origin(&self) -> Origin {
        let Some(copy) = &self.copy else {
            return Origin::task(self.task, &self.layout);
        };
        let private = self.layout.areas.iter().filter(|area| area.anonymous > 0);
        Origin {
            pid: copy.pid(),
            shared: private.map(|area| area.map.range()).collect(),
            kept: self.kept.clone(),
        }
    }
}

/// The copies of a tree that runs on or will, which end with this.
pub(crate) struct Copies {
    root: Pid,
    taken: Vec<Taken>,
}

impl Copies {
    /// None, of the tree of `root`. The tree must be let go before they end.
    pub(crate) fn new(root: Pid) -> Self {
        Self {
            root,
            taken: Vec::new(),
        }
    }

    /// Copies what is `wanted`, as far as that can be, and returns the rest. The tree is as it was, but for children of
    /// a task where it must be.
    pub(crate) fn take(
        &mut self,
        tree: &mut Tree,
        tasks: &[Task],
        cores: &[Cores],
        wanted: &HashSet<Pid>,
    ) -> Vec<Taken> {
        if wanted.is_empty() {
            return Vec::new();
        }
        let taken = take(tree, tasks, cores, wanted);
        let (copied, standing) = taken.into_iter().partition(Taken::is_copy);
        self.taken = copied;
        standing
    }

    pub(crate) fn taken(&self) -> &[Taken] {
        &self.taken
    }

    /// Ends them. How long the tree, which runs, stood still for that.
    pub(crate) fn end(&mut self) -> Duration {
        let taken = std::mem::take(&mut self.taken).into_iter();
        collect::all(self.root, taken.filter_map(|taken| taken.copy).collect())
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.end();
    }
}

fn take(tree: &mut Tree, tasks: &[Task], cores: &[Cores], wanted: &HashSet<Pid>) -> Vec<Taken> {
    let adopts = |cores: &Cores| {
        let process = cores.leader.tc.as_ref();
        process.is_some_and(|process| process.child_subreaper == Some(true))
    };
    let adopted = cores.iter().any(adopts);
    let depth = depth();
    let mut taken = Vec::with_capacity(wanted.len());
    for (index, task) in tasks.iter().enumerate() {
        let Some(live) = task.live.as_ref().filter(|_| wanted.contains(&task.pid)) else {
            continue;
        };
        let Space::Own(layout) = &live.space else {
            continue;
        };
        let Some(layout) = layout.get() else { continue };
        let mut this = Taken {
            task: task.pid,
            layout: Arc::clone(layout),
            copy: None,
            kept: Vec::new(),
        };
        // In another pid namespace, its first process would adopt it.
        let parent = match adopted || depth.is_none_or(|depth| depth != live.status.ns_pid.len()) {
            true => Parent::Task,
            false => Parent::Outside,
        };
        if let Some(kept) = keep(task.pid, layout) {
            this.copy = copy_one(tree, index, (task, live), layout, parent);
            this.kept = kept;
        }
        taken.push(this);
    }
    taken
}

/// In how many pid namespaces the dumper has a number.
fn depth() -> Option<usize> {
    let own = TaskDir::open(rustix::process::getpid()).ok()?;
    Some(status::read(&own).ok()?.ns_pid.len())
}

fn copy_one(
    tree: &mut Tree,
    index: usize,
    (task, live): (&Task, &Live),
    layout: &Layout,
    parent: Parent,
) -> Option<Copy> {
    let ground = core::ground(&tree.processes()[index], &layout.areas).ok()?;
    let identity = core::leader_identity(task, live);
    let leader = tree.processes_mut()[index].threads.first_mut()?;
    let (stopped, copy) = copy::make(leader.take()?, identity, &ground, layout, parent);
    if let Some(stopped) = stopped {
        leader.put(stopped);
    }
    let pid = task.pid.as_raw_pid();
    match copy {
        Ok(copy) => Some(copy),
        Err(error) => {
            tracing::debug!(pid, %error, "no copy of the memory: it is read while it stands still");
            None
        }
    }
}

/// Reads what a copy will not have: memory that children do not get, and rings of AIO. `None` if that is too much.
fn keep(pid: Pid, layout: &Layout) -> Option<Vec<(u64, Arc<Memory>)>> {
    let source = ProcessSource::new(pid).sharing(Origin::task(pid, layout).shared);
    let lost = |area: &&Area| {
        vma::kind(area) == Kind::Aio
            || (area.anonymous > 0
                && (area.flags).intersects(VmFlags::DONT_COPY | VmFlags::WIPE_ON_FORK))
    };
    let lost: Vec<&Area> = layout.areas.iter().filter(lost).collect();
    if lost.iter().map(|area| area.map.size()).sum::<u64>() > KEPT {
        return None;
    }
    let mut kept = Vec::with_capacity(lost.len());
    for area in lost {
        let range = area.map.range();
        let mut bytes = vec![0; area.map.size() as usize];
        source.read(std::slice::from_ref(&range), &mut bytes).ok()?;
        kept.push((range.start, Arc::new(Memory::new(range.start, bytes))));
    }
    Some(kept)
}
