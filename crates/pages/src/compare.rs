//! Which pages of a target are not yet what they should be.

use crate::PAGE_SIZE;
use crate::target::PageTarget;
use std::ops::Range;

/// Compares pages, and keeps its buffer.
#[derive(Default)]
pub(crate) struct Comparison {
    there: Vec<u8>,
}

impl Comparison {
    /// Appends to `out` the parts of `addresses` that must be written to hold `bytes`: all but the pages in `compared`
    /// that do already.
    pub(crate) fn different(
        &mut self,
        target: &dyn PageTarget,
        compared: &[Range<u64>],
        addresses: &Range<u64>,
        bytes: &[u8],
        out: &mut Vec<Range<u64>>,
    ) {
        let first = compared.partition_point(|range| range.end <= addresses.start);
        let mut at = addresses.start;
        for range in &compared[first..] {
            let part = range.start.max(at)..range.end.min(addresses.end);
            if part.is_empty() {
                break;
            }
            append(out, at..part.start);
            let from = (part.start - addresses.start) as usize;
            let wanted = &bytes[from..from + (part.end - part.start) as usize];
            self.pages(target, &part, wanted, out);
            at = part.end;
        }
        append(out, at..addresses.end);
    }

    fn pages(
        &mut self,
        target: &dyn PageTarget,
        part: &Range<u64>,
        wanted: &[u8],
        out: &mut Vec<Range<u64>>,
    ) {
        self.there.clear();
        self.there.resize(wanted.len(), 0);
        // What cannot be read is written.
        let read = target.read(part, &mut self.there).unwrap_or(0);
        let there = &self.there[..read.min(wanted.len())];
        let pages = wanted.chunks(PAGE_SIZE).enumerate();
        for (index, page) in pages {
            let from = index * PAGE_SIZE;
            if there.get(from..from + page.len()) != Some(page) {
                let start = part.start + from as u64;
                append(out, start..start + page.len() as u64);
            }
        }
    }
}

/// Appends a range, as one with the last if it goes on where that ends.
fn append(out: &mut Vec<Range<u64>>, range: Range<u64>) {
    if range.is_empty() {
        return;
    }
    match out.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => out.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    const PAGE: u64 = PAGE_SIZE as u64;

    /// Pages that hold their number, up to a limit.
    struct Numbered {
        readable: usize,
    }

    impl PageTarget for Numbered {
        fn write(&self, _: &[u8], _: &[Range<u64>]) -> io::Result<()> {
            Ok(())
        }

        fn read(&self, range: &Range<u64>, bytes: &mut [u8]) -> io::Result<usize> {
            let pages = bytes.chunks_mut(PAGE_SIZE).enumerate();
            pages.for_each(|(index, page)| page.fill((range.start / PAGE) as u8 + index as u8));
            Ok(self.readable.min(bytes.len()))
        }
    }

    fn different(readable: usize, compared: &[Range<u64>], odd: &[usize]) -> Vec<(u64, u64)> {
        let mut bytes: Vec<u8> = (10..20).flat_map(|page| [page; PAGE_SIZE]).collect();
        odd.iter()
            .for_each(|page| bytes[(page - 10) * PAGE_SIZE + 77] = 0);
        let compared: Vec<_> = compared
            .iter()
            .map(|range| range.start * PAGE..range.end * PAGE)
            .collect();
        let mut out = Vec::new();
        let target = Numbered { readable };
        let addresses = 10 * PAGE..20 * PAGE;
        Comparison::default().different(&target, &compared, &addresses, &bytes, &mut out);
        out.iter()
            .map(|range| (range.start / PAGE, range.end / PAGE))
            .collect()
    }

    #[test]
    fn only_equal_pages_that_are_compared_are_left_out() {
        assert_eq!(different(usize::MAX, &[], &[]), [(10, 20)]);
        assert_eq!(different(usize::MAX, &[0..30], &[]), []);
        assert_eq!(
            different(usize::MAX, &[0..30], &[10, 14, 15, 19]),
            [(10, 11), (14, 16), (19, 20)]
        );
        assert_eq!(
            different(usize::MAX, &[0..3, 12..14, 16..30], &[13]),
            [(10, 12), (13, 16)]
        );
        assert_eq!(different(usize::MAX, &[0..3, 30..40], &[]), [(10, 20)]);
    }

    #[test]
    fn what_cannot_be_read_is_written() {
        assert_eq!(
            different(PAGE_SIZE + 7, &[12..18], &[]),
            [(10, 12), (13, 20)]
        );
        assert_eq!(different(0, &[0..30], &[]), [(10, 20)]);
    }
}
