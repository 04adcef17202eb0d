//! What one worker fills in a row.

use crate::HUGE_BYTES;
use crate::placement::Placement;
use crate::read::{ObjectReader, ReadError};
use std::ops::Range;

/// Chunks that one worker takes in a row: the two halves of a huge page should meet the same worker.
const CHUNKS_PER_JOB: u64 = 4;

/// Cuts a request into jobs: the chunks it needs, a few in a row.
pub(crate) struct Jobs<'a> {
    reader: &'a ObjectReader,
    placements: &'a [Placement],
    /// The placement and the chunk to come next.
    placement: usize,
    chunk: u64,
}

impl<'a> Jobs<'a> {
    pub(crate) fn new(reader: &'a ObjectReader, placements: &'a [Placement]) -> Self {
        Self {
            reader,
            placements,
            placement: 0,
            chunk: 0,
        }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Range<u64>>, ReadError> {
        let mut job: Option<Range<u64>> = None;
        while let Some(placement) = self.placements.get(self.placement) {
            let pages = placement.pages();
            let first = self.reader.chunk_of(pages.start)?.max(self.chunk);
            let last = self.reader.chunk_of(pages.end - 1)?;
            if first > last {
                self.placement += 1;
                continue;
            }
            let job = job.get_or_insert(first..first);
            if job.end != first || job.end - job.start == CHUNKS_PER_JOB {
                break;
            }
            job.end = match job.start + CHUNKS_PER_JOB {
                most if most > last => last + 1,
                most => self.huge_end(placement, first..most),
            };
            self.chunk = job.end;
        }
        Ok(job)
    }

    /// Where a job is to end that takes some of `chunks` of a placement: before a chunk that begins a huge page.
    fn huge_end(&self, placement: &Placement, chunks: Range<u64>) -> u64 {
        let begins = |chunk: &u64| {
            let page = self.reader.chunk_pages(*chunk).start;
            page > placement.first_page
                && placement
                    .addresses(page..page)
                    .start
                    .is_multiple_of(HUGE_BYTES)
        };
        let inner = chunks.start + 1..=chunks.end;
        inner.rev().find(begins).unwrap_or(chunks.end)
    }
}
