//! Private memory on its way into the page store, beside everything else. Sections 8.5 and 9 of the format.
//!
//! A thread of its own looks at the mappings, asks which pages there are and queues them; the workers of the store
//! read, pack and write them meanwhile.

mod scan;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Scope, ScopedJoinHandle};

use gelid_image::Staging;
use gelid_pages::{Format, ObjectKey, ObjectWriter, Owner, Pending, Store, StoreError, Summary};
use gelid_sys::Pid;

pub(crate) use self::scan::Origin;
use crate::core::Cores;
use crate::frames::{Frames, Same};
use crate::layout::{Layout, Looker, Promise};
use crate::survey::{Space, Task};
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
    next: u32,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(store: Store, format: Format, staging: &'a Staging) -> Self {
        Self {
            store,
            format,
            staging,
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
        let sink = Box::new(self.staging.raw(&file)?);
        let writer = self.store.object(ObjectKey { pages_id, owner }, sink);
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

/// A thread that looks at address spaces, and later queues their pages.
pub(crate) struct Flow<'scope, 'a> {
    orders: Sender<Order>,
    looked: Receiver<Result<(), Error>>,
    stop: Arc<AtomicBool>,
    thread: ScopedJoinHandle<'scope, Result<AllQueued<'a>, Error>>,
}

enum Order {
    /// Look at the address space of a task.
    Look(Pid, Promise),
    /// The layout of a task that somebody else has looked at.
    Seen(Pid, Arc<Layout>),
    /// Queue the pages of all that were looked at, but for those of these tasks.
    Queue(HashSet<Pid>),
}

impl<'scope, 'a> Flow<'scope, 'a> {
    /// Starts the thread.
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        sink: Sink<'a>,
    ) -> Result<Self, Error>
    where
        'a: 'scope,
    {
        let (orders, taken) = mpsc::channel();
        let (seen, looked) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            sink,
            orders: taken,
            looked: seen,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new().name("scan".into());
        let thread = thread
            .spawn_scoped(scope, move || worker.run())
            .map_err(|source| StoreError::Start {
                source: Arc::new(source),
            })?;
        Ok(Self {
            orders,
            looked,
            stop,
            thread,
        })
    }

    /// Sets the pages of all address spaces looked at on their way, but for those of some tasks.
    pub(crate) fn queue(&self, without: HashSet<Pid>) -> Result<(), Error> {
        self.order(Order::Queue(without))
    }

    /// Waits until all pages are queued.
    pub(crate) fn finish(self) -> Result<AllQueued<'a>, Error> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(StoreError::Panicked.into()))
    }

    fn order(&self, order: Order) -> Result<(), Error> {
        Ok(self.orders.send(order).map_err(|_| StoreError::Panicked)?)
    }
}

impl Looker for Flow<'_, '_> {
    fn seen(&self, pid: Pid, layout: Arc<Layout>) -> Result<(), Error> {
        self.order(Order::Seen(pid, layout))
    }

    fn look(&self, pid: Pid, promise: Promise) -> Result<(), Error> {
        self.order(Order::Look(pid, promise))
    }

    fn looked(&self) -> Result<(), Error> {
        self.looked.recv().map_err(|_| StoreError::Panicked)?
    }
}

/// Tells the thread to stop when it is dropped.
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
    looked: Sender<Result<(), Error>>,
    stop: Arc<AtomicBool>,
}

impl<'a> Worker<'a> {
    fn run(mut self) -> Result<AllQueued<'a>, Error> {
        let mut known = Vec::new();
        // Without a caller there is nothing to do.
        let without = loop {
            let (pid, promise) = match self.orders.recv() {
                Ok(Order::Look(pid, promise)) => (pid, promise),
                Ok(Order::Seen(pid, layout)) => {
                    known.push((pid, layout));
                    continue;
                }
                Ok(Order::Queue(without)) => break without,
                Err(_) => return Err(StoreError::Stopped.into()),
            };
            let looked = Layout::read(pid).map(|layout| {
                let layout = Arc::new(layout);
                promise.keep(&layout);
                known.push((pid, layout));
            });
            if self.looked.send(looked).is_err() {
                return Err(StoreError::Stopped.into());
            }
        };
        known.retain(|(pid, _)| !without.contains(pid));
        let of = known.iter();
        let of = of.map(|(pid, layout)| (*pid, &**layout, Origin::task(*pid, layout)));
        let all = self.sink.queue(of, &self.stop)?;
        Ok((self.sink, all))
    }
}

impl Sink<'_> {
    /// Queues the pages of tasks. What several of them have in common is queued once, if the format has a word for it.
    pub(crate) fn queue<'l>(
        &mut self,
        tasks: impl ExactSizeIterator<Item = (Pid, &'l Layout, Origin)>,
        stop: &AtomicBool,
    ) -> Result<Vec<Queued>, Error> {
        // CRIU's own form of pages has none.
        let packed = self.format.is_packed();
        let mut frames = (packed && tasks.len() > 1).then(Frames::default);
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
        for (live, cores) in live.zip(cores) {
            if let Space::Own(layout) = &live.space
                && let Some(layout) = layout.get()
                && !cores.lent.iter().all(|range| layout.is_in_vdso(range))
                && let Some(place) = queued
                    .iter_mut()
                    .find(|queued| queued.stored.owner == Owner::Task(cores.pid.as_raw_pid()))
            {
                tracing::debug!(pid = cores.pid.as_raw_pid(), lent = ?cores.lent, "pages again");
                let (pid, go_on) = (cores.pid, AtomicBool::new(false));
                let anew = scan::queue(self, pid, Origin::task(pid, layout), layout, None, &go_on)?;
                let first = std::mem::replace(place, anew).wait()?;
                self.staging.discard(&first.file)?;
            }
        }
        Ok(())
    }
}
