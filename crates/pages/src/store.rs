//! The writing pipeline: many objects, one crew of workers.

use crate::dedup::Known;
use crate::earlier::Earlier;
use crate::encode::{Encoded, Encoder, Job};
use crate::key::ObjectKey;
use crate::order::{Object, Out, Spares, Turn};
use crate::pace::Pace;
use crate::pool::{Fault, Pool, Promise, Submitter, default_workers};
use crate::read::ReadError;
use crate::run::RunFlags;
use crate::sink::PageSink;
use crate::source::{PageSource, byte_len};
use crate::summary::Summary;
use crate::{CHUNK_BYTES, CHUNK_PAGES, PAGE_SIZE};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

/// Spare buffers beyond one for each worker, so that one slow chunk does not hold up the others.
const MAX_SPARES: usize = 4;
/// Pieces in a chunk; those without data take no part in the limit of bytes.
const MAX_PIECES: usize = 1024;
/// Chunks that may wait to be read: whoever finds out which pages there are is not to wait for those who read them, as he
/// may have much to do yet. With as many pieces as there can be they take 16 MiB. Where there is one worker, two do.
const WAITING: usize = 512;

/// How the pages of an object are laid out in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `pages-N.img`: the pages one behind the other.
    Raw,
    /// `pages-N.img.zst`: the same as independent zstd frames with a seek table.
    Zstd {
        /// Level of compression: -7 (fastest) to 19; 1 is a good choice.
        level: i32,
    },
    /// The same, as hard as is worth while: a fast disk gets larger files sooner, up to a third of the bytes.
    Adaptive,
}

impl Format {
    /// Whether files hold zstd frames.
    #[must_use]
    pub fn is_packed(self) -> bool {
        !matches!(self, Self::Raw)
    }
}

/// Settings of a [`Store`].
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Layout of every object.
    pub format: Format,
    /// Threads that read and encode; `None` for [as many as there are cores](default_workers).
    pub workers: Option<NonZeroUsize>,
    /// Whether pages that are equal to others of the store are left out, where [extents](Extent::alike) allow it and the
    /// format is packed: [`Summary::references`] tells where they are.
    pub dedup: bool,
}

impl Default for StoreOptions {
    /// Frames of zstd, on all cores (sixteen at most).
    fn default() -> Self {
        Self {
            format: Format::Adaptive,
            workers: None,
            dedup: false,
        }
    }
}

