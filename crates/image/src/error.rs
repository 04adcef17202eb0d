//! What can go wrong with image files.

use std::io;

use rustix::io::Errno;

use crate::{ImageKind, Key, WireError};

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The kind of image and the key do not make a file name.
    #[error("{kind:?} image has no file name for key {key:?}")]
    BadKey {
        /// Kind of the image.
        kind: ImageKind,
        /// Key given.
        key: Key,
    },
    /// The name is not that of a file directly inside the directory.
    #[error("{name:?} is not a plain file name")]
    BadName {
        /// The name.
        name: String,
    },
    /// The name is not that of an image.
    #[error("{file}: no kind of image has such a name")]
    UnknownKind {
        /// The file.
        file: String,
    },
    /// The directory or a file in it could not be opened.
    #[error("{file}: cannot open: {source}")]
    Open {
        /// File or directory.
        file: String,
        /// What `openat(2)` said.
        source: Errno,
    },
    /// The file is not a regular one.
    #[error("{file}: not a regular file")]
    NotRegular {
        /// The file.
        file: String,
    },
    /// Reading failed.
    #[error("{file}: offset {offset}: cannot read {what}: {source}")]
    Io {
        /// The file.
        file: String,
        /// Byte offset.
        offset: u64,
        /// What was to be read.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The file has another magic than its name promises.
    #[error("{file}: magic is {found:#010x}, expected {expected:#010x}")]
    Magic {
        /// The file.
        file: String,
        /// Magic of the kind and layout.
        expected: u32,
        /// Word found instead.
        found: u32,
    },
    /// The inventory names an image version other than 1 and 2.
    #[error("inventory.img: image version {found} is not supported")]
    Version {
        /// Version found.
        found: u64,
    },
    /// The file ends too early.
    #[error("{file}: offset {offset}: {what} of {needed} bytes, but only {available} follow")]
    Truncated {
        /// The file.
        file: String,
        /// Byte offset.
        offset: u64,
        /// What was expected there.
        what: &'static str,
        /// Its length in bytes.
        needed: u64,
        /// Bytes left.
        available: u64,
    },
    /// A record is larger than any sane one of its kind.
    #[error("{file}: offset {offset}: record of {size} bytes, limit {limit}")]
    TooLarge {
        /// The file.
        file: String,
        /// Byte offset of the size word.
        offset: u64,
        /// Size found.
        size: u32,
        /// Limit of the kind.
        limit: u32,
    },
    /// The file has more records than any sane one.
    #[error("{file}: more than {limit} records")]
    TooMany {
        /// The file.
        file: String,
        /// The limit.
        limit: u64,
    },
    /// A record is malformed or lacks a required field.
    #[error("{file}: offset {offset}: {source}")]
    Record {
        /// The file.
        file: String,
        /// Byte offset of the record.
        offset: u64,
        /// What is wrong.
        source: WireError,
    },
    /// A record is well-formed, but a value in it is not (text that is not UTF-8, say).
    #[error("{file}: offset {offset}: {source}")]
    Decode {
        /// The file.
        file: String,
        /// Byte offset of the record.
        offset: u64,
        /// What is wrong.
        source: prost::DecodeError,
    },
    /// A record that must be there is not.
    #[error("{file}: offset {offset}: {message} record expected, end of file found")]
    NoRecord {
        /// The file.
        file: String,
        /// Byte offset.
        offset: u64,
        /// Message expected.
        message: &'static str,
    },
    /// The caller asked for a message that images of this kind do not hold.
    #[error("{file}: {kind:?} images hold no {message}")]
    WrongMessage {
        /// The file.
        file: String,
        /// Its kind.
        kind: ImageKind,
        /// Message asked for.
        message: &'static str,
    },
}

impl ReadError {
    /// Whether the file does not exist, which for most kinds means an empty list of records.
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            ReadError::Open {
                source: Errno::NOENT,
                ..
            }
        )
    }
}

/// Why images could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The kind of image and the key do not make a file name.
    #[error("{kind:?} image has no file name for key {key:?}")]
    BadKey {
        /// Kind of the image.
        kind: ImageKind,
        /// Key given.
        key: Key,
    },
    /// The name is not that of a file directly inside the directory, or is reserved.
    #[error("{name:?} cannot name a staged file")]
    BadName {
        /// The name.
        name: String,
    },
    /// Another dump is writing to the directory.
    #[error("{directory}: another dump is writing here")]
    Busy {
        /// The directory.
        directory: String,
    },
    /// A system call failed.
    #[error("{file}: cannot {operation}: {source}")]
    Io {
        /// File or directory.
        file: String,
        /// What was tried.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The file has been written already.
    #[error("{file}: written twice")]
    Duplicate {
        /// The file.
        file: String,
    },
    /// The set was committed while a writer was still at work.
    #[error("{file}: not finished at commit")]
    Unfinished {
        /// The file.
        file: String,
    },
    /// The message does not belong into images of this kind.
    #[error("{file}: {kind:?} images hold no {message}")]
    WrongMessage {
        /// The file.
        file: String,
        /// Its kind.
        kind: ImageKind,
        /// Message offered.
        message: &'static str,
    },
    /// The record is larger than readers accept.
    #[error("{file}: {message} of {size} bytes, limit {limit}")]
    TooLarge {
        /// The file.
        file: String,
        /// The message.
        message: &'static str,
        /// Its size in bytes.
        size: usize,
        /// Limit of the kind.
        limit: u32,
    },
}

impl WriteError {
    pub(crate) fn io(file: &str, operation: &'static str, source: impl Into<io::Error>) -> Self {
        WriteError::Io {
            file: file.to_owned(),
            operation,
            source: source.into(),
        }
    }
}
