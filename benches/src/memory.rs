//! Memory contents: what a program's heap looks like, and what cannot be compressed.

/// A small, fast generator of pseudo-random numbers (splitmix64): the same bytes on every run.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// `len` bytes like the heap of an object-oriented program: type pointers, pointers within the heap, small
/// numbers, short strings, unused words. zstd packs them about five to one.
#[must_use]
pub fn heap(len: usize) -> Vec<u8> {
    let mut random = Random(1);
    let mut bytes = Vec::with_capacity(len + 64);
    while bytes.len() < len {
        let dice = random.word();
        let class = 0x7f52_1040_0000 + (dice % 24) * 0x1c0;
        let near = 0x55d0_0000_0000 + bytes.len() as u64 + (dice >> 8) % 4096 * 16;
        let words = match dice >> 32 & 7 {
            0 => [class, near, near + 64, dice >> 40 & 63, 0, 0, 0, 0],
            1..=3 => [class, 1, near, 0, 0, 0, dice >> 56, 0],
            4 | 5 => [
                class,
                dice >> 52 & 15,
                u64::from_le_bytes(*b"property"),
                0x6874_676e_656c,
                0,
                near,
                0,
                0,
            ],
            _ => [class, 0, 0, 0, 0, 0, 0, 0],
        };
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes.truncate(len);
    bytes
}

/// `len` bytes that no compressor can shorten.
#[must_use]
pub fn random(len: usize) -> Vec<u8> {
    let mut random = Random(2);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(random.word().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
