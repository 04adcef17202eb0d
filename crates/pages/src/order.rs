//! Puts the chunks of an object back in order, whoever finishes them first.
//!
//! A worker that comes too early parks its chunk and takes a spare buffer; when there is no spare, it
//! waits. That cannot lock up: jobs are taken in order, so the chunk everybody waits for is in the
//! hands of a worker that need not wait. Memory is bounded by workers and spares together.

use crate::dedup;
use crate::encode::Encoded;
use crate::key::ObjectKey;
use crate::pace::Pace;
use crate::pool::lock;
use crate::run;
use crate::seek::{self, Entry};
use crate::sink::PageSink;
use crate::store::{Format, StoreError};
use crate::summary::{ChunkSum, Summary};
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Buffers for chunks that wait for their turn, shared by all objects.
pub(crate) struct Spares(Mutex<Vec<Encoded>>);

impl Spares {
    pub(crate) fn new(count: usize, make: impl Fn() -> Encoded) -> Self {
        Self(Mutex::new((0..count).map(|_| make()).collect()))
    }

    fn take(&self) -> Option<Encoded> {
        lock(&self.0).pop()
    }

    fn give_back(&self, spare: Encoded) {
        lock(&self.0).push(spare);
    }
}

/// An object whose chunks are under way.
pub(crate) struct Object {
    pub(crate) key: ObjectKey,
    order: Mutex<Order>,
    turned: Condvar,
}

struct Order {
    /// The chunk to be written next.
    next: u64,
    /// Number of chunks, once known.
    total: Option<u64>,
    /// Taken by whoever writes; gone for good after the last chunk.
    out: Option<Box<Out>>,
    parked: BTreeMap<u64, Encoded>,
    aborted: bool,
}

impl Order {
    /// Takes the parked chunks that follow each other from `seq` on.
    fn behind(&mut self, seq: u64) -> Vec<Encoded> {
        (seq..).map_while(|seq| self.parked.remove(&seq)).collect()
    }
}

impl Object {
    pub(crate) fn new(key: ObjectKey, out: Out) -> Self {
        let out = Some(Box::new(out));
        let order = Order {
            next: 0,
            total: None,
            out,
            parked: BTreeMap::new(),
            aborted: false,
        };
        Self {
            key,
            order: Mutex::new(order),
            turned: Condvar::new(),
        }
    }

    /// Writes chunk `seq`, or leaves it to whoever writes its predecessor and replaces it by a spare.
    pub(crate) fn deliver(
        &self,
        seq: u64,
        chunk: &mut Encoded,
        spares: &Spares,
    ) -> Result<(), StoreError> {
        let Some((mut out, mut behind)) = self.wait_for_turn(seq, chunk, spares) else {
            return Ok(());
        };
        let mut next = seq;
        let mut first = Some(&*chunk);
        loop {
            let all: Vec<&Encoded> = first.take().into_iter().chain(&behind).collect();
            let count = all.len() as u64;
            let written = out.write(&all);
            behind.drain(..).for_each(|chunk| spares.give_back(chunk));
            if let Err(error) = written {
                self.put_back(out);
                return Err(self.write_error(next, error));
            }
            next += count;

            let mut order = lock(&self.order);
            order.next = next;
            behind = order.behind(next);
            if behind.is_empty() {
                order.out = Some(out);
                self.turned.notify_all();
                drop(order);
                return self.finish_if_complete();
            }
        }
    }

