//! A source and a target in this process's own memory: for tests, examples and relays.

use crate::pool::lock;
use crate::source::{PageSource, byte_len};
use crate::target::PageTarget;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bytes that pretend to lie at some address.
#[derive(Debug)]
pub struct Memory {
    base: u64,
    bytes: Mutex<Vec<u8>>,
}

impl Memory {
    /// Memory that holds `bytes` from address `base` on.
    #[must_use]
    pub fn new(base: u64, bytes: Vec<u8>) -> Self {
        Self {
            base,
            bytes: Mutex::new(bytes),
        }
    }

    /// The bytes as they are now.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the bytes as they are now.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.bytes).clone()
    }

    fn index(&self, range: &Range<u64>) -> io::Result<Range<usize>> {
        let start = range.start.checked_sub(self.base);
        let start = start.and_then(|start| usize::try_from(start).ok());
        start
            .and_then(|start| Some(start..start.checked_add(byte_len(range))?))
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

impl PageSource for Memory {
    fn read(&self, ranges: &[Range<u64>], mut buf: &mut [u8]) -> io::Result<()> {
        let bytes = lock(&self.bytes);
        for range in ranges {
            let (here, rest) = buf.split_at_mut(byte_len(range));
            let from = bytes
                .get(self.index(range)?)
                .ok_or(io::ErrorKind::AddrNotAvailable)?;
            here.copy_from_slice(from);
            buf = rest;
        }
        Ok(())
    }
}

impl PageTarget for Memory {
    fn write(&self, mut data: &[u8], ranges: &[Range<u64>]) -> io::Result<()> {
        let mut bytes = lock(&self.bytes);
        for range in ranges {
            let (here, rest) = data.split_at(byte_len(range));
            let to = bytes
                .get_mut(self.index(range)?)
                .ok_or(io::ErrorKind::AddrNotAvailable)?;
            to.copy_from_slice(here);
            data = rest;
        }
        Ok(())
    }
}
