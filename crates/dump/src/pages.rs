//! Private memory on its way into the page store, beside everything else. Sections 8.5 and 9 of the format.
//!
//! A thread of its own looks at the mappings, asks which pages there are and queues them; the workers of the store
//! read, pack and write them meanwhile. For a tree of few pages there is neither: all of that is done when the tracer would
//! have to wait for others.

mod scan;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Scope, ScopedJoinHandle};

use gelid_image::Staging;
use gelid_pages::{
    Earlier, Format, ObjectKey, ObjectWriter, Owner, Pending, Store, StoreError, Summary,
};
use gelid_sys::proc::smaps::Area;
use gelid_sys::{Pid, sched};

pub(crate) use self::scan::Origin;
use self::scan::Queueing;
use crate::core::Cores;
use crate::frames::{self, Frames, Same};
use crate::layout::{Layout, Looker, Promise};
use crate::looks::{Looks, Seen};
use crate::survey::{Space, Task};
use crate::vma::{self, Kind};
use crate::{Error, pagemap as images};

/// An object whose pages are all queued: the memory of a task, or shared memory.
pub(crate) struct Queued {
    /// What is known of it so far.
    pub(crate) stored: Stored,
    pub(crate) pending: Pending,
}

impl Queued {
    /// Waits until the pages are in the store.
    pub(crate) fn wait(self) -> Result<Stored, StoreError> {
        Ok(Stored {
            summary: self.pending.wait()?,
            ..self.stored
        })
    }
}

/// An object whose pages are in the store.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) owner: Owner,
    /// Number of its file of pages.
    pub(crate) pages_id: u32,
    /// The file.
    pub(crate) file: String,
    /// Pages that were looked at.
    pub(crate) scanned: u64,
    /// Ranges of guard markers, ascending.
    pub(crate) guards: Vec<Range<u64>>,
    /// Pages that are among those of other tasks, ascending.
    pub(crate) same: Vec<Same>,
    pub(crate) summary: Summary,
}

/// A page store that writes into a set of images.
pub(crate) struct Sink<'a> {
    store: Store,
    format: Format,
    staging: &'a Staging,
    /// What earlier images have of tasks.
    earlier: HashMap<Pid, Arc<Earlier>>,
    next: u32,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(store: Store, format: Format, staging: &'a Staging) -> Self {
        Self {
            store,
            format,
            staging,
            earlier: HashMap::new(),
            next: 1,
        }
    }

    /// The store, when there is nothing more to be written.
    pub(crate) fn into_store(self) -> Store {
        self.store
    }

    /// Begins the next object; its file exists even if it stays empty.
    pub(crate) fn begin(&mut self, owner: Owner) -> Result<(Stored, ObjectWriter), Error> {
        let pages_id = self.next;
        self.next += 1;
        let file = images::pages_file(pages_id, self.format);
        let whose = match owner {
            Owner::Task(pid) => pid.unsigned_abs(),
            Owner::Shared(_) => 0,
        };
        let sink = Box::new(self.staging.roomy(&file, whose)?);
        let mut writer = self.store.object(ObjectKey { pages_id, owner }, sink);
        if let Owner::Task(pid) = owner
            && let Some(earlier) = Pid::from_raw(pid).and_then(|pid| self.earlier.get(&pid))
        {
            writer.compare_with(Arc::clone(earlier));
        }
        let stored = Stored {
            owner,
            pages_id,
            file,
            scanned: 0,
            guards: Vec::new(),
            same: Vec::new(),
            summary: Summary::default(),
        };
        Ok((stored, writer))
    }
}

/// The sink, for more, and what has been queued.
type AllQueued<'a> = (Sink<'a>, Vec<Queued>);

/// Looks at address spaces, and later queues their pages.
pub(crate) struct Flow<'scope, 'a> {
    orders: Sender<Order>,
    looks: Arc<Looks>,
    stop: Arc<AtomicBool>,
    by: By<'scope, 'a>,
    at_once: bool,
}

