//! Private memory on its way into the page store, beside everything else. Sections 8.5 and 9 of the format.
//!
//! A thread of its own looks at the mappings, asks which pages there are and queues them; the workers of the store
//! read, pack and write them meanwhile.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Scope, ScopedJoinHandle};

use gelid_image::Staging;
use gelid_pages::{
    Extent, Format, ObjectKey, ObjectWriter, Owner, PAGE_SIZE, PageSource, Pending, ProcessSource,
    RunFlags, Store, StoreError, Summary, Zeros,
};
use gelid_sys::pagemap::{self, Categories, Query, Region, ScanFlags};
use gelid_sys::proc::smaps::Area;
use gelid_sys::{Errno, Pid, proc};
use rustix::fs::OFlags;

use crate::core::Cores;
use crate::frames::{Frames, Piece, Same, is_shared, shared};
use crate::layout::{Layout, Looker};
use crate::survey::{Space, Task};
use crate::vma::{self, Kind, Pages};
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
    layouts: Receiver<(usize, Result<Arc<Layout>, Error>)>,
    stop: Arc<AtomicBool>,
    thread: ScopedJoinHandle<'scope, Result<AllQueued<'a>, Error>>,
}

enum Order {
    /// Look at the address space of a task; the number is the caller's.
    Look(usize, Pid),
    /// The layout of a task that somebody else has looked at.
    Seen(Pid, Arc<Layout>),
    /// Queue the pages of all that were looked at.
    Queue,
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
        let (seen, layouts) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            sink,
            orders: taken,
            layouts: seen,
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
            layouts,
            stop,
            thread,
        })
    }

    /// Sets the pages of all address spaces looked at on their way.
    pub(crate) fn queue(&self) -> Result<(), Error> {
        self.order(Order::Queue)
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

    fn look(&self, index: usize, pid: Pid) -> Result<(), Error> {
        self.order(Order::Look(index, pid))
    }

    fn layout(&self) -> Result<(usize, Arc<Layout>), Error> {
        let (index, layout) = self.layouts.recv().map_err(|_| StoreError::Panicked)?;
        Ok((index, layout?))
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
    layouts: Sender<(usize, Result<Arc<Layout>, Error>)>,
    stop: Arc<AtomicBool>,
}

impl<'a> Worker<'a> {
    fn run(mut self) -> Result<AllQueued<'a>, Error> {
        let mut known = Vec::new();
        // Without a caller there is nothing to do.
        loop {
            let (index, pid) = match self.orders.recv() {
                Ok(Order::Look(index, pid)) => (index, pid),
                Ok(Order::Seen(pid, layout)) => {
                    known.push((pid, layout));
                    continue;
                }
                Ok(Order::Queue) | Err(_) => break,
            };
            let layout = Layout::read(pid).map(Arc::new);
            if let Ok(layout) = &layout {
                known.push((pid, Arc::clone(layout)));
            }
            if self.layouts.send((index, layout)).is_err() {
                return Err(StoreError::Stopped.into());
            }
        }
        let mut all = Vec::with_capacity(known.len());
        // CRIU's own form of pages has no word for it.
        let packed = matches!(self.sink.format, Format::Zstd { .. });
        let mut frames = (packed && known.len() > 1).then(Frames::default);
        for (pid, layout) in known {
            all.push(queue(
                &mut self.sink,
                pid,
                &layout,
                frames.as_mut(),
                &self.stop,
            )?);
        }
        Ok((self.sink, all))
    }
}

impl Sink<'_> {
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
                && !cores.lent.iter().all(|range| layout.is_in_vdso(range))
                && let Some(place) = queued
                    .iter_mut()
                    .find(|queued| queued.stored.owner == Owner::Task(cores.pid.as_raw_pid()))
            {
                tracing::debug!(pid = cores.pid.as_raw_pid(), lent = ?cores.lent, "pages again");
                let anew = queue(self, cores.pid, layout, None, &AtomicBool::new(false))?;
                let first = std::mem::replace(place, anew).wait()?;
                self.staging.discard(&first.file)?;
            }
        }
        Ok(())
    }
}

/// Whether pages of an area are stored as they are found.
fn stores(area: &Area) -> bool {
    !matches!(vma::pages(area), Pages::None | Pages::Whole)
}

/// Queues the pages of a task, but for those that `frames` finds among those of earlier ones.
fn queue(
    sink: &mut Sink<'_>,
    pid: Pid,
    layout: &Layout,
    mut frames: Option<&mut Frames>,
    stop: &AtomicBool,
) -> Result<Queued, Error> {
    let _span = tracing::debug_span!("pages", pid = pid.as_raw_pid()).entered();
    let (mut stored, writer) = sink.begin(Owner::Task(pid.as_raw_pid()))?;
    if let Some(frames) = &mut frames {
        frames.open(pid)?;
    }
    let mut queue = Queue {
        pid,
        frames,
        same: Vec::new(),
        memory: Arc::new(ProcessSource::new(pid).sharing(shared(&layout.areas))),
        writer,
        areas: &layout.areas,
        layout,
        guards: Vec::new(),
        stop,
        failed: None,
    };
    let pagemap = proc::task_dir(pid)?.open_file("pagemap", OFlags::RDONLY)?;
    for span in spans(&layout.areas) {
        let mut take = |region| queue.take(region);
        let scanned = match pagemap::scan_each(&pagemap, span.clone(), &QUERY, &mut take) {
            // Kernels before 6.18 do not know of guard markers here.
            Err(Errno::INVAL) => pagemap::scan_each(&pagemap, span, &UNGUARDED, &mut take),
            scanned => scanned,
        };
        scanned.map_err(|errno| Error::Scan { pid, errno })?;
    }
    // The vDSO may lie behind the last page that was found.
    queue.pass(u64::MAX);
    let Queue {
        writer,
        guards,
        same,
        failed,
        ..
    } = queue;
    if let Some(error) = failed {
        return Err(error);
    }
    stored.guards = guards;
    stored.same = same;
    stored.scanned = scanned(&layout.areas);
    let pending = writer.finish()?;
    Ok(Queued { stored, pending })
}