    /// The sink and the chunks parked behind this one, if the turn came; nothing if the chunk was parked or the object
    /// given up.
    fn wait_for_turn(
        &self,
        seq: u64,
        chunk: &mut Encoded,
        spares: &Spares,
    ) -> Option<(Box<Out>, Vec<Encoded>)> {
        let mut order = lock(&self.order);
        loop {
            if order.aborted {
                return None;
            }
            if order.next == seq
                && let Some(out) = order.out.take()
            {
                return Some((out, order.behind(seq + 1)));
            }
            if let Some(spare) = spares.take() {
                order.parked.insert(seq, std::mem::replace(chunk, spare));
                return None;
            }
            order = self
                .turned
                .wait(order)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says how many chunks there are.
    pub(crate) fn close(&self, total: u64) -> Result<(), StoreError> {
        lock(&self.order).total = Some(total);
        self.finish_if_complete()
    }

    fn finish_if_complete(&self) -> Result<(), StoreError> {
        let mut order = lock(&self.order);
        if order.total != Some(order.next) || order.aborted {
            return Ok(());
        }
        let Some(mut out) = order.out.take() else {
            return Ok(());
        };
        let seq = order.next;
        drop(order);
        let Err(error) = out.finish() else {
            return Ok(());
        };
        self.put_back(out);
        Err(self.write_error(seq, error))
    }

    /// Keeps a sink that has failed, so that the promise is broken only after somebody has noted why: with the object, or when
    /// it is given up.
    fn put_back(&self, out: Box<Out>) {
        let mut order = lock(&self.order);
        if !order.aborted {
            order.out = Some(out);
        }
    }

    /// Gives the object up: breaks its promise and wakes who waits for a turn.
    fn abort(&self) {
        let mut order = lock(&self.order);
        order.aborted = true;
        order.out = None;
        order.parked.clear();
        drop(order);
        self.turned.notify_all();
    }

    fn write_error(&self, chunk: u64, error: io::Error) -> StoreError {
        StoreError::Write {
            key: self.key,
            chunk,
            source: Arc::new(error),
        }
    }
}

/// The place of one chunk in its object; dropped without having been delivered, it aborts the object.
pub(crate) struct Turn {
    pub(crate) object: Arc<Object>,
    pub(crate) seq: u64,
    pub(crate) delivered: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.delivered {
            self.object.abort();
        }
    }
}

/// The sink of an object and what has gone into it.
pub(crate) struct Out {
    sink: Box<dyn PageSink>,
    summary: Summary,
    /// Lengths of the frames, for a zstd store.
    frames: Option<Vec<Entry>>,
    pace: Arc<Pace>,
    done: Sender<Summary>,
}

impl Out {
    pub(crate) fn new(
        sink: Box<dyn PageSink>,
        format: Format,
        pace: &Arc<Pace>,
        done: Sender<Summary>,
    ) -> Self {
        let frames = format.is_packed().then(Vec::new);
        Self {
            sink,
            summary: Summary::default(),
            frames,
            pace: Arc::clone(pace),
            done,
        }
    }

    /// Writes chunks that follow each other.
    fn write(&mut self, chunks: &[&Encoded]) -> io::Result<()> {
        let begun = Instant::now();
        let all: Vec<_> = chunks.iter().map(|chunk| chunk.as_chunk()).collect();
        self.sink.chunks(&all)?;
        let bytes = all.iter().map(|chunk| chunk.bytes.len()).sum();
        self.pace.written(bytes, begun);
        chunks.iter().try_for_each(|chunk| self.count(chunk))
    }

    /// Notes a chunk that was written.
    fn count(&mut self, chunk: &Encoded) -> io::Result<()> {
        let bytes = chunk.bytes().len();
        for run in &chunk.runs {
            run::append(&mut self.summary.pagemap, *run);
        }
        for reference in &chunk.references {
            dedup::append(&mut self.summary.references, *reference);
        }
        self.summary.count(chunk.pages, bytes);
        self.summary.zero_pages += chunk.zero_pages;
        if chunk.pages == 0 {
            return Ok(());
        }
        match &mut self.frames {
            Some(frames) if seek::is_full(frames) => return Err(io::ErrorKind::FileTooLarge.into()),
            // Both lengths are those of one chunk.
            Some(frames) => frames.push(Entry {
                packed: bytes as u32,
                unpacked: (chunk.pages * crate::PAGE_SIZE) as u32,
            }),
            None => self.summary.checksums.push(ChunkSum {
                pages: chunk.pages as u32,
                xxh3: chunk.xxh3,
            }),
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let trailer = self.frames.as_deref().map(seek::encode).unwrap_or_default();
        self.sink.finish(&trailer)?;
        self.summary.stored_bytes += trailer.len() as u64;
        // Nobody may want to know.
        let _ = self.done.send(std::mem::take(&mut self.summary));
        Ok(())
    }
}
