//! Pages that an earlier set has already, at the same addresses of the same owner.
//!
//! What is there is read and compared, byte for byte: whether the kernel has seen a page being written is of no account.

use crate::PAGE_SIZE;
use crate::placement::Placement;
use crate::read::{ObjectReader, ReadError, Scratch};
use crate::run::RunFlags;
use crate::sample::is_zero;
use crate::source::byte_len;
use crate::store::{Extent, Zeros};
use std::ops::Range;
use std::sync::Arc;

/// Chunks that a worker keeps: pages of neighbouring addresses come from one of each of the last few sets.
const KEPT: usize = 4;

/// The pages that an earlier set has of an object.
pub struct Earlier {
    reader: ObjectReader,
    /// Ascending by address.
    placements: Vec<Placement>,
}

impl Earlier {
    /// Pages of `reader`, and where they are: ascending, without overlap.
    ///
    /// # Errors
    ///
    /// [`ReadError::NoSuchPage`].
    pub fn new(reader: ObjectReader, placements: Vec<Placement>) -> Result<Self, ReadError> {
        let pages = placements.iter().map(Placement::pages);
        if let Some(pages) = pages
            .max_by_key(|pages| pages.end)
            .filter(|pages| !pages.is_empty())
        {
            reader.chunk_of(pages.end - 1)?;
        }
        Ok(Self { reader, placements })
    }

    /// The pages in a range of addresses: where they are in the reader, and how many bytes behind the start of the range.
    fn within(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, usize)> {
        let all = &self.placements;
        let first = all.partition_point(|place| place.range().end <= range.start);
        let within = all[first..].iter();
        let within = within.take_while(move |place| place.vaddr < range.end);
        within.map(move |place| {
            let there = place.range();
            let part = there.start.max(range.start)..there.end.min(range.end);
            let page = |address: u64| {
                let behind = (address - place.vaddr) / PAGE_SIZE as u64;
                place.first_page.saturating_add(behind)
            };
            let behind = (part.start - range.start) as usize;
            (page(part.start)..page(part.end), behind)
        })
    }
}

/// Compares chunks with earlier sets, and keeps its buffers.
#[derive(Default)]
pub(crate) struct Comparer {
    held: Vec<bool>,
    kept: Vec<Kept>,
    scratch: Scratch,
}

/// A chunk of an earlier set.
struct Kept {
    /// Whose it is.
    earlier: Arc<Earlier>,
    pages: Range<u64>,
    bytes: Vec<u8>,
}

impl Comparer {
    /// For each of the pages that were read for `pieces`, whether the earlier set has it.
    pub(crate) fn compare(
        &mut self,
        earlier: &Arc<Earlier>,
        pieces: &[Extent],
        bytes: &[u8],
    ) -> Result<&[bool], ReadError> {
        self.held.clear();
        self.held.resize(bytes.len() / PAGE_SIZE, false);
        let mut from = 0;
        let present = |piece: &&Extent| piece.flags.contains(RunFlags::PRESENT);
        for piece in pieces.iter().filter(present) {
            let here = from..from + byte_len(&piece.range);
            from = here.end;
            if !piece.alike {
                continue;
            }
            for (pages, behind) in earlier.within(piece.range.clone()) {
                let mut at = here.start + behind;
                let mut page = pages.start;
                while page < pages.end {
                    let kept = self.chunk(earlier, page)?;
                    let end = pages.end.min(self.kept[kept].pages.end);
                    let count = (end - page) as usize;
                    let now = &bytes[at..at + count * PAGE_SIZE];
                    self.note(kept, page, now, at / PAGE_SIZE, piece.zeros);
                    at += count * PAGE_SIZE;
                    page = end;
                }
            }
        }
        Ok(&self.held)
    }

    /// Notes which of the pages `now` are equal to those from `page` on in a kept chunk.
    fn note(&mut self, kept: usize, page: u64, now: &[u8], index: usize, zeros: Zeros) {
        let kept = &self.kept[kept];
        let skip = (page - kept.pages.start) as usize * PAGE_SIZE;
        let then = kept.bytes[skip..].chunks_exact(PAGE_SIZE);
        let held = self.held[index..].iter_mut();
        for ((now, then), held) in now.chunks_exact(PAGE_SIZE).zip(then).zip(held) {
            // Pages of zeros that are not stored need not be in any set.
            *held = now == then && !(zeros == Zeros::Drop && is_zero(now));
        }
    }

    /// The chunk that has a page, by its place among those kept.
    fn chunk(&mut self, earlier: &Arc<Earlier>, page: u64) -> Result<usize, ReadError> {
        let has = |kept: &Kept| Arc::ptr_eq(&kept.earlier, earlier) && kept.pages.contains(&page);
        if let Some(index) = self.kept.iter().position(has) {
            self.kept[index..].rotate_left(1);
            return Ok(self.kept.len() - 1);
        }
        let chunk = earlier.reader.chunk_of(page)?;
        let (pages, bytes) = earlier.reader.chunk(&mut self.scratch, chunk)?;
        // The one that was used least recently goes.
        let mut buffer = match self.kept.len() {
            ..KEPT => Vec::new(),
            _ => self.kept.remove(0).bytes,
        };
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.kept.push(Kept {
            earlier: Arc::clone(earlier),
            pages,
            bytes: buffer,
        });
        Ok(self.kept.len() - 1)
    }
}