/// Pages that are there and are neither of a file nor the page of zeros; guard markers.
const QUERY: Query = {
    let not = Categories::FILE.union(Categories::PFNZERO);
    Query {
        inverted: not,
        required: not,
        any_of: Categories::PRESENT
            .union(Categories::SWAPPED)
            .union(Categories::GUARD),
        report: Categories::GUARD,
        flags: ScanFlags::empty(),
    }
};

/// The same without guard markers.
const UNGUARDED: Query = Query {
    any_of: Categories::PRESENT.union(Categories::SWAPPED),
    report: Categories::empty(),
    ..QUERY
};

/// The ranges to scan: all mappings that may have pages of their own or guard markers, and what lies between.
fn spans(areas: &[Area]) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    let mut adjoining = false;
    for area in areas {
        let scanned = is_scanned(area);
        match spans.last_mut() {
            Some(span) if scanned && adjoining => span.end = area.map.end,
            _ if scanned => spans.push(area.map.range()),
            _ => {}
        }
        adjoining = scanned;
    }
    spans
}

fn is_scanned(area: &Area) -> bool {
    matches!(vma::kind(area), Kind::Heap | Kind::Anonymous | Kind::File)
}

fn scanned(areas: &[Area]) -> u64 {
    let stored = areas.iter().filter(|area| vma::pages(area) != Pages::None);
    stored.map(|area| area.map.size()).sum::<u64>() / PAGE_SIZE as u64
}

/// Cuts what the scan found to the mappings it lies in.
struct Queue<'a> {
    pid: Pid,
    frames: Option<&'a mut Frames>,
    same: Vec<Same>,
    memory: Arc<dyn PageSource>,
    writer: ObjectWriter,
    /// Mappings not yet passed.
    areas: &'a [Area],
    layout: &'a Layout,
    guards: Vec<Range<u64>>,
    stop: &'a AtomicBool,
    failed: Option<Error>,
}

impl Queue<'_> {
    fn take(&mut self, region: Region) {
        if self.failed.is_some() {
            return;
        }
        if self.stop.load(Ordering::Relaxed) {
            self.failed = Some(StoreError::Stopped.into());
            return;
        }
        self.pass(region.start);
        let guard = region.categories.contains(Categories::GUARD);
        for area in self.areas {
            if area.map.start >= region.end {
                break;
            }
            let range = area.map.start.max(region.start)..area.map.end.min(region.end);
            if guard {
                self.guard(area, range);
            } else {
                self.push(area, range);
            }
        }
        self.pass(region.end);
    }

    /// Leaves behind the mappings that end at or below `address`. The code of the kernel among them is stored
    /// whole, whatever the scan says.
    fn pass(&mut self, address: u64) {
        while let Some((area, rest)) = self.areas.split_first()
            && area.map.end <= address
        {
            let whole: Option<Arc<dyn PageSource>> = match vma::kind(area) {
                Kind::Aio => Some(Arc::clone(&self.memory)),
                _ if vma::pages(area) != Pages::Whole => None,
                _ => match &self.layout.vdso {
                    Some(vdso) => Some(Arc::<gelid_pages::Memory>::clone(vdso)),
                    None => None,
                },
            };
            if let Some(source) = whole {
                let pushed = self.writer.push(&source, Extent::present(area.map.range()));
                self.note(pushed);
            }
            self.areas = rest;
        }
    }

    fn push(&mut self, area: &Area, range: Range<u64>) {
        let common = self.frames.as_mut().filter(|_| is_shared(area));
        let Some(frames) = common else {
            return self.push_own(area, range);
        };
        let mut pieces = Vec::new();
        if let Err(errno) = frames.sort(self.pid, range, &mut pieces) {
            let pid = self.pid;
            self.failed.get_or_insert(Error::Scan { pid, errno });
        }
        for piece in pieces {
            match piece {
                Piece::Own(range) => self.push_own(area, range),
                Piece::Same(same) if stores(area) => self.same.push(same),
                Piece::Same(_) => {}
            }
        }
    }

    fn push_own(&mut self, area: &Area, range: Range<u64>) {
        let extent = match vma::pages(area) {
            Pages::None | Pages::Whole => return,
            Pages::Anonymous { lazy: true } => Extent::anonymous(range),
            Pages::Anonymous { lazy: false } => Extent {
                range,
                flags: RunFlags::PRESENT,
                zeros: Zeros::Drop,
            },
            Pages::Copied => Extent::present(range),
        };
        let pushed = self.writer.push(&self.memory, extent);
        self.note(pushed);
    }

    fn guard(&mut self, area: &Area, range: Range<u64>) {
        if !is_scanned(area) {
            return;
        }
        match self.guards.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.guards.push(range),
        }
    }

    fn note(&mut self, pushed: Result<(), StoreError>) {
        if let Err(error) = pushed {
            self.failed.get_or_insert(error.into());
        }
    }
}
