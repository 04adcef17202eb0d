//! What is known of an object once its last page is written.

use crate::dedup::Reference;
use crate::run::Run;
use crate::{CHUNK_PAGES, PAGE_SIZE};
use std::fmt::Write as _;

/// One chunk of a raw store and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSum {
    /// Pages in the chunk: 1 to [`CHUNK_PAGES`].
    pub pages: u32,
    /// XXH3-64 of its bytes.
    pub xxh3: u64,
}

/// The result of dumping one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Pages in the store.
    pub pages: u64,
    /// Pages that were read but left out because they hold zeros.
    pub zero_pages: u64,
    /// Bytes of the pages in the store.
    pub raw_bytes: u64,
    /// Bytes handed to the sink, seek table included.
    pub stored_bytes: u64,
    /// The chunks of a raw store in order; empty for zstd, whose frames carry checksums themselves.
    pub checksums: Vec<ChunkSum>,
    /// What `pagemap-*.img` has to say: ascending, merged.
    pub pagemap: Vec<Run>,
    /// Pages left out since an object has equal ones; ascending, merged, and apart from those in the pagemap.
    pub references: Vec<Reference>,
}

/// An index of checksums that does not fit its text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("checksum index, line {line}: {reason}")]
pub struct ParseIndexError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
}

const HEAD: &str = "gelid-chunks 1";

/// The text form of a checksum index: a head line, then for each chunk its XXH3-64 in hexadecimal,
/// followed by its pages where they are not [`CHUNK_PAGES`]. 17 bytes for each mebibyte.
#[must_use]
pub fn encode_checksums(checksums: &[ChunkSum]) -> String {
    let mut text = String::with_capacity(HEAD.len() + 1 + 17 * checksums.len());
    text.push_str(HEAD);
    text.push('\n');
    for sum in checksums {
        // Writing to a string cannot fail.
        let _ = match sum.pages as usize {
            CHUNK_PAGES => writeln!(text, "{:016x}", sum.xxh3),
            pages => writeln!(text, "{:016x} {pages}", sum.xxh3),
        };
    }
    text
}

/// Parses what [`encode_checksums`] wrote.
///
/// # Errors
///
/// The first line that does not fit.
pub fn parse_checksums(text: &str) -> Result<Vec<ChunkSum>, ParseIndexError> {
    let mut lines = text.lines().enumerate();
    if lines.next().is_none_or(|(_, head)| head != HEAD) {
        return Err(ParseIndexError {
            line: 1,
            reason: "not a checksum index of version 1",
        });
    }
    lines
        .map(|(index, line)| {
            parse_line(line).map_err(|reason| ParseIndexError {
                line: index + 1,
                reason,
            })
        })
        .collect()
}

fn parse_line(line: &str) -> Result<ChunkSum, &'static str> {
    let (sum, pages) = line
        .split_once(' ')
        .map_or((line, None), |(sum, pages)| (sum, Some(pages)));
    if sum.len() != 16 || !sum.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("not a checksum of 16 hexadecimal digits");
    }
    let xxh3 = u64::from_str_radix(sum, 16).map_err(|_| "not a hexadecimal number")?;
    let pages = match pages {
        None => CHUNK_PAGES as u32,
        Some(pages) => pages.parse().map_err(|_| "not a number of pages")?,
    };
    if pages == 0 || pages as usize > CHUNK_PAGES {
        return Err("a chunk has 1 to 256 pages");
    }
    Ok(ChunkSum { pages, xxh3 })
}

impl Summary {
    /// Counts one more chunk of `pages` pages, of which `stored` bytes went out.
    pub(crate) fn count(&mut self, pages: usize, stored: usize) {
        self.pages += pages as u64;
        self.raw_bytes += (pages * PAGE_SIZE) as u64;
        self.stored_bytes += stored as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn indexes_come_back(sums in prop::collection::vec((1..=CHUNK_PAGES as u32, any::<u64>()), 0..50)) {
            let sums: Vec<_> = sums.into_iter().map(|(pages, xxh3)| ChunkSum { pages, xxh3 }).collect();
            prop_assert_eq!(parse_checksums(&encode_checksums(&sums)).unwrap(), sums);
        }

        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = parse_checksums(&format!("{HEAD}\n{text}"));
        }
    }

    #[test]
    fn errors_name_the_line() {
        let text = format!("{HEAD}\n0123456789abcdef\n0123456789abcdef 257\n");
        assert_eq!(parse_checksums(&text).unwrap_err().line, 3);
        assert!(parse_checksums("").is_err());
        assert!(parse_checksums(&format!("{HEAD}\n+123456789abcdef")).is_err());
    }
}
