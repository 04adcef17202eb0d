//! Where a reader finds the bytes of a store.

use rustix::io::Errno;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

/// Bytes that can be read at any offset, by several threads at once: a file, a mapping, a buffer.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    ///
    /// If it cannot be told.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    ///
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if there are not as many bytes.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Fills `parts`, one behind the other, from `offset` on.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at).
    fn read_parts_at(&self, parts: &mut [IoSliceMut<'_>], mut offset: u64) -> io::Result<()> {
        for part in parts {
            self.read_at(part, offset)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// True if there are no bytes.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// All bytes, if they are in memory anyway; saves a copy.
    fn as_slice(&self) -> Option<&[u8]> {
        None
    }
}

impl ReadAt for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn read_parts_at(&self, mut parts: &mut [IoSliceMut<'_>], mut offset: u64) -> io::Result<()> {
        while !parts.is_empty() {
            match rustix::io::preadv(self, parts, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    IoSliceMut::advance_slices(&mut parts, len);
                    offset += len as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.as_slice().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start
            .checked_add(buf.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn as_slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}
