//! What a worker does with one chunk: read, leave out zeros, pack or checksum.

use crate::dedup::{self, Finder, Found, Reference, Ticket};
use crate::earlier::{Comparer, Earlier};
use crate::frame::{self, Packer};
use crate::order::Turn;
use crate::pace::{Effort, Pace};
use crate::run::{self, Run, RunFlags};
use crate::sample::is_zero;
use crate::sink::Chunk;
use crate::source::{PageSource, byte_len};
use crate::store::{Extent, Format, StoreError, Zeros};
use crate::{CHUNK_BYTES, PAGE_SIZE};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use twox_hash::XxHash3_64;
use zstd_safe::ErrorCode;

/// A chunk to be read: at most [`CHUNK_BYTES`] of data in ascending pieces.
pub(crate) struct Job {
    pub(crate) turn: Turn,
    pub(crate) source: Arc<dyn PageSource>,
    pub(crate) pieces: Vec<Extent>,
    /// To leave out what others have; gone once that has been looked up.
    pub(crate) ticket: Option<Ticket>,
    /// What an earlier set has of the object, to be left to it.
    pub(crate) earlier: Option<Arc<Earlier>>,
}

/// A chunk ready to be written; the buffer is reused.
pub(crate) struct Encoded {
    pub(crate) runs: Vec<Run>,
    pub(crate) references: Vec<Reference>,
    pub(crate) pages: usize,
    pub(crate) zero_pages: u64,
    /// Checksum of a raw chunk.
    pub(crate) xxh3: u64,
    buffer: Vec<u8>,
    len: usize,
}

impl Encoded {
    pub(crate) fn new(format: Format) -> Self {
        let room = match format.is_packed() {
            true => frame::bound(CHUNK_BYTES),
            false => CHUNK_BYTES,
        };
        Self {
            runs: Vec::new(),
            references: Vec::new(),
            pages: 0,
            zero_pages: 0,
            xxh3: 0,
            buffer: vec![0; room],
            len: 0,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(crate) fn as_chunk(&self) -> Chunk<'_> {
        Chunk {
            runs: &self.runs,
            bytes: self.bytes(),
        }
    }
}

/// The buffers and the compressor of one worker.
pub(crate) struct Encoder {
    /// The output for raw stores is what was read; for zstd it is read into a buffer beside.
    zstd: Option<Zstd>,
    pub(crate) chunk: Encoded,
    ranges: Vec<Range<u64>>,
    comparer: Comparer,
    finder: Finder,
}

struct Zstd {
    /// `None`: as hard as the pace allows.
    level: Option<i32>,
    pace: Arc<Pace>,
    /// Made at first use, so that it belongs to the worker's thread.
    packer: Option<Packer>,
    pages: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(format: Format, pace: &Arc<Pace>) -> Self {
        let level = match format {
            Format::Zstd { level } => Some(level),
            Format::Raw | Format::Adaptive => None,
        };
        let zstd = format.is_packed().then(|| Zstd {
            level,
            pace: Arc::clone(pace),
            packer: None,
            pages: vec![0; CHUNK_BYTES],
        });
        Self {
            zstd,
            chunk: Encoded::new(format),
            ranges: Vec::new(),
            comparer: Comparer::default(),
            finder: Finder::default(),
        }
    }

