//! Reading an object back: whole chunks, verified, from files that may lie.

use crate::PAGE_SIZE;
use crate::frame::Unpacker;
use crate::input::ReadAt;
use crate::key::ObjectKey;
use crate::pages_file::PagesFile;
use crate::summary::ChunkSum;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Why pages could not be read back.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{key}: reading the page store: {source}")]
    Io {
        /// The object.
        key: ObjectKey,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The file as a whole is damaged or does not match its index.
    #[error("{key}: damaged page store: {reason}")]
    Damaged {
        /// The object.
        key: ObjectKey,
        /// What does not fit.
        reason: &'static str,
    },
    /// A chunk cannot be read.
    #[error("{key}: reading chunk {chunk}: {source}")]
    ChunkIo {
        /// The object.
        key: ObjectKey,
        /// Number of the chunk.
        chunk: u64,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A chunk is damaged.
    #[error("{key}: chunk {chunk} is damaged: {reason}")]
    DamagedChunk {
        /// The object.
        key: ObjectKey,
        /// Number of the chunk.
        chunk: u64,
        /// What does not fit.
        reason: &'static str,
    },
    /// Pages were asked for that the object does not have.
    #[error("{key}: has {pages} pages, page {page} was asked for")]
    NoSuchPage {
        /// The object.
        key: ObjectKey,
        /// The first page that is not there.
        page: u64,
        /// Pages in the object.
        pages: u64,
    },
}

/// One object of a store: the pages of one file, or of several that are counted through.
///
/// Files are not trusted: lengths are checked against the file before anything is allocated, and what
/// carries a checksum is verified each time it is read.
pub struct ObjectReader {
    key: ObjectKey,
    pages: u64,
    /// Those that have pages.
    files: Vec<Joint>,
}

/// A file among others.
struct Joint {
    first_page: u64,
    first_chunk: u64,
    file: PagesFile,
}

impl ObjectReader {
    /// Opens `pages-N.img`. `checksums`, if known, are those of its [`Summary`](crate::Summary).
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if the length does not fit.
    pub fn open_raw(
        key: ObjectKey,
        input: Box<dyn ReadAt>,
        checksums: Option<&[ChunkSum]>,
    ) -> Result<Self, ReadError> {
        PagesFile::open_raw(key, input, checksums).map(Self::of)
    }

    /// Opens `pages-N.img.zst`: independent frames with a seek table behind them.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if the seek table is missing or does not fit the file.
    pub fn open_zstd(key: ObjectKey, input: Box<dyn ReadAt>) -> Result<Self, ReadError> {
        PagesFile::open_zstd(key, input).map(Self::of)
    }

    fn of(file: PagesFile) -> Self {
        let mut reader = Self {
            key: file.key,
            pages: 0,
            files: Vec::new(),
        };
        reader.add(file);
        reader
    }

    /// Takes objects together as one of the name `key`, each of as many pages as is said.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if one has more or less.
    pub fn joined(key: ObjectKey, parts: Vec<(Self, u64)>) -> Result<Self, ReadError> {
        let alone = parts.len() == 1;
        let mut joined = Self {
            key,
            pages: 0,
            files: Vec::new(),
        };
        for (part, pages) in parts {
            // Of a file that is alone, pages that are not there are missed when they are asked for.
            if part.pages != pages && !alone {
                return Err(ReadError::Damaged {
                    key: part.key,
                    reason: "length differs from the pagemap",
                });
            }
            part.files
                .into_iter()
                .for_each(|joint| joined.add(joint.file));
        }
        Ok(joined)
    }

    fn add(&mut self, file: PagesFile) {
        let last = self.files.last();
        let first_chunk = last.map_or(0, |last| last.first_chunk + last.file.chunks());
        let first_page = self.pages;
        if file.pages > 0 {
            self.pages += file.pages;
            self.files.push(Joint {
                first_page,
                first_chunk,
                file,
            });
        }
    }

    /// The object, as errors name it.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        self.key
    }

    /// Number of pages in the object.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Fills `buf`, whole pages, with the pages from `first_page` on.
    ///
    /// Reads and verifies whole chunks, so ask for many pages at a time.
    ///
    /// # Errors
    ///
    /// [`ReadError`], naming the chunk.
    pub fn read_at(
        &self,
        scratch: &mut Scratch,
        first_page: u64,
        buf: &mut [u8],
    ) -> Result<(), ReadError> {
        let mut page = first_page;
        let mut rest = buf;
        while !rest.is_empty() {
            let chunk = self.chunk_of(page)?;
            let (pages, bytes) = self.chunk(scratch, chunk)?;
            // The chunk contains the page, and has at most 512.
            let skip = (page - pages.start) as usize * PAGE_SIZE;
            let len = rest.len().min(bytes.len() - skip);
            let (here, behind) = rest.split_at_mut(len);
            here.copy_from_slice(&bytes[skip..skip + len]);
            page = pages.end;
            rest = behind;
        }
        Ok(())
    }

    /// Fills `buf` in the same way without verifying anything, if that can be done by reading no more; whether it has
    /// been. What is read so may be compared with what is known, and is not to be relied on.
    #[must_use]
    pub fn peek(&self, first_page: u64, buf: &mut [u8]) -> bool {
        let files = &self.files;
        let at = files.partition_point(|joint| joint.first_page <= first_page);
        let joint = at.checked_sub(1).map(|at| &files[at]);
        joint.is_some_and(|joint| joint.file.peek(first_page - joint.first_page, buf))
    }

    /// The number of the chunk that has `page`.
    pub(crate) fn chunk_of(&self, page: u64) -> Result<u64, ReadError> {
        if page >= self.pages {
            return Err(ReadError::NoSuchPage {
                key: self.key,
                page,
                pages: self.pages,
            });
        }
        let files = &self.files;
        let joint = &files[files.partition_point(|joint| joint.first_page <= page) - 1];
        Ok(joint.first_chunk + joint.file.chunk_of(page - joint.first_page))
    }

    /// The pages of chunk number `chunk`, which must exist.
    pub(crate) fn chunk_pages(&self, chunk: u64) -> Range<u64> {
        let joint = self.joint(chunk);
        joint.pages(joint.file.chunk_pages(chunk - joint.first_chunk))
    }

    /// The pages and the verified bytes of chunk number `chunk`, which must exist.
    pub(crate) fn chunk<'a>(
        &'a self,
        scratch: &'a mut Scratch,
        chunk: u64,
    ) -> Result<(Range<u64>, &'a [u8]), ReadError> {
        let joint = self.joint(chunk);
        let (pages, bytes) = joint.file.chunk(scratch, chunk - joint.first_chunk)?;
        Ok((joint.pages(pages), bytes))
    }

    fn joint(&self, chunk: u64) -> &Joint {
        let files = &self.files;
        &files[files.partition_point(|joint| joint.first_chunk <= chunk) - 1]
    }
}

impl Joint {
    fn pages(&self, pages: Range<u64>) -> Range<u64> {
        self.first_page + pages.start..self.first_page + pages.end
    }
}

/// Buffers for reading chunks, to be reused by one thread.
#[derive(Default)]
pub struct Scratch {
    pub(crate) packed: Vec<u8>,
    pub(crate) pages: Vec<u8>,
    pub(crate) unpacker: Option<Unpacker>,
}

impl Scratch {
    /// Empty buffers; they grow to at most four mebibytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}
