//! One chunk as one zstd frame: packed where that pays, stored where it does not (RFC 8878).

use crate::kinds::Kind;
use crate::sample::looks_random;
use crate::{MAX_FRAME_BYTES, PAGE_SIZE};
use std::io::IoSliceMut;
use twox_hash::XxHash64;
use zstd_safe::{CCtx, CParameter, DCtx, ErrorCode};

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Frame_Content_Size of 4 bytes, single segment, content checksum.
const DESCRIPTOR: u8 = 0b1010_0100;
const STORED_BLOCK_BYTES: usize = 128 << 10;
const BLOCK_HEADER_BYTES: usize = 3;
/// What a stored frame begins and ends with.
const HEADER_BYTES: usize = 4 + 1 + 4;
const SUM_BYTES: usize = 4;
const STORED_OVERHEAD: usize = HEADER_BYTES + SUM_BYTES;

/// Room that the frame of `len` bytes may need.
pub(crate) fn bound(len: usize) -> usize {
    zstd_safe::compress_bound(len).max(stored_len(len))
}

/// What zstd makes of the error codes that it returns.
pub(crate) fn reason(code: ErrorCode) -> &'static str {
    zstd_safe::get_error_name(code)
}

/// Pages of a chunk that tell what it is like, and how many it has at least if they are looked at.
const SAMPLE_PAGES: usize = 4;
const SAMPLED_PAGES: usize = 16;
/// The level at which they are packed.
pub(crate) const SAMPLE_LEVEL: i32 = -5;

/// A compressor for one thread.
pub(crate) struct Packer {
    context: CCtx<'static>,
    level: i32,
    sample: Vec<u8>,
}

impl Packer {
    pub(crate) fn new(level: i32) -> Result<Self, ErrorCode> {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(level))?;
        context.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self {
            context,
            level,
            sample: Vec::new(),
        })
    }

    /// Writes `data` as one frame to the start of `out`, which has [`bound`] bytes; returns its length.
    pub(crate) fn pack(&mut self, data: &[u8], out: &mut [u8]) -> Result<usize, ErrorCode> {
        if looks_random(data) {
            return Ok(store(data, out));
        }
        let packed = self.context.compress2(out, data)?;
        // Below three per cent, the faster way back is worth more.
        match packed < data.len() - data.len() / 32 {
            true => Ok(packed),
            false => Ok(store(data, out)),
        }
    }

    /// Does the same at the level of now.
    pub(crate) fn pack_at(
        &mut self,
        level: i32,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, ErrorCode> {
        self.set_level(level)?;
        self.pack(data, out)
    }

    /// Looks at some pages of `data` what it is like, unless it is so short that packing it is as well. The start of
    /// `out` is written over.
    pub(crate) fn kind(&mut self, data: &[u8], out: &mut [u8]) -> Result<Option<Kind>, ErrorCode> {
        let pages = data.len() / PAGE_SIZE;
        if pages < SAMPLED_PAGES {
            return Ok(None);
        }
        self.set_level(SAMPLE_LEVEL)?;
        self.sample.clear();
        for part in 0..SAMPLE_PAGES {
            // In the middle of each quarter.
            let page = pages * (2 * part + 1) / (2 * SAMPLE_PAGES);
            let page = &data[page * PAGE_SIZE..(page + 1) * PAGE_SIZE];
            self.sample.extend_from_slice(page);
        }
        let packed = self.context.compress2(out, &self.sample)?;
        Ok(Some(Kind::of(packed, self.sample.len())))
    }

    fn set_level(&mut self, level: i32) -> Result<(), ErrorCode> {
        if level != self.level {
            let parameter = CParameter::CompressionLevel(level);
            self.context.set_parameter(parameter)?;
            self.level = level;
        }
        Ok(())
    }
}

/// Writes `data` as a frame of raw blocks.
pub(crate) fn store(data: &[u8], out: &mut [u8]) -> usize {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&frame_header(data.len()));
    for (header, block) in blocks(data) {
        put(&header);
        put(block);
    }
    put(&sum(data));
    at
}

/// Length of the frame that [`store`] makes of `len` bytes.
pub(crate) fn stored_len(len: usize) -> usize {
    len + len.div_ceil(STORED_BLOCK_BYTES) * BLOCK_HEADER_BYTES + STORED_OVERHEAD
}

/// Reads frames that [`store`] has made: all that is not data comes to lie here, and the data where it is wanted.
pub(crate) struct Stored([u8; Self::MOST]);

impl Stored {
    const MOST: usize =
        STORED_OVERHEAD + MAX_FRAME_BYTES.div_ceil(STORED_BLOCK_BYTES) * BLOCK_HEADER_BYTES;

    pub(crate) fn new() -> Self {
        Self([0; Self::MOST])
    }

    /// Where the parts of such a frame go, in their order, if it has `data.len()` bytes of data.
    pub(crate) fn parts<'a>(&'a mut self, data: &'a mut [u8]) -> Vec<IoSliceMut<'a>> {
        let mut parts = Vec::new();
        let mut beside = &mut self.0[..];
        let mut take = |len: usize| {
            let (part, rest) = std::mem::take(&mut beside).split_at_mut(len);
            beside = rest;
            IoSliceMut::new(part)
        };
        parts.push(take(HEADER_BYTES));
        for block in data.chunks_mut(STORED_BLOCK_BYTES) {
            parts.push(take(BLOCK_HEADER_BYTES));
            parts.push(IoSliceMut::new(block));
        }
        parts.push(take(SUM_BYTES));
        parts
    }

