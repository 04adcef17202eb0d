//! One chunk as one zstd frame: packed where that pays, stored where it does not (RFC 8878).

use crate::sample::looks_random;
use twox_hash::XxHash64;
use zstd_safe::{CCtx, CParameter, DCtx, ErrorCode};

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Frame_Content_Size of 4 bytes, single segment, content checksum.
const DESCRIPTOR: u8 = 0b1010_0100;
const STORED_BLOCK_BYTES: usize = 128 << 10;
const BLOCK_HEADER_BYTES: usize = 3;
/// Frame header and content checksum of a stored frame.
const STORED_OVERHEAD: usize = 4 + 1 + 4 + 4;

/// Room that the frame of `len` bytes may need.
pub(crate) fn bound(len: usize) -> usize {
    let blocks = len.div_ceil(STORED_BLOCK_BYTES);
    zstd_safe::compress_bound(len).max(len + blocks * BLOCK_HEADER_BYTES + STORED_OVERHEAD)
}

/// What zstd makes of the error codes that it returns.
pub(crate) fn reason(code: ErrorCode) -> &'static str {
    zstd_safe::get_error_name(code)
}

/// A compressor for one thread.
pub(crate) struct Packer {
    context: CCtx<'static>,
    level: i32,
}

impl Packer {
    pub(crate) fn new(level: i32) -> Result<Self, ErrorCode> {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(level))?;
        context.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self { context, level })
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
        if level != self.level {
            let parameter = CParameter::CompressionLevel(level);
            self.context.set_parameter(parameter)?;
            self.level = level;
        }
        self.pack(data, out)
    }
}

/// Writes `data` as a frame of raw blocks.
pub(crate) fn store(data: &[u8], out: &mut [u8]) -> usize {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&MAGIC);
    put(&[DESCRIPTOR]);
    // A chunk has at most a mebibyte.
    put(&(data.len() as u32).to_le_bytes());
    let last = data.len().div_ceil(STORED_BLOCK_BYTES) - 1;
    for (index, block) in data.chunks(STORED_BLOCK_BYTES).enumerate() {
        let header = (block.len() as u32) << 3 | u32::from(index == last);
        put(&header.to_le_bytes()[..BLOCK_HEADER_BYTES]);
        put(block);
    }
    put(&(XxHash64::oneshot(0, data) as u32).to_le_bytes());
    at
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
            let blocks = len.div_ceil(STORED_BLOCK_BYTES);
            let want = len + blocks * BLOCK_HEADER_BYTES + STORED_OVERHEAD;
            assert_eq!(round_trip(1, &random_bytes(9, len)), want);
        }
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
        }
    }
}
