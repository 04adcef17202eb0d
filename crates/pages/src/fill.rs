//! The reading pipeline: pages of many objects into the memory of many processes.

use crate::PAGE_SIZE;
use crate::compare::Comparison;
use crate::huge::Areas;
use crate::jobs::Jobs;
use crate::key::ObjectKey;
use crate::placement::{self, Layers, Placement};
use crate::pool::{Failure, Fault, Pool, Promise, default_workers, lock};
use crate::read::{ObjectReader, ReadError, Scratch};
use crate::target::PageTarget;
use crossbeam_channel::Sender;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// What a page holds until it is filled.
static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// Pages that are written by whoever asks, since to start a thread would take longer.
const AT_ONCE: u64 = 256;

/// Jobs that wait for each worker. Those of small processes are done before somebody who waits has woken up; each may
/// hold a file open.
const WAITING: usize = 12;

/// Why memory could not be filled. The first error ends the whole restore.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FillError {
    /// Worker threads could not be started.
    #[error("starting the page workers: {source}")]
    Start {
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The store is damaged or unreadable.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A run has no place in the address space, or pages that the store does not have.
    #[error("{key}: run of {nr_pages} pages at {vaddr:#x} does not fit")]
    Run {
        /// The object.
        key: ObjectKey,
        /// First address.
        vaddr: u64,
        /// Number of pages.
        nr_pages: u64,
    },
    /// The target failed: the process is gone, the address is not mapped.
    #[error("{key}: writing between {start:#x} and {end:#x}: {source}")]
    Write {
        /// The object.
        key: ObjectKey,
        /// First address of the batch.
        start: u64,
        /// Address behind the last of the batch.
        end: u64,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A worker panicked, which is a bug.
    #[error("a page worker panicked")]
    Panicked,
    /// The filler was dropped before all was done.
    #[error("the page filler was closed before all pages were written")]
    Stopped,
}

impl Fault for FillError {
    fn panicked() -> Self {
        Self::Panicked
    }

    fn stopped() -> Self {
        Self::Stopped
    }
}

/// One target to be filled from one object.
pub struct FillRequest {
    /// Where the pages are.
    pub reader: Arc<ObjectReader>,
    /// Where they go.
    pub target: Arc<dyn PageTarget>,
    /// Which go where: ascending by their first page, without overlap of addresses. A page may go to many places.
    pub placements: Vec<Placement>,
    /// Addresses that may be backed by huge pages: private anonymous mappings. Ascending.
    pub huge: Vec<Range<u64>>,
    /// Addresses where the target has pages that may be equal: those that are stay what they are, which may be shared
    /// with other processes. Ascending, and not in `huge`.
    pub compared: Vec<Range<u64>>,
}

/// What filling a target took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FillStats {
    /// Pages that hold what they should.
    pub pages: u64,
    /// Those of them that were there already.
    pub equal_pages: u64,
    /// Huge pages that the kernel gave.
    pub huge_pages: u64,
}

/// The reading end of the page store: a crew of workers, shared by all targets of a restore. They are started when
/// there is enough to do.
///
/// Dropping it gives up what is not yet done and joins the workers.
pub struct Filler {
    workers: Option<NonZeroUsize>,
    pool: OnceLock<Pool<Job, FillError>>,
    /// Fills what is small, as long as it has pages left.
    own: Mutex<(FillWorker, u64)>,
}

/// A few chunks of one request.
struct Job {
    request: Arc<Request>,
    chunks: Range<u64>,
}

/// A request shared by its jobs.
struct Request {
    reader: Arc<ObjectReader>,
    target: Arc<dyn PageTarget>,
    layers: Layers,
    areas: Areas,
    compared: Vec<Range<u64>>,
    stats: Mutex<FillStats>,
    jobs_left: AtomicU64,
    done: Sender<FillStats>,
}

impl Filler {
    /// A filler of `workers` threads; or of one for each core, if there is enough to do.
    #[must_use]
    pub fn new(workers: Option<NonZeroUsize>) -> Self {
        let at_once = if workers.is_none() { AT_ONCE } else { 0 };
        Self {
            workers,
            pool: OnceLock::new(),
            own: Mutex::new((FillWorker::default(), at_once)),
        }
    }