    /// Turns `job` into [`Self::chunk`].
    pub(crate) fn encode(&mut self, job: &mut Job) -> Result<(), StoreError> {
        let Self {
            zstd,
            chunk,
            ranges,
            comparer,
            finder,
        } = self;
        let pages = match zstd {
            Some(zstd) => &mut zstd.pages,
            None => &mut chunk.buffer,
        };
        read(job, ranges, pages)?;
        chunk.runs.clear();
        chunk.references.clear();
        let len = ranges.iter().map(byte_len).sum();
        let pages = &mut pages[..len];
        let held = match &job.earlier {
            Some(earlier) => comparer.compare(earlier, &job.pieces, pages)?,
            None => &[],
        };
        let found = match job.ticket.take() {
            Some(ticket) => finder.find(job.turn.object.key, ticket, &job.pieces, pages),
            None => &[],
        };
        let lists = (&mut chunk.runs, &mut chunk.references);
        let kept = keep(&job.pieces, (held, found), pages, lists);
        let len = kept.pages * PAGE_SIZE;
        (chunk.pages, chunk.zero_pages) = (kept.pages, kept.zero_pages);
        chunk.len = match zstd {
            _ if len == 0 => 0,
            Some(zstd) => {
                zstd.pack(len, &mut chunk.buffer)
                    .map_err(|code| StoreError::Compress {
                        key: job.turn.object.key,
                        chunk: job.turn.seq,
                        reason: frame::reason(code),
                    })?
            }
            None => {
                chunk.xxh3 = XxHash3_64::oneshot(&chunk.buffer[..len]);
                len
            }
        };
        Ok(())
    }
}

impl Zstd {
    fn pack(&mut self, len: usize, out: &mut [u8]) -> Result<usize, ErrorCode> {
        let pages = &self.pages[..len];
        let packer = match &mut self.packer {
            Some(packer) => packer,
            none => none.insert(Packer::new(frame::SAMPLE_LEVEL)?),
        };
        let effort = match self.level {
            Some(level) => Effort::Pack { level, kind: None },
            None => self.pace.effort(packer.kind(pages, out)?, len),
        };
        let (level, kind) = match effort {
            Effort::Pack { level, kind } => (level, kind),
            Effort::Store(kind) => {
                let stored = frame::store(pages, out);
                self.pace.stored(kind, (len, stored));
                return Ok(stored);
            }
        };
        let begun = Instant::now();
        let packed = packer.pack_at(level, pages, out)?;
        self.pace.packed(kind, (len, packed), begun.elapsed());
        Ok(packed)
    }
}

/// Reads all pieces that have data to the start of `pages`.
fn read(job: &Job, ranges: &mut Vec<Range<u64>>, pages: &mut [u8]) -> Result<(), StoreError> {
    ranges.clear();
    let with_data = job
        .pieces
        .iter()
        .filter(|piece| piece.flags.contains(RunFlags::PRESENT));
    ranges.extend(with_data.map(|piece| piece.range.clone()));
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
        return Ok(());
    };
    let bytes = ranges.iter().map(byte_len).sum();
    job.source
        .read(ranges, &mut pages[..bytes])
        .map_err(|error| StoreError::Read {
            key: job.turn.object.key,
            start: first.start,
            end: last.end,
            source: Arc::new(error),
        })
}

struct Kept {
    pages: usize,
    zero_pages: u64,
}

/// Moves the pages to be kept together at the start of `pages` and records their runs, and those of pages that an earlier
/// set holds; and where those are that were found elsewhere.
fn keep(
    pieces: &[Extent],
    (held, found): (&[bool], &[Option<Found>]),
    pages: &mut [u8],
    (runs, references): (&mut Vec<Run>, &mut Vec<Reference>),
) -> Kept {
    let (mut from, mut to) = (0, 0);
    let mut zero_pages = 0;
    for piece in pieces {
        let nr_pages = (byte_len(&piece.range) / PAGE_SIZE) as u64;
        let vaddr = piece.range.start;
        if !piece.flags.contains(RunFlags::PRESENT) {
            run::append(
                runs,
                Run {
                    vaddr,
                    nr_pages,
                    flags: piece.flags,
                },
            );
            continue;
        }
        for index in 0..nr_pages {
            let here = from..from + PAGE_SIZE;
            from = here.end;
            let vaddr = vaddr + index * PAGE_SIZE as u64;
            if held.get(here.start / PAGE_SIZE) == Some(&true) {
                let flags = RunFlags::PARENT;
                let nr_pages = 1;
                run::append(
                    runs,
                    Run {
                        vaddr,
                        nr_pages,
                        flags,
                    },
                );
                continue;
            }
            if let Some(Some((owner, at))) = found.get(here.start / PAGE_SIZE) {
                dedup::append(references, Reference::to_page(vaddr, *owner, *at));
                continue;
            }
            if piece.zeros == Zeros::Drop && is_zero(&pages[here.clone()]) {
                zero_pages += 1;
                continue;
            }
            if here.start != to {
                pages.copy_within(here, to);
            }
            to += PAGE_SIZE;
            run::append(
                runs,
                Run {
                    vaddr,
                    nr_pages: 1,
                    flags: piece.flags,
                },
            );
        }
    }
    Kept {
        pages: to / PAGE_SIZE,
        zero_pages,
    }
}
