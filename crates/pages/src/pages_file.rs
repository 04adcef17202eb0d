//! One file of pages: whole chunks, verified.

use crate::frame::{self, Stored, Unpacker};
use crate::input::ReadAt;
use crate::key::ObjectKey;
use crate::read::{ReadError, Scratch};
use crate::seek::{Checker, Footer};
use crate::summary::ChunkSum;
use crate::{CHUNK_BYTES, CHUNK_PAGES, PAGE_SIZE};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Where one chunk lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    first_page: u64,
    offset: u64,
    /// Bytes in the file.
    stored: u32,
    pages: u32,
    xxh3: Option<u64>,
}

/// Where the chunks of an object lie.
enum Index {
    /// Raw pages without checksums, as CRIU leaves them: cut at every mebibyte.
    Even,
    /// Raw pages with checksums.
    Summed(Vec<Place>),
    /// zstd frames.
    Frames(Vec<Place>),
}

/// A file.
pub(crate) struct PagesFile {
    pub(crate) key: ObjectKey,
    input: Box<dyn ReadAt>,
    pub(crate) pages: u64,
    index: Index,
}

impl PagesFile {
    /// Opens `pages-N.img`. `checksums`, if known, are those of its summary.
    pub(crate) fn open_raw(
        key: ObjectKey,
        input: Box<dyn ReadAt>,
        checksums: Option<&[ChunkSum]>,
    ) -> Result<Self, ReadError> {
        let bytes = input.len().map_err(|error| io_error(key, error))?;
        let page = PAGE_SIZE as u64;
        if bytes % page != 0 {
            return Err(ReadError::Damaged {
                key,
                reason: "not a whole number of pages (truncated?)",
            });
        }
        let pages = bytes / page;
        let index = match checksums {
            None => Index::Even,
            Some(sums) => Index::Summed(raw_places(sums)),
        };
        if let Index::Summed(places) = &index
            && places
                .last()
                .map_or(0, |last| last.first_page + u64::from(last.pages))
                != pages
        {
            return Err(ReadError::Damaged {
                key,
                reason: "length differs from the checksum index",
            });
        }
        Ok(Self {
            key,
            input,
            pages,
            index,
        })
    }

    /// Opens `pages-N.img.zst`: independent frames with a seek table behind them.
    pub(crate) fn open_zstd(key: ObjectKey, input: Box<dyn ReadAt>) -> Result<Self, ReadError> {
        let places = read_seek_table(key, &*input)?;
        let pages = places
            .last()
            .map_or(0, |last| last.first_page + u64::from(last.pages));
        Ok(Self {
            key,
            input,
            pages,
            index: Index::Frames(places),
        })
    }

    /// Fills `buf` with what raw pages have from `page` on, unverified; whether that can be done.
    pub(crate) fn peek(&self, page: u64, buf: &mut [u8]) -> bool {
        let raw = !matches!(self.index, Index::Frames(_));
        let offset = page.checked_mul(PAGE_SIZE as u64).filter(|_| raw);
        offset.is_some_and(|offset| self.input.read_at(buf, offset).is_ok())
    }

    /// The number of the chunk that has `page`, which must exist.
    pub(crate) fn chunk_of(&self, page: u64) -> u64 {
        match &self.index {
            Index::Even => page / CHUNK_PAGES as u64,
            Index::Summed(places) | Index::Frames(places) => {
                places.partition_point(|place| place.first_page <= page) as u64 - 1
            }
        }
    }

    /// How many there are.
    pub(crate) fn chunks(&self) -> u64 {
        match &self.index {
            Index::Even => self.pages.div_ceil(CHUNK_PAGES as u64),
            Index::Summed(places) | Index::Frames(places) => places.len() as u64,
        }
    }

    /// The pages of chunk number `chunk`, which must exist.
    pub(crate) fn chunk_pages(&self, chunk: u64) -> Range<u64> {
        let place = self.place(chunk);
        place.first_page..place.first_page + u64::from(place.pages)
    }