    /// Does or queues a request; waits while the queue is full.
    ///
    /// # Errors
    ///
    /// [`FillError::Run`] for this request; [`FillError::Start`] if the system gives no threads; else the first error
    /// of any request.
    pub fn fill(&self, request: FillRequest) -> Result<Filling, FillError> {
        self.fill_behind(request, |_| Ok(()))
    }

    /// The same, behind somebody who makes the target ready from its lowest address on: `ready` is called before each
    /// piece with the address below which all must be ready for it, which need not ascend.
    ///
    /// # Errors
    ///
    /// Those of [`Filler::fill`] and of `ready`.
    pub fn fill_behind<E: From<FillError>>(
        &self,
        request: FillRequest,
        ready: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<Filling, E> {
        placement::check(&request.reader, &request.placements)?;
        let pages = request.placements.iter().map(|place| place.nr_pages).sum();
        let mut own = lock(&self.own);
        let (worker, left) = &mut *own;
        if let Some(rest) = left.checked_sub(pages) {
            *left = rest;
            return each_job(request, Arc::default(), ready, |job| worker.run(&job));
        }
        drop(own);
        let submitter = self.pool()?.submitter();
        let failure = Arc::clone(submitter.failure());
        each_job(request, failure, ready, |job| submitter.submit(job))
    }

    fn pool(&self) -> Result<&Pool<Job, FillError>, FillError> {
        if let Some(pool) = self.pool.get() {
            return Ok(pool);
        }
        let workers = self.workers.unwrap_or_else(default_workers);
        let pool = Pool::start("fill", workers, WAITING * workers.get(), || {
            let mut worker = FillWorker::default();
            move |job: &mut Job| worker.run(job)
        });
        let pool = pool.map_err(|error| FillError::Start {
            source: Arc::new(error),
        })?;
        // Two at the same time: the second one goes.
        Ok(self.pool.get_or_init(|| pool))
    }
}

/// Cuts a request into jobs and has each of them done once its target is `ready`.
fn each_job<E: From<FillError>>(
    request: FillRequest,
    failure: Arc<Failure<FillError>>,
    mut ready: impl FnMut(u64) -> Result<(), E>,
    mut take: impl FnMut(Job) -> Result<(), FillError>,
) -> Result<Filling, E> {
    let (done, promise) = Promise::new(failure);
    let placements = request.placements;
    let request = Arc::new(Request {
        areas: Areas::new(&placements, &request.huge),
        layers: Layers::new(&placements),
        reader: request.reader,
        target: request.target,
        compared: request.compared,
        stats: Mutex::default(),
        // One for this function, so that the count cannot reach 0 early.
        jobs_left: AtomicU64::new(1),
        done,
    });
    let mut jobs = Jobs::new(&request.reader, &placements);
    while let Some(chunks) = jobs.next().map_err(FillError::from)? {
        ready(request.end_of(&chunks))?;
        request.jobs_left.fetch_add(1, Ordering::Relaxed);
        let request = Arc::clone(&request);
        take(Job { request, chunks })?;
    }
    request.job_done();
    Ok(Filling { promise })
}

impl Request {
    fn pages_of(&self, chunks: &Range<u64>) -> Range<u64> {
        let reader = &self.reader;
        reader.chunk_pages(chunks.start).start..reader.chunk_pages(chunks.end - 1).end
    }

    /// Where the pages of chunks go: the address behind the last of them.
    fn end_of(&self, chunks: &Range<u64>) -> u64 {
        let pages = self.pages_of(chunks);
        let placed = self.layers.placed(&pages);
        placed
            .map(|(_, addresses)| addresses.end)
            .max()
            .unwrap_or(0)
    }

    fn job_done(&self) {
        if self.jobs_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.target.filled();
            // Nobody may want to know.
            let _ = self.done.send(*lock(&self.stats));
        }
    }

    /// Asks for huge pages for `areas`; returns how many the kernel is known to have given.
    fn collapse(&self, areas: &[Range<u64>]) -> u64 {
        let start = Instant::now();
        match self.target.collapse(areas) {
            Ok(collapsed) => {
                let fast = self.areas.took(start.elapsed(), areas.len());
                if !fast && self.target.prefer_small() {
                    self.areas.refuse();
                }
                collapsed as u64
            }
            Err(_) => {
                self.areas.refuse();
                0
            }
        }
    }
}

