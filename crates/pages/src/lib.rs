//! Page store: memory of frozen processes into files or streams, and back, as fast as the machine can.
//!
//! **Model.** A [`Store`] is a crew of workers shared by all objects of a dump; an object is the memory
//! of one task or one piece of shared memory. Extents of addresses are pushed in ascending order and cut
//! into chunks of up to a mebibyte, many small extents to a chunk. A worker reads a chunk in one call
//! from a [`PageSource`], drops pages of zeros where that is allowed, compresses or checksums it, and
//! the chunks of an object go to its [`PageSink`] in order. Which pages were stored is known only then:
//! the [`Summary`] has the pagemap. If wanted, pages that are equal to others of the store are left out
//! too, and the summary has [`Reference`]s to these. The way back is a [`Filler`], again one for all: chunks are read
//! and verified by an [`ObjectReader`] and written to a [`PageTarget`], with huge pages where that is
//! allowed and pays. Both work on data handed in.
//!
//! [`Sets`] finds files by name: those of an image set, and of the sets before it that it leaves pages to, all of which
//! one [`ObjectReader`] reads. A dump that is to follow a set [compares](ObjectWriter::compare_with) with what that one
//! has at the same addresses of the same owner, byte for byte.
//!
//! ```text
//! PageSource -> chunk -> [earlier?] -> zero test -> [equal?] -> zstd frame, or XXH3 -> in order -> PageSink     Store
//! PageTarget <- collapse, write  <-  unpack, verify  <-  chunk  <-  ReadAt            Filler
//! ```
//!
//! | limit | value |
//! | --- | --- |
//! | memory of a dump | 2 chunks and one compressor for each worker, 4 chunks more |
//! | pages that are known, to find equal ones | 3,670,016, in 210 MiB at most |
//! | memory of a fill | 2 chunks for each worker |
//! | the same, if it follows other images | 4 chunks more for each worker |
//! | sets that follow each other | 64 |
//! | chunk | 256 pages written; frames of up to 512 pages read |
//!
//! **Formats.** [`Format::Raw`] is CRIU's `pages-N.img`; checksums are kept beside it
//! ([`encode_checksums`]). [`Format::Zstd`] is the same bytes as independent zstd frames with content
//! checksums and a seek table of the public *seekable zstd* format at the end, so `zstd -dc` gives the
//! raw file. Chunks that look random are stored in frames of raw blocks without trying to pack them.
//!
//! **Limitations.** Pages of 4096 bytes. The checksums find damage, not malice: whoever can change the
//! file can change them too. A source must not change while it is read. The first error ends the work of
//! the whole [`Store`] or [`Filler`].
//!
//! ```
//! use gelid_pages::*;
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[derive(Clone, Default)] struct Shared(Arc<std::sync::Mutex<Vec<u8>>>);
//! # impl std::io::Write for Shared {
//! #     fn write(&mut self, b: &[u8]) -> std::io::Result<usize> { self.0.lock().unwrap().extend(b); Ok(b.len()) }
//! #     fn flush(&mut self) -> std::io::Result<()> { Ok(()) }
//! # }
//! // Three pages at 0x10000, the second of them zero.
//! let mut bytes = vec![1; 3 * PAGE_SIZE];
//! bytes[PAGE_SIZE..2 * PAGE_SIZE].fill(0);
//! let source: Arc<dyn PageSource> = Arc::new(Memory::new(0x10000, bytes.clone()));
//! let key = ObjectKey { pages_id: 1, owner: Owner::Task(42) };
//!
//! let store = Store::start(StoreOptions::default())?;
//! let file = Shared::default(); // any `Write`
//! let mut object = store.object(key, Box::new(file.clone()));
//! object.push(&source, Extent::anonymous(0x10000..0x13000))?;
//! let summary = object.finish()?.wait()?;
//! assert_eq!((summary.pages, summary.zero_pages, summary.pagemap.len()), (2, 1, 2));
//!
//! let stored = file.0.lock().unwrap().clone();
//! let reader = Arc::new(ObjectReader::open_zstd(key, Box::new(stored))?);
//! let target = Arc::new(Memory::new(0x10000, vec![0; bytes.len()]));
//! let request = FillRequest {
//!     reader,
//!     target: target.clone(),
//!     placements: Placement::of_pagemap(&summary.pagemap),
//!     huge: vec![],
//!     compared: Vec::new(),
//! };
//! Filler::new(None).fill(request)?.wait()?;
//! assert_eq!(target.bytes(), bytes);
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod compare;
mod dedup;
mod earlier;
mod encode;
mod fill;
mod frame;
mod holes;
mod huge;
mod input;
mod jobs;
mod key;
mod kinds;
mod listing;
mod memory;
mod order;
mod pace;
mod pagemap;
mod pages_file;
mod placement;
mod pool;
mod read;
mod run;
mod sample;
mod seek;
mod sets;
mod sink;
mod source;
mod store;
mod summary;
mod target;

pub use dedup::Reference;
pub use earlier::Earlier;
pub use fill::{FillError, FillRequest, FillStats, Filler, Filling};
pub use holes::HoleMappings;
pub use input::ReadAt;
pub use key::{ObjectKey, Owner};
pub use memory::Memory;
pub use pagemap::{Pagemap, Part, Same};
pub use placement::Placement;
pub use pool::default_workers;
pub use read::{ObjectReader, ReadError, Scratch};
pub use run::{Run, RunFlags};
pub use sample::{is_zero, looks_random};
pub use sets::{SetError, Sets};
pub use sink::{Chunk, PageSink};
pub use source::{FileSource, PageSource, ProcessSource};
pub use store::{Extent, Format, ObjectWriter, Pending, Store, StoreError, StoreOptions, Zeros};
pub use summary::{ChunkSum, ParseIndexError, Summary, encode_checksums, parse_checksums};
pub use target::{FileTarget, PageTarget, ProcessTarget};

/// Bytes in a page, the unit of pagemaps.
pub const PAGE_SIZE: usize = gelid_sys::PAGE_SIZE;
/// Pages in a chunk, at most.
pub const CHUNK_PAGES: usize = 256;
/// Bytes in a chunk, at most.
pub const CHUNK_BYTES: usize = CHUNK_PAGES * PAGE_SIZE;
/// Bytes that one frame of a store may unpack to; larger ones are refused.
pub const MAX_FRAME_BYTES: usize = 2 * CHUNK_BYTES;
/// Bytes of a huge page.
pub const HUGE_BYTES: u64 = 2 << 20;