    /// The pages and the verified bytes of chunk number `chunk`, which must exist.
    pub(crate) fn chunk<'a>(
        &'a self,
        scratch: &'a mut Scratch,
        chunk: u64,
    ) -> Result<(Range<u64>, &'a [u8]), ReadError> {
        let place = self.place(chunk);
        let len = place.pages as usize * PAGE_SIZE;
        let io_error = |error| ReadError::ChunkIo {
            key: self.key,
            chunk,
            source: Arc::new(error),
        };
        let damaged = |reason| ReadError::DamagedChunk {
            key: self.key,
            chunk,
            reason,
        };
        let Scratch {
            packed,
            pages,
            unpacker,
        } = scratch;
        let bytes = if let Index::Frames(_) = self.index {
            let pages = room(pages, len);
            match self.read_stored(place, pages).map_err(io_error)? {
                Some(true) => {}
                Some(false) => return Err(damaged("checksum differs")),
                None => {
                    let stored = place.stored as usize;
                    let frame = fetch(&*self.input, packed, place.offset, stored);
                    unpacker
                        .get_or_insert_with(Unpacker::new)
                        .unpack(frame.map_err(io_error)?, pages)
                        .map_err(damaged)?;
                }
            }
            &*pages
        } else {
            fetch(&*self.input, pages, place.offset, len).map_err(io_error)?
        };
        if place
            .xxh3
            .is_some_and(|sum| sum != XxHash3_64::oneshot(bytes))
        {
            return Err(damaged("checksum differs"));
        }
        Ok((self.chunk_pages(chunk), bytes))
    }

    /// Reads a frame whose data is stored to where it is wanted, and tells whether it is intact; `None` if it is another
    /// frame.
    fn read_stored(&self, place: Place, pages: &mut [u8]) -> io::Result<Option<bool>> {
        let is_stored = frame::stored_len(pages.len()) == place.stored as usize;
        if !is_stored || self.input.as_slice().is_some() {
            return Ok(None);
        }
        let mut stored = Stored::new();
        let mut parts = stored.parts(pages);
        self.input.read_parts_at(&mut parts, place.offset)?;
        Ok(stored.is_intact(pages))
    }

    fn place(&self, chunk: u64) -> Place {
        match &self.index {
            Index::Even => {
                let first_page = chunk * CHUNK_PAGES as u64;
                let pages = (self.pages - first_page).min(CHUNK_PAGES as u64) as u32;
                let offset = first_page * PAGE_SIZE as u64;
                Place {
                    first_page,
                    offset,
                    stored: pages * PAGE_SIZE as u32,
                    pages,
                    xxh3: None,
                }
            }
            Index::Summed(places) | Index::Frames(places) => places[chunk as usize],
        }
    }
}

/// The first `len` bytes of `buffer`, which grows with what is read: most programs have no whole chunk, and to clear one
/// takes longer than all else that is done for them.
fn room(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        let doubled = (2 * buffer.len()).min(CHUNK_BYTES);
        buffer.resize(len.max(doubled), 0);
    }
    &mut buffer[..len]
}

/// `len` bytes from `offset` on: in place if they are in memory, else read into `buffer`.
fn fetch<'a>(
    input: &'a dyn ReadAt,
    buffer: &'a mut Vec<u8>,
    offset: u64,
    len: usize,
) -> io::Result<&'a [u8]> {
    if let Some(all) = input.as_slice() {
        let from = usize::try_from(offset)
            .ok()
            .and_then(|offset| all.get(offset..)?.get(..len));
        return from.ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
    }
    let buffer = room(buffer, len);
    input.read_at(buffer, offset)?;
    Ok(buffer)
}

fn io_error(key: ObjectKey, error: io::Error) -> ReadError {
    ReadError::Io {
        key,
        source: Arc::new(error),
    }
}

fn raw_places(sums: &[ChunkSum]) -> Vec<Place> {
    let mut first_page = 0;
    let place = |sum: &ChunkSum| {
        let pages = sum.pages.clamp(1, CHUNK_PAGES as u32);
        let offset = first_page * PAGE_SIZE as u64;
        let stored = pages * PAGE_SIZE as u32;
        let place = Place {
            first_page,
            offset,
            stored,
            pages,
            xxh3: Some(sum.xxh3),
        };
        first_page += u64::from(pages);
        place
    };
    sums.iter().map(place).collect()
}

fn read_seek_table(key: ObjectKey, input: &dyn ReadAt) -> Result<Vec<Place>, ReadError> {
    /// Entries read at a time.
    const BATCH: usize = 4096;
    let damaged = |reason| ReadError::Damaged { key, reason };
    let file_bytes = input.len().map_err(|error| io_error(key, error))?;
    let read = |buf: &mut [u8], offset| {
        input
            .read_at(buf, offset)
            .map_err(|error| io_error(key, error))
    };

    let mut footer = [0; Footer::BYTES];
    let at = file_bytes
        .checked_sub(footer.len() as u64)
        .ok_or_else(|| damaged("too short"))?;
    read(&mut footer, at)?;
    let footer = Footer::parse(&footer).map_err(damaged)?;
    let mut at = footer.table_offset(file_bytes).map_err(damaged)?;
    let mut header = [0; Checker::HEADER_BYTES];
    read(&mut header, at)?;
    let mut checker = Checker::new(footer, at, &header).map_err(damaged)?;
    at += header.len() as u64;

    let mut places = Vec::new();
    let (mut first_page, mut offset) = (0, 0);
    let mut batch = vec![0; BATCH * checker.entry_bytes()];
    while checker.remaining() > 0 {
        let count = BATCH.min(checker.remaining() as usize);
        let bytes = &mut batch[..count * checker.entry_bytes()];
        read(bytes, at)?;
        at += bytes.len() as u64;
        for entry in bytes.chunks_exact(checker.entry_bytes()) {
            let entry = checker.entry(entry).map_err(damaged)?;
            let pages = entry.unpacked / PAGE_SIZE as u32;
            places.push(Place {
                first_page,
                offset,
                stored: entry.packed,
                pages,
                xxh3: None,
            });
            first_page += u64::from(pages);
            offset += u64::from(entry.packed);
        }
    }
    checker.finish().map_err(damaged)?;
    Ok(places)
}