/// Who does it.
enum By<'scope, 'a> {
    Thread(ScopedJoinHandle<'scope, Result<AllQueued<'a>, Error>>),
    /// Whoever asks for the result.
    Caller(Box<Worker<'a>>),
    Done(Result<AllQueued<'a>, Error>),
}

enum Order {
    /// Some mappings of the only task, above those before: their pages may be queued at once.
    Part(Pid, Vec<Area>),
    /// Somebody has asked for a layout.
    Look,
    /// One that somebody else has looked at.
    Seen(Seen),
    /// Queue the pages of all that were looked at, but for those of these tasks. Earlier images have these.
    Queue(HashSet<Pid>, HashMap<Pid, Arc<Earlier>>),
}

impl<'scope, 'a> Flow<'scope, 'a> {
    /// Starts the thread, if there is to be one `beside` the caller.
    ///
    /// `at_once` if the pages will be read where they are, so that this may begin before all mappings are known.
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        sink: Sink<'a>,
        (beside, at_once): (bool, bool),
    ) -> Result<Self, Error>
    where
        'a: 'scope,
    {
        let (orders, taken) = mpsc::channel();
        let looks = Arc::<Looks>::default();
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            sink,
            orders: taken,
            looks: Arc::clone(&looks),
            stop: Arc::clone(&stop),
            early: None,
            failed: None,
        };
        let by = match beside {
            true => {
                let thread = sched::beside(scope, "scan", move || worker.run());
                By::Thread(thread.map_err(|source| StoreError::Start {
                    source: Arc::new(source),
                })?)
            }
            false => By::Caller(Box::new(worker)),
        };
        Ok(Self {
            orders,
            looks,
            stop,
            by,
            at_once,
        })
    }

    /// Sets the pages of all address spaces looked at on their way, but for those of some tasks. What `earlier` has is left
    /// there.
    pub(crate) fn queue(
        &self,
        without: HashSet<Pid>,
        earlier: HashMap<Pid, Arc<Earlier>>,
    ) -> Result<(), Error> {
        self.order(Order::Queue(without, earlier))
    }

    /// Queues the pages, unless a thread does.
    pub(crate) fn work(&mut self) {
        self.by = match std::mem::replace(&mut self.by, By::Done(Err(StoreError::Stopped.into()))) {
            By::Caller(worker) => By::Done(worker.run()),
            others => others,
        };
    }

    /// Waits until all pages are queued.
    pub(crate) fn finish(self) -> Result<AllQueued<'a>, Error> {
        match self.by {
            By::Thread(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(StoreError::Panicked.into())),
            By::Caller(worker) => worker.run(),
            By::Done(queued) => queued,
        }
    }

    fn order(&self, order: Order) -> Result<(), Error> {
        Ok(self.orders.send(order).map_err(|_| StoreError::Panicked)?)
    }
}

impl Looker for Flow<'_, '_> {
    fn part(&self, pid: Pid, areas: &[Area]) -> Result<(), Error> {
        match self.at_once {
            true => self.order(Order::Part(pid, areas.to_vec())),
            false => Ok(()),
        }
    }

    fn seen(&self, pid: Pid, layout: Arc<Layout>) -> Result<(), Error> {
        self.order(Order::Seen((0, pid, layout)))
    }

    fn look(&self, pid: Pid, promise: Promise) -> Result<(), Error> {
        self.looks.ask(pid, promise);
        self.order(Order::Look)
    }

    fn looked(&self) -> Result<(), Error> {
        self.looks.read_all(|seen| {
            // If nobody is there to take it, the next order tells.
            let _ = self.order(Order::Seen(seen));
        })
    }
}

/// Tells a thread to stop when it is dropped.
pub(crate) struct Stopper(Arc<AtomicBool>);

impl Flow<'_, '_> {
    /// Ends the work early, when it is dropped.
    pub(crate) fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Worker<'a> {
    sink: Sink<'a>,
    orders: Receiver<Order>,
    looks: Arc<Looks>,
    stop: Arc<AtomicBool>,
    early: Option<Early>,
    /// Why there is no more of it.
    failed: Option<Error>,
}

/// Pages that were queued before all mappings were known.
struct Early {
    queueing: Queueing,
    /// Mappings that are done.
    done: usize,
    /// The rest has to wait.
    is_over: bool,
}

