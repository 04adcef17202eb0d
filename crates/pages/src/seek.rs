//! The seek table of the public *seekable zstd* format (`contrib/seekable_format` of zstd).
//!
//! A skippable frame at the end of the file: for each frame its packed and its unpacked length, then a
//! footer with the number of frames. Tools that do not know it skip it.

use crate::{MAX_FRAME_BYTES, PAGE_SIZE, frame};

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const FOOTER_MAGIC: u32 = 0x8F92_EAB1;
const HEADER_BYTES: usize = 8;
const FOOTER_BYTES: usize = 9;
const ENTRY_BYTES: usize = 8;
/// Entries may carry a checksum of four more bytes, announced by the top bit of the descriptor.
const CHECKSUM_FLAG: u8 = 0x80;
const RESERVED_BITS: u8 = 0x7C;
/// The limit of the format.
const MAX_FRAMES: u32 = 0x0800_0000;

/// Lengths of one frame in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) packed: u32,
    pub(crate) unpacked: u32,
}

/// The seek table of `entries`.
pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let body = entries.len() * ENTRY_BYTES + FOOTER_BYTES;
    let mut table = Vec::with_capacity(HEADER_BYTES + body);
    table.extend(SKIPPABLE_MAGIC.to_le_bytes());
    // The writer refuses more than MAX_FRAMES, so both numbers fit.
    table.extend((body as u32).to_le_bytes());
    for entry in entries {
        table.extend(entry.packed.to_le_bytes());
        table.extend(entry.unpacked.to_le_bytes());
    }
    table.extend((entries.len() as u32).to_le_bytes());
    table.push(0);
    table.extend(FOOTER_MAGIC.to_le_bytes());
    table
}

/// True if one more frame would exceed what the format can index.
pub(crate) fn is_full(entries: &[Entry]) -> bool {
    entries.len() >= MAX_FRAMES as usize
}

/// Where the seek table of a file lies and how it is laid out, from its footer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footer {
    frames: u32,
    entry_bytes: usize,
}

impl Footer {
    pub(crate) const BYTES: usize = FOOTER_BYTES;

    /// Parses the last [`Self::BYTES`] bytes of a file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let (Some(frames), Some(descriptor), Some(magic)) =
            (u32_at(bytes, 0), bytes.get(4), u32_at(bytes, 5))
        else {
            return Err("too short for a seek table");
        };
        if magic != FOOTER_MAGIC {
            return Err("no seek table at the end (truncated?)");
        }
        if descriptor & RESERVED_BITS != 0 || frames > MAX_FRAMES {
            return Err("seek table footer is damaged");
        }
        let entry_bytes = if descriptor & CHECKSUM_FLAG == 0 {
            ENTRY_BYTES
        } else {
            ENTRY_BYTES + 4
        };
        Ok(Self {
            frames,
            entry_bytes,
        })
    }

    /// Where the table begins in a file of `file_bytes`.
    pub(crate) fn table_offset(&self, file_bytes: u64) -> Result<u64, &'static str> {
        let table = HEADER_BYTES as u64 + self.body_bytes();
        file_bytes
            .checked_sub(table)
            .ok_or("seek table is longer than the file")
    }

    /// Bytes of the table behind its header.
    fn body_bytes(&self) -> u64 {
        u64::from(self.frames) * self.entry_bytes as u64 + FOOTER_BYTES as u64
    }
}

/// Checks entries as they are read piece by piece, so that a lie costs no memory.
pub(crate) struct Checker {
    footer: Footer,
    seen: u32,
    packed: u64,
    /// Bytes in front of the table, which the frames must fill exactly.
    data_bytes: u64,
}

impl Checker {
    /// `header` is what stands at `table_offset`, where the table begins.
    pub(crate) fn new(
        footer: Footer,
        table_offset: u64,
        header: &[u8],
    ) -> Result<Self, &'static str> {
        if u32_at(header, 0) != Some(SKIPPABLE_MAGIC)
            || u32_at(header, 4).map(u64::from) != Some(footer.body_bytes())
        {
            return Err("seek table header is damaged");
        }
        Ok(Self {
            footer,
            seen: 0,
            packed: 0,
            data_bytes: table_offset,
        })
    }

    pub(crate) const HEADER_BYTES: usize = HEADER_BYTES;

    pub(crate) fn entry_bytes(&self) -> usize {
        self.footer.entry_bytes
    }

    /// Frames still to come.
    pub(crate) fn remaining(&self) -> u32 {
        self.footer.frames - self.seen
    }

    /// Takes the next entry.
    pub(crate) fn entry(&mut self, bytes: &[u8]) -> Result<Entry, &'static str> {
        let (Some(packed), Some(unpacked)) = (u32_at(bytes, 0), u32_at(bytes, 4)) else {
            return Err("seek table ends early");
        };
        let pages = unpacked as usize / PAGE_SIZE;
        if pages * PAGE_SIZE != unpacked as usize
            || pages == 0
            || unpacked as usize > MAX_FRAME_BYTES
        {
            return Err("frame of an impossible length in the seek table");
        }
        self.packed += u64::from(packed);
        if packed == 0
            || packed as usize > frame::bound(MAX_FRAME_BYTES)
            || self.packed > self.data_bytes
        {
            return Err("frame outside the file in the seek table");
        }
        self.seen += 1;
        Ok(Entry { packed, unpacked })
    }

    /// Checks that the frames fill the file up to the table.
    pub(crate) fn finish(&self) -> Result<(), &'static str> {
        if self.remaining() == 0 && self.packed == self.data_bytes {
            Ok(())
        } else {
            Err("the frames of the seek table do not fill the file")
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|four| u32::from_le_bytes(*four))
}