/// Why pages could not be stored. The first error ends the whole dump.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Worker threads could not be started.
    #[error("starting the page workers: {source}")]
    Start {
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// An extent is empty, unaligned or does not lie behind its predecessor.
    #[error("{key}: extent {start:#x}-{end:#x} is empty, unaligned or out of order")]
    Extent {
        /// The object.
        key: ObjectKey,
        /// First address.
        start: u64,
        /// Address behind the last.
        end: u64,
    },
    /// The source failed: the process is gone, the address is not mapped.
    #[error("{key}: reading between {start:#x} and {end:#x}: {source}")]
    Read {
        /// The object.
        key: ObjectKey,
        /// First address of the chunk.
        start: u64,
        /// Address behind the last of the chunk.
        end: u64,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A page that an earlier set has could not be read, to be compared.
    #[error("earlier images: {0}")]
    Earlier(#[from] ReadError),
    /// The compressor failed.
    #[error("{key}: compressing chunk {chunk}: {reason}")]
    Compress {
        /// The object.
        key: ObjectKey,
        /// Number of the chunk.
        chunk: u64,
        /// What zstd said.
        reason: &'static str,
    },
    /// The sink failed.
    #[error("{key}: writing chunk {chunk}: {source}")]
    Write {
        /// The object.
        key: ObjectKey,
        /// Number of the chunk.
        chunk: u64,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A worker panicked, which is a bug.
    #[error("a page worker panicked")]
    Panicked,
    /// The store was dropped, or the object not finished.
    #[error("the page store was closed before all pages were written")]
    Stopped,
}

impl Fault for StoreError {
    fn panicked() -> Self {
        Self::Panicked
    }

    fn stopped() -> Self {
        Self::Stopped
    }
}

/// Whether pages of zeros are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeros {
    /// They are: the memory is not zero where nothing is restored (a private file mapping), or an older
    /// image has something else there.
    Keep,
    /// They are left out: fresh memory is zero.
    Drop,
}

/// Adjacent pages of an object on their way into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Addresses, or byte offsets in a shared object; both ends multiples of the page size.
    pub range: Range<u64>,
    /// What the pagemap will say. Only extents with [`RunFlags::PRESENT`] are read.
    pub flags: RunFlags,
    /// What becomes of pages of zeros.
    pub zeros: Zeros,
    /// Whether pages may be left out that are equal to others or in an earlier set, and others refer to these.
    pub alike: bool,
}

impl Extent {
    /// Pages to be stored, whatever they hold.
    #[must_use]
    pub fn present(range: Range<u64>) -> Self {
        Self {
            range,
            flags: RunFlags::PRESENT,
            zeros: Zeros::Keep,
            alike: false,
        }
    }

    /// Pages to be stored unless they are zero: those of private anonymous memory, which are also
    /// marked as fit for a lazy restore.
    #[must_use]
    pub fn anonymous(range: Range<u64>) -> Self {
        Self {
            range,
            flags: RunFlags::PRESENT | RunFlags::LAZY,
            zeros: Zeros::Drop,
            alike: true,
        }
    }

    /// Pages that the parent image set holds: recorded, not read.
    #[must_use]
    pub fn in_parent(range: Range<u64>) -> Self {
        Self {
            range,
            flags: RunFlags::PARENT,
            zeros: Zeros::Keep,
            alike: false,
        }
    }
}

/// The writing end of the page store: a crew of workers, shared by all objects of a dump.
///
/// Dropping it gives up what is not yet written and joins the workers.
pub struct Store {
    pool: Pool<Job, StoreError>,
    format: Format,
    pace: Arc<Pace>,
    known: Option<Arc<Known>>,
}

impl Store {
    /// Starts the workers.
    ///
    /// # Errors
    ///
    /// [`StoreError::Start`] if the system gives no threads.
    pub fn start(options: StoreOptions) -> Result<Self, StoreError> {
        let StoreOptions {
            format,
            workers,
            dedup,
        } = options;
        let workers = workers.unwrap_or_else(default_workers);
        let spares = workers.get().min(MAX_SPARES);
        let spares = Arc::new(Spares::new(spares, || Encoded::new(format)));
        let pace = Arc::new(Pace::new(workers.get()));
        let waiting = if workers.get() > 1 { WAITING } else { 2 };
        let pool = Pool::start("pages", workers, waiting, || worker(format, &pace, &spares));
        let pool = pool.map_err(Arc::new);
        let pool = pool.map_err(|source| StoreError::Start { source })?;
        Ok(Self {
            pool,
            format,
            pace,
            known: (dedup && format.is_packed()).then(Arc::default),
        })
    }

    /// No workers: whoever pushes pages reads, packs and writes them. For so few that to start a thread takes longer.
    #[must_use]
    pub fn in_place(format: Format) -> Self {
        let pace = Arc::new(Pace::new(1));
        // Chunks of an object come in their order, so that none has to wait for another one.
        let spares = Arc::new(Spares::new(0, || Encoded::new(format)));
        Self {
            pool: Pool::in_place(worker(format, &pace, &spares)),
            format,
            pace,
            known: None,
        }
    }

    /// Lets the workers end, as all objects are finished; nothing more can be written. Dropping the store waits for them.
    pub fn dismiss(&mut self) {
        self.pool.dismiss();
    }

    /// So many bytes of the memory are not pushed, since others that are have the same pages. Where the format packs as fast
    /// as it can, images may be the larger for it, in bytes a third of the memory that they stand for.
    pub fn shared(&self, bytes: u64) {
        self.pace.shared(bytes);
    }

    /// Objects begun from now on do not refer to those begun before; false if none does anyway.
    pub fn forget(&mut self) -> bool {
        self.known = self.known.take().map(|_| Arc::default());
        self.known.is_some()
    }

    /// Begins an object, whose bytes go to `sink`: a file, a stream, any [`Write`](io::Write).
    #[must_use]
    pub fn object(&self, key: ObjectKey, sink: Box<dyn PageSink>) -> ObjectWriter {
        let submitter = self.pool.submitter().clone();
        let (done, promise) = Promise::new(Arc::clone(submitter.failure()));
        let out = Out::new(sink, self.format, &self.pace, done);
        let object = Arc::new(Object::new(key, out));
        ObjectWriter {
            next: Turn {
                object,
                seq: 0,
                delivered: false,
            },
            submitter,
            promise,
            known: self.known.clone(),
            earlier: None,
            end: 0,
            chunk: Gathering::default(),
        }
    }
}

/// What is done with a chunk by one that has buffers and a compressor of its own.
fn worker(
    format: Format,
    pace: &Arc<Pace>,
    spares: &Arc<Spares>,
) -> impl FnMut(&mut Job) -> Result<(), StoreError> + Send + use<> {
    let mut encoder = Encoder::new(format, pace);
    let spares = Arc::clone(spares);
    move |job| {
        encoder.encode(job)?;
        let Turn {
            object,
            seq,
            delivered,
        } = &mut job.turn;
        object.deliver(*seq, &mut encoder.chunk, &spares)?;
        *delivered = true;
        Ok(())
    }
}

/// An object being written. Dropping it unfinished gives the object up.
pub struct ObjectWriter {
    submitter: Submitter<Job, StoreError>,
    promise: Promise<Summary, StoreError>,
    /// The place of the chunk being gathered.
    next: Turn,
    known: Option<Arc<Known>>,
    earlier: Option<Arc<Earlier>>,
    /// End of the last extent.
    end: u64,
    chunk: Gathering,
}

/// A chunk being put together from small extents.
#[derive(Default)]
struct Gathering {
    source: Option<Arc<dyn PageSource>>,
    pieces: Vec<Extent>,
    data_pages: usize,
}

impl ObjectWriter {
    /// Leaves pages added from now on to an earlier set that has the same at the same addresses, where
    /// [extents](Extent::alike) allow it: the pagemap says [`RunFlags::PARENT`] of them.
    pub fn compare_with(&mut self, earlier: Arc<Earlier>) {
        self.earlier = Some(earlier);
    }

    /// Adds pages of `source`, all of them behind those added before.
    ///
    /// Returns as soon as they are queued, and waits while the queue is full; the source is read later
    /// and must not change until [`finish`](Self::finish)'s promise is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError::Extent`] for this extent; else the first error of any object.
    pub fn push(&mut self, source: &Arc<dyn PageSource>, extent: Extent) -> Result<(), StoreError> {
        let Range { start, end } = extent.range;
        let page = PAGE_SIZE as u64;
        if start >= end || start < self.end || start % page != 0 || end % page != 0 {
            return Err(StoreError::Extent {
                key: self.key(),
                start,
                end,
            });
        }
        self.end = end;
        if self
            .chunk
            .source
            .as_ref()
            .is_some_and(|open| !Arc::ptr_eq(open, source))
        {
            self.flush()?;
        }
        let mut rest = extent;
        while rest.range.start < end {
            self.chunk.source.get_or_insert_with(|| Arc::clone(source));
            if self.chunk.take_from(&mut rest) {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Says that no more pages come. They need not have been written yet: see [`Pending::wait`].
    ///
    /// # Errors
    ///
    /// The first error of any object.
    pub fn finish(mut self) -> Result<Pending, StoreError> {
        self.flush()?;
        let key = self.key();
        self.next.delivered = true;
        let closed = self.next.object.close(self.next.seq);
        closed.inspect_err(|error| self.submitter.failure().raise(error.clone()))?;
        Ok(Pending {
            key,
            promise: self.promise,
        })
    }

    fn key(&self) -> ObjectKey {
        self.next.object.key
    }

    /// Hands the chunk gathered so far, if any, to the workers.
    fn flush(&mut self) -> Result<(), StoreError> {
        let Gathering { source, pieces, .. } = std::mem::take(&mut self.chunk);
        let Some(source) = source else {
            return Ok(());
        };
        let object = Arc::clone(&self.next.object);
        let next = Turn {
            object,
            seq: self.next.seq + 1,
            delivered: false,
        };
        let turn = std::mem::replace(&mut self.next, next);
        let is_alike = pieces.iter().any(|piece| piece.alike);
        let known = self.known.as_ref().filter(|_| is_alike);
        let earlier = self.earlier.clone().filter(|_| is_alike);
        let submit = |ticket| {
            self.submitter.submit(Job {
                turn,
                source,
                pieces,
                ticket,
                earlier,
            })
        };
        match known {
            Some(known) => known.queue(|ticket| submit(Some(ticket))),
            None => submit(None),
        }
    }
}

impl Gathering {
    /// Takes from the front of `rest` what fits; true if the chunk should go out now.
    fn take_from(&mut self, rest: &mut Extent) -> bool {
        let mut piece = rest.clone();
        if piece.flags.contains(RunFlags::PRESENT) {
            piece.range.end = cut(&rest.range, CHUNK_PAGES - self.data_pages);
            self.data_pages += byte_len(&piece.range) / PAGE_SIZE;
        }
        rest.range.start = piece.range.end;
        self.pieces.push(piece);
        let is_full = self.data_pages == CHUNK_PAGES || self.pieces.len() >= MAX_PIECES;
        is_full || !rest.range.is_empty()
    }
}

/// Where a chunk with room for `room` pages ends in `range`.
///
/// Long ranges are cut at multiples of a chunk, so that the two halves of a huge page come back in two
/// whole chunks.
fn cut(range: &Range<u64>, room: usize) -> u64 {
    let chunk = CHUNK_BYTES as u64;
    let len = range.end - range.start;
    if len <= (room * PAGE_SIZE) as u64 {
        return range.end;
    }
    let full = range.start + (room * PAGE_SIZE) as u64;
    let aligned = full / chunk * chunk;
    if len >= 2 * chunk && aligned > range.start {
        aligned
    } else {
        full
    }
}

/// The promise of a [`Summary`] for a finished object.
#[must_use = "an object is in the store only once its summary is there"]
pub struct Pending {
    key: ObjectKey,
    promise: Promise<Summary, StoreError>,
}

impl Pending {
    /// The object.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        self.key
    }

    /// Waits until the last page is written.
    ///
    /// # Errors
    ///
    /// The first error of any object of the store.
    pub fn wait(self) -> Result<Summary, StoreError> {
        let summary = self.promise.wait()?;
        let Summary {
            pages,
            zero_pages,
            stored_bytes,
            ..
        } = summary;
        tracing::debug!(object = %self.key, pages, zero_pages, stored_bytes, "pages stored");
        Ok(summary)
    }
}
