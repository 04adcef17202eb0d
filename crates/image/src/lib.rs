//! Checkpoint image files in CRIU's format: framing and messages, no kernel logic.
//!
//! # Model
//!
//! A checkpoint is a directory of small files. Each has a [kind](ImageKind), which fixes its name,
//! its magic, and the [messages] its records hold. A [`Dir`] is such a directory, held by
//! descriptor; a [`Staging`] is a set under construction that becomes visible as a whole, closed
//! by a [manifest] of checksums.
//!
//! Images are hostile input. An [`ImageReader`] bounds every length by the kind's limit and by the
//! length of the file before it allocates, checks the wire form against the message's [`Schema`]
//! (required fields, types, nesting) before it decodes, and reports file and offset of whatever
//! does not fit.
//!
//! ```
//! use gelid_image::messages::{FsEntry, PstreeEntry};
//! use gelid_image::{Dir, ImageKind, Staging, manifest};
//!
//! # let scratch = tempfile::tempdir()?;
//! # let path = scratch.path();
//! let dir = Dir::open(path)?;
//!
//! // Write: nothing is visible before the commit.
//! let staging = Staging::new(&dir)?;
//! let task = PstreeEntry { pid: 42, pgid: 42, sid: 42, threads: vec![42], ..Default::default() };
//! staging.writer(ImageKind::Pstree, ())?.push(&task)?;
//! staging.writer(ImageKind::Fs, 42)?.push(&FsEntry { cwd_id: 3, root_id: 4, umask: Some(0o22) })?;
//! staging.commit()?;
//!
//! // Read.
//! assert!(manifest::verify(&dir)?.is_empty());
//! let tree: Vec<PstreeEntry> = dir.read_all(ImageKind::Pstree, ())?;
//! assert_eq!(tree, [task]);
//! let fs: FsEntry = dir.read_one(ImageKind::Fs, 42)?;
//! assert_eq!(fs.umask, Some(0o22));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limitations
//!
//! * Page contents (`pages-*.img`) are files like any other here; `gelid-pages` reads them.
//! * Unknown fields survive [`Schema::to_json`] but not decoding.
//! * What the records mean, and whether they agree with each other, is for the restorer to judge.
//! * Machine state of architectures other than x86 is carried but not interpreted.
#![forbid(unsafe_code)]

mod blank;
mod claim;
pub mod device_sysctls;
mod dir;
mod error;
mod kind;
pub mod manifest;
pub mod messages;
mod naming;
mod reader;
mod schema;
mod shared_out;
pub mod show;
mod source;
mod staged;
mod staging;
pub mod symbols;
mod walk;
mod writer;

pub use blank::Roomy;
pub use dir::{Dir, Layout};
pub use error::{ReadError, WriteError};
pub use kind::{Header, ImageKind, Key, Payload as PayloadKind, Radix, Spec, Structure};
pub use reader::{ImageReader, Payload, Records};
pub use schema::{Field, Kind, Label, Record, Schema, Show, WireError};
pub use shared_out::shared_out;
pub use source::Source;
pub use staging::{Staging, StagingOptions};
pub use walk::{Entry, Part, Walk};
pub use writer::{ImageWriter, append, header};