impl<'a> Worker<'a> {
    fn run(mut self) -> Result<AllQueued<'a>, Error> {
        let mut known = Vec::new();
        // Without a caller there is nothing to do.
        let without = loop {
            match self.orders.recv() {
                Ok(Order::Look) if self.stop.load(Ordering::Relaxed) => {
                    return Err(StoreError::Stopped.into());
                }
                // Perhaps somebody else has read it by now.
                Ok(Order::Look) => {
                    self.looks.read_one(|seen| known.push(seen));
                }
                Ok(Order::Part(pid, areas)) => {
                    if self.failed.is_none() {
                        self.failed = self.part(pid, &areas).err();
                    }
                }
                Ok(Order::Seen(seen)) => known.push(seen),
                Ok(Order::Queue(without, earlier)) => {
                    self.sink.earlier = earlier;
                    break without;
                }
                Err(_) => return Err(StoreError::Stopped.into()),
            }
        };
        if let Some(error) = self.failed {
            return Err(error);
        }
        // In the order of the tree: who comes first has the pages that others share.
        known.sort_unstable_by_key(|(number, ..)| *number);
        known.retain(|(_, pid, _)| !without.contains(pid));
        let all = match (self.early.take(), &known[..]) {
            (Some(early), [(_, pid, layout)]) if early.queueing.pid == *pid => {
                vec![early.finish(layout, &self.stop)?]
            }
            (early, _) => {
                if let Some(early) = early {
                    let file = early.queueing.discard();
                    self.sink.staging.discard(&file)?;
                }
                let of = known.iter();
                let of = of.map(|(_, pid, layout)| (*pid, &**layout, Origin::task(*pid, layout)));
                self.sink.queue(of, &self.stop)?
            }
        };
        Ok((self.sink, all))
    }

    /// Queues the pages of some mappings, up to the code of the kernel, of which a copy is made when all are known.
    fn part(&mut self, pid: Pid, areas: &[Area]) -> Result<(), Error> {
        let early = match &mut self.early {
            Some(early) => early,
            none => none.insert(Early {
                queueing: Queueing::begin(&mut self.sink, pid, pid, Vec::new())?,
                done: 0,
                is_over: false,
            }),
        };
        early.is_over |= areas.iter().any(|area| vma::kind(area) == Kind::Vdso);
        if early.is_over {
            return Ok(());
        }
        early.done += areas.len();
        let shared = frames::shared(areas);
        early.queueing.part(areas, shared, None, None, &self.stop)
    }
}

impl Early {
    fn finish(mut self, layout: &Layout, stop: &AtomicBool) -> Result<Queued, Error> {
        let rest = layout.areas.get(self.done..).unwrap_or_default();
        let (shared, vdso) = (frames::shared(rest), layout.vdso.as_ref());
        self.queueing.part(rest, shared, vdso, None, stop)?;
        self.queueing.finish(&layout.areas)
    }
}

impl Sink<'_> {
    /// Queues the pages of tasks. What several of them have in common is queued once, if the format has a word for that.
    pub(crate) fn queue<'l>(
        &mut self,
        tasks: impl ExactSizeIterator<Item = (Pid, &'l Layout, Origin)> + Clone,
        stop: &AtomicBool,
    ) -> Result<Vec<Queued>, Error> {
        // In CRIU's own form of pages it is stored again, and a restore told of it.
        let is_packed = self.format.is_packed();
        let mut frames = (tasks.len() > 1).then(|| Frames::new(is_packed));
        if frames.is_some() && is_packed {
            let areas = tasks.clone().map(|(_, layout, _)| &layout.areas[..]);
            self.store.shared(areas.map(frames::elsewhere).sum());
        }
        let queued = tasks.map(|(pid, layout, origin)| {
            scan::queue(self, pid, origin, layout, frames.as_mut(), stop)
        });
        queued.collect()
    }

    /// Queues the pages of tasks anew whose memory held something of ours while a tape played. The file of what
    /// was read first goes away.
    pub(crate) fn queue_again(
        &mut self,
        queued: &mut [Queued],
        tasks: &[Task],
        cores: &[Cores],
    ) -> Result<(), Error> {
        let live = tasks.iter().filter_map(|task| task.live.as_ref());
        let spaces = live
            .zip(cores)
            .filter_map(|(live, cores)| match &live.space {
                Space::Own(layout) => Some((cores.living, layout.get()?, &cores.lent)),
                _ => None,
            });
        let spaces: Vec<_> = spaces
            .map(|(pid, layout, lent)| {
                let is_lent = !lent.iter().all(|range| layout.is_in_vdso(range));
                (pid, layout, is_lent)
            })
            .collect();
        // Others may refer to what is left of it.
        let all = spaces.iter().any(|(.., is_lent)| *is_lent) && self.store.forget();
        for (pid, layout, is_lent) in spaces {
            let owner = Owner::Task(pid.as_raw_pid());
            if (all || is_lent)
                && let Some(place) = queued
                    .iter_mut()
                    .find(|queued| queued.stored.owner == owner)
            {
                tracing::debug!(pid = pid.as_raw_pid(), is_lent, "pages again");
                let go_on = AtomicBool::new(false);
                let anew = scan::queue(self, pid, Origin::task(pid, layout), layout, None, &go_on)?;
                let first = std::mem::replace(place, anew).wait()?;
                self.staging.discard(&first.file)?;
            }
        }
        Ok(())
    }
}