    /// Whether the data that was read is what was stored; `None` if the frame is another one, as long as a stored one.
    pub(crate) fn is_intact(&self, data: &[u8]) -> Option<bool> {
        let (found, rest) = self.0.split_at(HEADER_BYTES);
        let mut found = found.iter().chain(rest);
        let headers = blocks(data).flat_map(|(header, _)| header);
        let mut wanted = frame_header(data.len()).into_iter().chain(headers);
        if !wanted.all(|byte| found.next() == Some(&byte)) {
            return None;
        }
        Some(sum(data).iter().all(|byte| found.next() == Some(byte)))
    }
}

/// What a stored frame of `len` bytes begins with.
fn frame_header(len: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = DESCRIPTOR;
    // A frame has at most two mebibytes.
    header[5..].copy_from_slice(&(len as u32).to_le_bytes());
    header
}

/// The blocks of a stored frame, each with its header.
fn blocks(data: &[u8]) -> impl Iterator<Item = ([u8; BLOCK_HEADER_BYTES], &[u8])> {
    let count = data.len().div_ceil(STORED_BLOCK_BYTES);
    let blocks = data.chunks(STORED_BLOCK_BYTES).enumerate();
    blocks.map(move |(index, block)| {
        let is_last = index + 1 == count;
        let [one, two, three, _] = ((block.len() as u32) << 3 | u32::from(is_last)).to_le_bytes();
        ([one, two, three], block)
    })
}

/// What a frame ends with.
fn sum(data: &[u8]) -> [u8; SUM_BYTES] {
    (XxHash64::oneshot(0, data) as u32).to_le_bytes()
}

/// A decompressor for one thread.
pub(crate) struct Unpacker(DCtx<'static>);

impl Unpacker {
    pub(crate) fn new() -> Self {
        Self(DCtx::create())
    }

    /// Unpacks the one frame that `packed` must be into `out`, which it must fill.
    pub(crate) fn unpack(&mut self, packed: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
        // Without a content checksum a flipped bit would pass for data; the other two are unused.
        let has_checksum = packed
            .get(4)
            .is_some_and(|descriptor| descriptor & 0b1_1100 == 0b100);
        if packed.get(..4) != Some(&MAGIC) || !has_checksum {
            return Err("not a zstd frame with a checksum");
        }
        match zstd_safe::find_frame_compressed_size(packed) {
            Ok(size) if size == packed.len() => {}
            _ => return Err("frame is not as long as the seek table says"),
        }
        match self.0.decompress(out, packed) {
            Ok(size) if size == out.len() => Ok(()),
            Ok(_) => Err("frame holds fewer bytes than the seek table says"),
            Err(code) => Err(reason(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::ReadAt;
    use crate::sample::tests::random_bytes;

    fn round_trip(level: i32, data: &[u8]) -> usize {
        let mut out = vec![0; bound(data.len())];
        let len = Packer::new(level).unwrap().pack(data, &mut out).unwrap();
        let mut back = vec![0; data.len()];
        Unpacker::new().unpack(&out[..len], &mut back).unwrap();
        assert_eq!(back, data);
        len
    }

    #[test]
    fn frames_come_back_at_every_level() {
        let text: Vec<u8> = b"all work and no play "
            .iter()
            .cycle()
            .take(1 << 20)
            .copied()
            .collect();
        for level in [-7, -1, 1, 3, 9] {
            assert!(round_trip(level, &text) < 4096);
        }
    }

    #[test]
    fn random_data_is_stored() {
        for len in [4096_usize, 5 * 4096, 1 << 20] {
            assert_eq!(round_trip(1, &random_bytes(9, len)), stored_len(len));
        }
    }

    /// Reads a frame of `len` bytes as one that is stored.
    fn read(frame: &[u8], len: usize) -> (Option<bool>, Vec<u8>) {
        let (mut stored, mut data) = (Stored::new(), vec![0; len]);
        let frame = frame.to_vec();
        frame
            .read_parts_at(&mut stored.parts(&mut data), 0)
            .unwrap();
        (stored.is_intact(&data), data)
    }

    #[test]
    fn stored_frames_are_read_without_unpacking() {
        for len in [4096, 33 * 4096, 1 << 20, MAX_FRAME_BYTES] {
            let data = random_bytes(3, len);
            let mut out = vec![0; bound(len)];
            let stored = store(&data, &mut out);
            assert_eq!(read(&out[..stored], len), (Some(true), data));
        }
        // One that zstd has made of as many bytes.
        let mut out = vec![0; bound(4096)];
        Packer::new(1).unwrap().pack(&[7; 4096], &mut out).unwrap();
        assert_eq!(read(&out, 4096).0, None);
    }

    #[test]
    fn every_flipped_bit_of_a_stored_frame_is_noticed() {
        let data = random_bytes(4, 4096);
        let mut out = vec![0; bound(data.len())];
        let len = store(&data, &mut out);
        let mut back = vec![0; data.len()];
        for bit in 0..8 * len {
            let mut bad = out[..len].to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Unpacker::new().unpack(&bad, &mut back).is_err(),
                "bit {bit}"
            );
            assert_ne!(read(&bad, data.len()).0, Some(true), "bit {bit}");
        }
    }
}
