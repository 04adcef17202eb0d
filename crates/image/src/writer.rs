//! Writing an image.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::kind::{COMMON_MAGIC, Header, SERVICE_MAGIC};
use crate::schema::Record;
use crate::staged::{Finished, Shared};
use crate::{Dir, ImageKind, Key, WriteError};

/// Bytes gathered before they are written.
const BUFFER: usize = 64 << 10;

/// The bytes before the first record of an image, layout 1.1.
pub fn header(kind: ImageKind) -> Vec<u8> {
    let spec = kind.spec();
    let words = match spec.header {
        Header::Common => vec![COMMON_MAGIC, spec.magic],
        Header::Service => vec![SERVICE_MAGIC, spec.magic],
        Header::Inventory => vec![spec.magic],
        Header::Raw => vec![],
    };
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Appends a record to `out`: its size, then the message.
///
/// The size of a message is a `u32`; the caller checks it against the kind's limit.
pub fn append<M: Record>(out: &mut Vec<u8>, message: &M) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    message.encode_raw(out);
    // Known now without asking all fields for their lengths beforehand.
    let size = out.len() - start - 4;
    out[start..start + 4].copy_from_slice(&(size as u32).to_le_bytes());
}

impl Dir {
    /// Writes an image of a single record beside whatever the directory holds, in the place of an
    /// older one: for statistics, which belong to no set.
    pub fn store<M: Record>(
        &self,
        kind: ImageKind,
        key: impl Into<Key>,
        message: &M,
    ) -> Result<(), WriteError> {
        let key = key.into();
        let name = kind
            .file_name(key)
            .ok_or(WriteError::BadKey { kind, key })?;
        let mut bytes = header(kind);
        append_checked(&mut bytes, message, kind, &name)?;
        let hidden = format!(".{name}.{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let stored = rustix::fs::openat(self, &hidden, flags | OFlags::NOFOLLOW, mode)
            .map_err(io::Error::from)
            .and_then(|fd| File::from(fd).write_all(&bytes))
            .and_then(|()| {
                // File systems take a rename over an older file for a promise to have the new one on the disk.
                let _ = rustix::fs::unlinkat(self, &name, AtFlags::empty());
                Ok(rustix::fs::renameat(self, &hidden, self, &name)?)
            });
        stored.map_err(|source| {
            // Whatever is left of it is of no use.
            let _ = rustix::fs::unlinkat(self, &hidden, AtFlags::empty());
            WriteError::io(&name, "write", source)
        })
    }
}

/// Appends a record, unless readers of the kind would refuse it.
fn append_checked<M: Record>(
    out: &mut Vec<u8>,
    message: &M,
    kind: ImageKind,
    file: &str,
) -> Result<(), WriteError> {
    let schema = M::schema();
    if !kind.holds(schema) {
        return Err(WriteError::WrongMessage {
            file: file.into(),
            kind,
            message: schema.name,
        });
    }
    let start = out.len();
    append(out, message);
    let (size, limit) = (out.len() - start - 4, kind.spec().max_record);
    if size > limit as usize {
        out.truncate(start);
        return Err(WriteError::TooLarge {
            file: file.into(),
            message: schema.name,
            size,
            limit,
        });
    }
    Ok(())
}

/// Writes one image file of a [`Staging`](crate::Staging). The file is created by the first
/// record: nothing written, no file (section 2.4).
///
/// Dropping the writer finishes the file. An error met then is reported by
/// [`Staging::commit`](crate::Staging::commit), so it cannot be lost.
#[derive(Debug)]
pub struct ImageWriter {
    name: String,
    kind: ImageKind,
    shared: Arc<Shared>,
    file: Option<File>,
    /// Has seen what was written before the buffer: there is none for an image that fits into that.
    hasher: Option<Box<blake3::Hasher>>,
    buffer: Vec<u8>,
    len: u64,
    finished: bool,
}

impl ImageWriter {
    pub(crate) fn new(shared: Arc<Shared>, kind: ImageKind, name: String) -> Self {
        Self {
            name,
            kind,
            shared,
            file: None,
            hasher: None,
            buffer: Vec::new(),
            len: 0,
            finished: false,
        }
    }

    /// Appends a record.
    pub fn push<M: Record>(&mut self, message: &M) -> Result<&mut Self, WriteError> {
        if self.file.is_none() {
            // A record that is refused makes no file.
            let mut first = header(self.kind);
            append_checked(&mut first, message, self.kind, &self.name)?;
            self.touch()?;
            self.buffer = first;
        } else {
            append_checked(&mut self.buffer, message, self.kind, &self.name)?;
        }
        self.flush_full()?;
        Ok(self)
    }

    /// Appends bytes that belong to the last record but not to its message.
    pub fn push_payload(&mut self, bytes: &[u8]) -> Result<&mut Self, WriteError> {
        self.touch()?;
        self.buffer.extend_from_slice(bytes);
        self.flush_full()?;
        Ok(self)
    }

    /// Appends a payload and the zeros that make its length a multiple of `align`.
    pub fn push_padded(&mut self, bytes: &[u8], align: usize) -> Result<&mut Self, WriteError> {
        let padding = bytes.len().next_multiple_of(align) - bytes.len();
        self.push_payload(bytes)?.push_payload(&vec![0; padding])
    }

    /// Makes the file exist even if no record follows.
    pub fn touch(&mut self) -> Result<&mut Self, WriteError> {
        if self.file.is_none() {
            self.file = Some(self.shared.create(&self.name)?);
            self.buffer = header(self.kind);
        }
        Ok(self)
    }

    /// Writes out everything and reports what dropping would leave to the commit.
    pub fn finish(mut self) -> Result<(), WriteError> {
        self.close()
    }

    fn flush_full(&mut self) -> Result<(), WriteError> {
        if self.buffer.len() < BUFFER {
            return Ok(());
        }
        self.flush_all()
    }

    fn flush_all(&mut self) -> Result<(), WriteError> {
        self.write_out()?;
        if self.file.is_some() {
            let hasher = self.hasher.get_or_insert_default();
            hasher.update(&self.buffer);
            self.buffer.clear();
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), WriteError> {
        if let Some(file) = &mut self.file {
            file.write_all(&self.buffer)
                .map_err(|source| WriteError::io(&self.name, "write", source))?;
            self.len += self.buffer.len() as u64;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), WriteError> {
        self.finished = true;
        self.write_out()?;
        if self.file.take().is_some() {
            let blake3 = match &mut self.hasher {
                Some(hasher) => hasher.update(&self.buffer).finalize(),
                None => blake3::hash(&self.buffer),
            };
            let len = self.len;
            self.shared.finish(&self.name, Finished { len, blake3 });
        }
        Ok(())
    }
}

/// Payload bytes by way of [`io::copy`] and the like.
impl Write for ImageWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push_payload(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_all().map_err(io::Error::other)
    }
}

impl Drop for ImageWriter {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.close()
        {
            self.shared.fail(error);
        }
    }
}
