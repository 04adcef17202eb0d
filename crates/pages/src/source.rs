//! Where pages come from: the memory of a process, or a file that backs shared memory.

use crate::PAGE_SIZE;
use gelid_sys::vm;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::process::Pid;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Bytes that workers read by address, several threads at once.
pub trait PageSource: Send + Sync {
    /// Fills `buf` with the bytes of `ranges`, one behind the other; their total is `buf.len()`.
    ///
    /// There are at most [`CHUNK_PAGES`](crate::CHUNK_PAGES) ranges of whole pages.
    ///
    /// # Errors
    ///
    /// Any error ends the whole dump; it is reported with the object and the addresses.
    fn read(&self, ranges: &[Range<u64>], buf: &mut [u8]) -> io::Result<()>;
}

/// The memory of a process, which should not run meanwhile.
///
/// All ranges of a chunk are read by one `process_vm_readv(2)`; from the first page that it refuses
/// (no read permission) up to the end of that range, `/proc/PID/mem` is read instead.
///
/// So is memory that other processes may [share](Self::sharing). `process_vm_readv` pins pages, and for that the kernel
/// gives a process a copy of its own of each anonymous page that it has in common with others since a `fork(2)`.
#[derive(Debug)]
pub struct ProcessSource {
    pid: Pid,
    shared: Vec<Range<u64>>,
    mem: OnceLock<vm::Mem>,
}

impl ProcessSource {
    /// A source for the process `pid`, which the caller may trace.
    #[must_use]
    pub fn new(pid: Pid) -> Self {
        Self {
            pid,
            shared: Vec::new(),
            mem: OnceLock::new(),
        }
    }

    /// The same, where the pages in `shared`, which ascend, may belong to other processes too.
    #[must_use]
    pub fn sharing(self, shared: Vec<Range<u64>>) -> Self {
        Self { shared, ..self }
    }

    fn is_shared(&self, range: &Range<u64>) -> bool {
        let first = self
            .shared
            .partition_point(|shared| shared.end <= range.start);
        let first = self.shared.get(first);
        first.is_some_and(|shared| shared.start < range.end)
    }

    fn read_forced(&self, address: u64, buf: &mut [u8]) -> io::Result<()> {
        Ok(opened(&self.mem, self.pid)?.read(address, buf)?)
    }
}

impl PageSource for ProcessSource {
    fn read(&self, ranges: &[Range<u64>], mut buf: &mut [u8]) -> io::Result<()> {
        for ranges in ranges.chunk_by(|one, next| self.is_shared(one) == self.is_shared(next)) {
            let (here, rest) = buf.split_at_mut(ranges.iter().map(byte_len).sum());
            buf = rest;
            if !self.is_shared(&ranges[0]) {
                self.read_pinned(ranges, here)?;
                continue;
            }
            let mut here = here;
            for range in ranges {
                let (page, rest) = here.split_at_mut(byte_len(range));
                self.read_forced(range.start, page)?;
                here = rest;
            }
        }
        Ok(())
    }
}

impl ProcessSource {
    fn read_pinned(&self, ranges: &[Range<u64>], buf: &mut [u8]) -> io::Result<()> {
        let mut left = Remaining::new(ranges);
        while !left.is_empty() {
            let done = match vm::read_ranges(self.pid, left.ranges(), &mut buf[left.done..]) {
                Ok(done) => done,
                Err(Errno::FAULT) => 0,
                Err(errno) => return Err(errno.into()),
            };
            left.advance(done);
            if let Some(refused) = left.ranges().first().cloned() {
                let bytes = byte_len(&refused);
                self.read_forced(refused.start, &mut buf[left.done..left.done + bytes])?;
                left.advance(bytes);
            }
        }
        Ok(())
    }
}

/// The memory file of `pid`, opened at the first need.
pub(crate) fn opened(mem: &OnceLock<vm::Mem>, pid: Pid) -> io::Result<&vm::Mem> {
    if let Some(mem) = mem.get() {
        return Ok(mem);
    }
    let fresh = vm::Mem::open(pid)?;
    Ok(mem.get_or_init(|| fresh))
}

/// What is left of a list of ranges after a transfer that stopped short.
pub(crate) struct Remaining {
    ranges: Vec<Range<u64>>,
    first: usize,
    /// Bytes transferred so far.
    pub(crate) done: usize,
}

impl Remaining {
    pub(crate) fn new(ranges: &[Range<u64>]) -> Self {
        Self {
            ranges: ranges.to_vec(),
            first: 0,
            done: 0,
        }
    }

    pub(crate) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges[self.first..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges().is_empty()
    }

    /// Takes `bytes` from the front.
    pub(crate) fn advance(&mut self, mut bytes: usize) {
        self.done += bytes;
        while let Some(range) = self.ranges.get_mut(self.first) {
            let here = byte_len(range);
            if bytes < here {
                range.start += bytes as u64;
                return;
            }
            bytes -= here;
            self.first += 1;
        }
    }
}

/// Bytes in a range of at most a chunk.
pub(crate) fn byte_len(range: &Range<u64>) -> usize {
    // Ranges come in chunks of a mebibyte, so this cannot truncate on a machine with 64 bits.
    range.end.saturating_sub(range.start) as usize
}

/// A file addressed by byte offset: a memfd, a System V segment or an anonymous shared mapping opened
/// through `/proc/PID/map_files`.
#[derive(Debug)]
pub struct FileSource(File);

impl FileSource {
    /// A source for `file`, which must be readable.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self(file)
    }

    /// The page-aligned ranges that may hold data, ascending; holes are left out (`SEEK_DATA`).
    ///
    /// The file offset, which may be shared with the target, is put back.
    ///
    /// # Errors
    ///
    /// As `lseek(2)`; a file system without `SEEK_DATA` gives one range.
    pub fn data_ranges(&self) -> io::Result<Vec<Range<u64>>> {
        let saved = rustix::fs::tell(&self.0)?;
        let found = self.seek_data();
        rustix::fs::seek(&self.0, SeekFrom::Start(saved))?;
        Ok(found?)
    }

    fn seek_data(&self) -> rustix::io::Result<Vec<Range<u64>>> {
        let page = PAGE_SIZE as u64;
        let mut found: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        loop {
            let start = match rustix::fs::seek(&self.0, SeekFrom::Data(at)) {
                Ok(start) => start,
                // No data behind this point.
                Err(Errno::NXIO) => return Ok(found),
                Err(errno) => return Err(errno),
            };
            at = rustix::fs::seek(&self.0, SeekFrom::Hole(start))?;
            let range = start / page * page..at.div_ceil(page) * page;
            match found.last_mut() {
                Some(last) if last.end >= range.start => last.end = range.end,
                _ => found.push(range),
            }
        }
    }
}

impl PageSource for FileSource {
    fn read(&self, ranges: &[Range<u64>], mut buf: &mut [u8]) -> io::Result<()> {
        for range in ranges {
            let (here, rest) = buf.split_at_mut(byte_len(range));
            let mut done = 0;
            while done < here.len() {
                match self.0.read_at(&mut here[done..], range.start + done as u64) {
                    // The last page of the object is padded with zeros.
                    Ok(0) => {
                        here[done..].fill(0);
                        break;
                    }
                    Ok(got) => done += got,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            buf = rest;
        }
        Ok(())
    }
}
