//! Private memory on its way into the page store, beside everything else. Sections 8.5 and 9 of the format.
//!
//! A thread of its own asks which pages there are and queues them; the workers of the store read, pack and write
//! them meanwhile. Dropping the [`Flow`] ends it early.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

use crate::layout::Layout;
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
            summary: Summary::default(),
        };
        Ok((stored, writer))
    }
}

/// The sink, for more, and what has been queued.
type AllQueued<'a> = (Sink<'a>, Vec<Queued>);

/// The thread that queues pages.
pub(crate) struct Flow<'scope, 'a> {
    stop: Arc<AtomicBool>,
    thread: Option<ScopedJoinHandle<'scope, Result<AllQueued<'a>, Error>>>,
}

impl<'scope, 'a> Flow<'scope, 'a> {
    /// Starts with the first task.
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        sink: Sink<'a>,
        tasks: &'scope [Task],
    ) -> Result<Self, Error>
    where
        'a: 'scope,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("scan".into());
        let thread = thread
            .spawn_scoped(scope, move || queue(sink, tasks, &told))
            .map_err(|source| StoreError::Start {
                source: Arc::new(source),
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Waits until all pages are queued.
    pub(crate) fn finish(mut self) -> Result<AllQueued<'a>, Error> {
        let joined = self.thread.take().map(ScopedJoinHandle::join);
        match joined {
            Some(Ok(queued)) => queued,
            _ => Err(StoreError::Panicked.into()),
        }
    }
}

impl Drop for Flow<'_, '_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn queue<'a>(
    mut sink: Sink<'a>,
    tasks: &[Task],
    stop: &AtomicBool,
) -> Result<AllQueued<'a>, Error> {
    let mut all = Vec::new();
    for task in tasks {
        if let Some(live) = &task.live
            && let Space::Own(layout) = &live.space
        {
            all.push(queue_task(&mut sink, task.pid, layout, stop)?);
        }
    }
    Ok((sink, all))
}

fn queue_task(
    sink: &mut Sink<'_>,
    pid: Pid,
    layout: &Layout,
    stop: &AtomicBool,
) -> Result<Queued, Error> {
    let _span = tracing::debug_span!("pages", pid = pid.as_raw_pid()).entered();
    let (mut stored, writer) = sink.begin(Owner::Task(pid.as_raw_pid()))?;
    let mut queue = Queue {
        memory: Arc::new(ProcessSource::new(pid)),
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
        failed,
        ..
    } = queue;
    if let Some(error) = failed {
        return Err(error.into());
    }
    stored.guards = guards;
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
    memory: Arc<dyn PageSource>,
    writer: ObjectWriter,
    /// Mappings not yet passed.
    areas: &'a [Area],
    layout: &'a Layout,
    guards: Vec<Range<u64>>,
    stop: &'a AtomicBool,
    failed: Option<StoreError>,
}

impl Queue<'_> {
    fn take(&mut self, region: Region) {
        if self.failed.is_some() {
            return;
        }
        if self.stop.load(Ordering::Relaxed) {
            self.failed = Some(StoreError::Stopped);
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
            if vma::pages(area) == Pages::Whole
                && let Some(vdso) = &self.layout.vdso
            {
                let source: Arc<dyn PageSource> = vdso.clone();
                let pushed = self.writer.push(&source, Extent::present(area.map.range()));
                self.note(pushed);
            }
            self.areas = rest;
        }
    }

    fn push(&mut self, area: &Area, range: Range<u64>) {
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
            self.failed.get_or_insert(error);
        }
    }
}
