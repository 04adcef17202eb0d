//! Where encoded chunks go, in order.

use crate::run::Run;
use std::io::{self, IoSlice, Write};

/// One encoded chunk on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// What the chunk records, ascending; runs without [`PRESENT`](crate::RunFlags::PRESENT) carry no data.
    pub runs: &'a [Run],
    /// The pages of the present runs, encoded: raw pages or one zstd frame. Empty if there are none.
    pub bytes: &'a [u8],
}

/// The receiving end of one object: a file, a stream, a page server.
///
/// Every [`Write`] is a sink that keeps the bytes alone. The calls for one object come one after
/// another and in order, though from changing threads.
pub trait PageSink: Send {
    /// Takes the next chunk.
    ///
    /// # Errors
    ///
    /// Any error ends the whole dump; it is reported with the object.
    fn chunk(&mut self, chunk: Chunk<'_>) -> io::Result<()>;

    /// Takes several, one behind the other.
    ///
    /// # Errors
    ///
    /// As for [`chunk`](Self::chunk).
    fn chunks(&mut self, chunks: &[Chunk<'_>]) -> io::Result<()> {
        chunks.iter().try_for_each(|chunk| self.chunk(*chunk))
    }

    /// Takes what follows the last chunk (the seek table of a zstd store, else nothing).
    ///
    /// # Errors
    ///
    /// As for [`chunk`](Self::chunk).
    fn finish(&mut self, trailer: &[u8]) -> io::Result<()>;
}

impl<W: Write + Send> PageSink for W {
    fn chunk(&mut self, chunk: Chunk<'_>) -> io::Result<()> {
        self.write_all(chunk.bytes)
    }

    /// By one call, as far as the writer can: file systems take longer writes in larger pieces.
    fn chunks(&mut self, chunks: &[Chunk<'_>]) -> io::Result<()> {
        let mut parts: Vec<_> = chunks
            .iter()
            .map(|chunk| IoSlice::new(chunk.bytes))
            .collect();
        let mut rest = &mut parts[..];
        // Those that are empty would look like the end.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => IoSlice::advance_slices(&mut rest, len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn finish(&mut self, trailer: &[u8]) -> io::Result<()> {
        self.write_all(trailer)?;
        self.flush()
    }
}