/// The buffers of one worker.
#[derive(Default)]
struct FillWorker {
    scratch: Scratch,
    ranges: Vec<Range<u64>>,
    claimed: Vec<Range<u64>>,
    different: Vec<Range<u64>>,
    comparison: Comparison,
}

impl FillWorker {
    fn run(&mut self, job: &Job) -> Result<(), FillError> {
        let mut stats = FillStats::default();
        self.collapse(job, &mut stats)?;
        for chunk in job.chunks.clone() {
            self.fill_chunk(&job.request, chunk, &mut stats)?;
        }
        let mut total = lock(&job.request.stats);
        total.pages += stats.pages;
        total.equal_pages += stats.equal_pages;
        total.huge_pages += stats.huge_pages;
        drop(total);
        job.request.job_done();
        Ok(())
    }

    /// Asks for huge pages for what a job fills, before it does.
    fn collapse(&mut self, job: &Job, stats: &mut FillStats) -> Result<(), FillError> {
        let Job { request, chunks } = job;
        self.claimed.clear();
        self.ranges.clear();
        let pages = request.pages_of(chunks);
        for (_, addresses) in request.layers.placed(&pages) {
            let first = self.claimed.len();
            request.areas.claim(&addresses, &mut self.claimed);
            // The kernel collapses only where there is a page already. It is one that this job fills later, for
            // another worker may be at the rest of the area.
            self.ranges.extend(self.claimed[first..].iter().map(|area| {
                let start = area.start.max(addresses.start);
                start..start + PAGE_SIZE as u64
            }));
        }
        for page in &self.ranges {
            write(request, &ZEROS, slice::from_ref(page))?;
        }
        if !self.claimed.is_empty() {
            stats.huge_pages += request.collapse(&self.claimed);
        }
        Ok(())
    }

    fn fill_chunk(
        &mut self,
        request: &Request,
        chunk: u64,
        stats: &mut FillStats,
    ) -> Result<(), FillError> {
        let Self {
            scratch,
            ranges,
            different,
            comparison,
            ..
        } = self;
        let (pages, bytes) = request.reader.chunk(scratch, chunk)?;
        let bytes_of = |part: &Range<u64>| {
            let at = |page: u64| (page - pages.start) as usize * PAGE_SIZE;
            &bytes[at(part.start)..at(part.end)]
        };
        ranges.clear();
        // Pages gathered so far for one write: consecutive in the store.
        let mut batch = pages.start..pages.start;
        for (whole, addresses) in request.layers.placed(&pages) {
            stats.pages += whole.end - whole.start;
            different.clear();
            comparison.different(
                &*request.target,
                &request.compared,
                &addresses,
                bytes_of(&whole),
                different,
            );
            stats.equal_pages += whole.end - whole.start;
            for at in different.drain(..) {
                stats.equal_pages -= (at.end - at.start) / PAGE_SIZE as u64;
                let start = whole.start + (at.start - addresses.start) / PAGE_SIZE as u64;
                let part = start..start + (at.end - at.start) / PAGE_SIZE as u64;
                if part.start != batch.end {
                    write(request, bytes_of(&batch), ranges)?;
                    ranges.clear();
                    batch.start = part.start;
                }
                batch.end = part.end;
                ranges.push(at);
            }
        }
        write(request, bytes_of(&batch), ranges)
    }
}

fn write(request: &Request, bytes: &[u8], ranges: &[Range<u64>]) -> Result<(), FillError> {
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
        return Ok(());
    };
    request
        .target
        .write(bytes, ranges)
        .map_err(|error| FillError::Write {
            key: request.reader.key(),
            start: first.start,
            end: last.end,
            source: Arc::new(error),
        })
}

/// The promise that a request will be done.
#[must_use = "memory is filled only once this has been waited for"]
pub struct Filling {
    promise: Promise<FillStats, FillError>,
}

impl Filling {
    /// Waits until the last page is in place.
    ///
    /// # Errors
    ///
    /// The first error of any request of the filler.
    pub fn wait(self) -> Result<FillStats, FillError> {
        self.promise.wait()
    }
}
