//! Contents of shared memory that nobody may open, read where processes have mapped it.

use std::io;
use std::ops::Range;

use gelid_pages::{PageSource, ProcessSource};

use crate::files::Part;

/// Memory addressed by byte offset, of which processes have mapped parts.
#[derive(Debug)]
pub(super) struct MappedSource {
    /// By offset; none begins where another one has begun already.
    parts: Vec<(Part, ProcessSource)>,
}

impl MappedSource {
    pub(super) fn new(mut parts: Vec<Part>) -> Self {
        // The longest of those with the same start says all that the others say.
        parts.sort_by_key(|part| (part.offset, std::cmp::Reverse(part.len)));
        let mut end = 0;
        parts.retain(|part| {
            let is_new = part.offset + part.len > end;
            end = end.max(part.offset + part.len);
            is_new
        });
        let parts = parts.into_iter();
        Self {
            parts: parts
                .map(|part| (part, ProcessSource::new(part.pid)))
                .collect(),
        }
    }

    /// What can be read, ascending.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (part, _) in &self.parts {
            let range = part.offset..part.offset + part.len;
            match ranges.last_mut() {
                Some(last) if range.start <= last.end => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }

    /// The part that has the byte at `offset`.
    fn at(&self, offset: u64) -> io::Result<&(Part, ProcessSource)> {
        let next = self
            .parts
            .partition_point(|(part, _)| part.offset <= offset);
        let found = next.checked_sub(1).and_then(|last| self.parts.get(last));
        let found = found.filter(|(part, _)| offset < part.offset + part.len);
        found.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl PageSource for MappedSource {
    fn read(&self, ranges: &[Range<u64>], mut buf: &mut [u8]) -> io::Result<()> {
        for range in ranges {
            let mut offset = range.start;
            while offset < range.end {
                let (part, source) = self.at(offset)?;
                let end = range.end.min(part.offset + part.len);
                let (here, rest) = buf.split_at_mut((end - offset) as usize);
                let address = part.address + (offset - part.offset);
                source.read(&[address..address + (end - offset)], here)?;
                (buf, offset) = (rest, end);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpid;

    use super::*;

    #[test]
    fn parts_that_overlap_are_read_once() {
        const PAGE: u64 = 4096;
        let memory: Vec<u8> = (0..8 * PAGE).map(|at| (at / PAGE) as u8).collect();
        let part = |offset: u64, len: u64| Part {
            pid: getpid(),
            address: memory.as_ptr() as u64 + offset * PAGE,
            offset: offset * PAGE,
            len: len * PAGE,
        };
        let source = MappedSource::new(vec![part(2, 3), part(2, 1), part(0, 3), part(6, 2)]);
        assert_eq!(source.ranges(), [0..5 * PAGE, 6 * PAGE..8 * PAGE]);
        let mut found = vec![0; 6 * PAGE as usize];
        source
            .read(&[0..5 * PAGE, 7 * PAGE..8 * PAGE], &mut found)
            .unwrap();
        let pages: Vec<u8> = found.chunks(PAGE as usize).map(|page| page[0]).collect();
        assert_eq!(pages, [0, 1, 2, 3, 4, 7]);
        assert!(
            source
                .read(&[5 * PAGE..6 * PAGE], &mut [0; PAGE as usize])
                .is_err()
        );
    }
}
