//! Cheap looks at pages: is it zero, is it worth compressing.

use crate::{CHUNK_PAGES, PAGE_SIZE};

/// Strips looked at in each chunk.
const STRIPS: usize = 256;
/// Bytes of each strip.
const STRIP_BYTES: usize = 32;

/// True if every byte of a page is 0.
#[must_use]
pub fn is_zero(page: &[u8]) -> bool {
    const ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
    // memcmp: it leaves at the first difference and runs at the speed of the cache otherwise.
    page == &ZEROS[..page.len().min(PAGE_SIZE)]
}

/// True if `data`, whole pages, looks like random bytes (encrypted, compressed) that zstd would only
/// pass through, an order of magnitude slower than a copy.
///
/// Looks at strips all over the chunk for a flat histogram, and for pages that repeat.
#[must_use]
pub fn looks_random(data: &[u8]) -> bool {
    is_flat(data) && !pages_repeat(data)
}

/// Compares the sum of the squared byte counts to that of uniformly distributed bytes.
fn is_flat(data: &[u8]) -> bool {
    let strips = STRIPS.min(data.len() / (2 * STRIP_BYTES));
    if strips == 0 {
        return false;
    }
    let stride = data.len() / strips;
    let mut counts = [0_u64; 256];
    for strip in 0..strips {
        // The place within the stride varies, so that headers at fixed offsets do not mislead.
        let at = strip * stride + strip * 1328 % (stride - STRIP_BYTES);
        for byte in &data[at..at + STRIP_BYTES] {
            counts[usize::from(*byte)] += 1;
        }
    }
    let sampled = (strips * STRIP_BYTES) as u64;
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let uniform = sampled * sampled / 256 + sampled;
    squares * 8 < uniform * 9
}

/// True if at least one page of sixteen starts like another one.
fn pages_repeat(data: &[u8]) -> bool {
    let mut heads = [0_u64; CHUNK_PAGES];
    let mut pages = 0;
    for (head, page) in heads.iter_mut().zip(data.chunks_exact(PAGE_SIZE)) {
        *head = page
            .first_chunk()
            .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        pages += 1;
    }
    let heads = &mut heads[..pages];
    heads.sort_unstable();
    let repeats = heads.windows(2).filter(|pair| pair[0] == pair[1]).count();
    repeats * 16 > pages
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Pseudo-random bytes (splitmix64).
    pub(crate) fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(word ^ (word >> 31)).to_ne_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn only_zeros_are_zero() {
        let mut page = vec![0; PAGE_SIZE];
        assert!(is_zero(&page));
        for at in [0, 1, 2048, PAGE_SIZE - 1] {
            page[at] = 1;
            assert!(!is_zero(&page));
            page[at] = 0;
        }
    }

    #[test]
    fn random_chunks_of_every_size_are_recognised() {
        for pages in [1, 2, 3, 17, 100, CHUNK_PAGES] {
            for seed in 0..20 {
                assert!(
                    looks_random(&random_bytes(seed, pages * PAGE_SIZE)),
                    "{pages} pages, seed {seed}"
                );
            }
        }
    }

    #[test]
    fn compressible_chunks_are_recognised() {
        let page = random_bytes(1, PAGE_SIZE);
        assert!(
            !looks_random(&page.repeat(CHUNK_PAGES)),
            "one page repeated"
        );
        assert!(!looks_random(&vec![7; PAGE_SIZE]), "one byte");
        let mut holes = random_bytes(2, CHUNK_PAGES * PAGE_SIZE);
        for page in holes.chunks_exact_mut(PAGE_SIZE) {
            page[3000..].fill(0);
        }
        assert!(!looks_random(&holes), "pages with a tail of zeros");
        let text: Vec<u8> = random_bytes(3, 64 * PAGE_SIZE)
            .iter()
            .map(|byte| byte % 64 + 32)
            .collect();
        assert!(!looks_random(&text), "six bits of eight");
    }
}
