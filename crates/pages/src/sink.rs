//! Where encoded chunks go, in order.

use crate::run::Run;
use std::io::{self, Write};

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

    fn finish(&mut self, trailer: &[u8]) -> io::Result<()> {
        self.write_all(trailer)?;
        self.flush()
    }
}
