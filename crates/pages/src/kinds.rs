//! What chunks are like, and which of them are stored as they are when not all can be.
//!
//! Memory is no mixture: in a heap that was measured, three chunks of four were packed to a hundredth at 4 GB/s, and the
//! rest took ten times as long for half of their bytes. To store one of the latter costs half as much room as one of the
//! former, and spares ten times the work. So a sample of each chunk says which it is, and room goes to what is
//! hardest to pack first.

use std::time::Duration;

/// So many kinds there are.
const COUNT: usize = 16;

/// To what part of its length a sample of a chunk was packed, in sixteenths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(usize);

impl Kind {
    /// That of a chunk whose sample of `len` bytes was packed to `packed`.
    pub(crate) fn of(packed: usize, len: usize) -> Self {
        Self((packed * COUNT / len.max(1)).min(COUNT - 1))
    }
}

/// What became of the chunks of a kind.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    /// Bytes of all, and of those that were stored as they are.
    all: u64,
    stored: u64,
    /// Bytes of those that were packed, what was left of them, and how long that took.
    tried: u64,
    left: u64,
    nanoseconds: u64,
}

impl Fate {
    /// What would be saved if so many bytes were packed.
    fn saved(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.left_of(bytes))
    }

    fn left_of(&self, bytes: u64) -> u64 {
        share(bytes, self.left, self.tried)
    }

    /// Nanoseconds to pack so many bytes.
    fn time_of(&self, bytes: u64) -> u64 {
        share(bytes, self.nanoseconds, self.tried)
    }
}

/// What has come so far.
#[derive(Debug, Default)]
pub(crate) struct Kinds([Fate; COUNT]);

impl Kinds {
    /// A chunk was packed.
    pub(crate) fn packed(&mut self, kind: Kind, (len, left): (usize, usize), took: Duration) {
        let fate = &mut self.0[kind.0];
        fate.all += len as u64;
        fate.tried += len as u64;
        fate.left += left as u64;
        fate.nanoseconds += u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    }

    /// A chunk is stored as it is.
    pub(crate) fn stored(&mut self, kind: Kind, len: usize) {
        let fate = &mut self.0[kind.0];
        fate.all += len as u64;
        fate.stored += len as u64;
    }

    /// Whether a chunk of `len` bytes is to be stored as it is, where `most` bytes may be stored of all that have come, and
    /// `stored` are. To write a byte counts as `write` picoseconds of packing.
    pub(crate) fn is_hard(
        &self,
        (kind, len): (Kind, usize),
        (stored, most): (u64, u64),
        write: u64,
    ) -> bool {
        let fate = &self.0[kind.0];
        let len = len as u64;
        // What it costs is to be seen first, and must be more than to write what would be saved.
        if fate.tried == 0 || fate.time_of(len) <= fate.saved(len).saturating_mul(write) / 1000 {
            return false;
        }
        let saved = self.0.iter().map(|fate| fate.saved(fate.stored)).sum();
        let harder = self.0[kind.0 + 1..].iter();
        let harder: u64 = harder.map(|fate| fate.saved(fate.all)).sum();
        // If all were packed, and whatever is harder stored.
        let room = most.saturating_sub(stored.saturating_sub(saved));
        let room = room.saturating_sub(harder);
        let all = fate.all + len;
        // Of what is equally hard as many as there is room for, one like the other.
        fate.stored <= share(all, room, fate.saved(all)).min(all) && room > 0
    }
}

/// `whole * part / of`
fn share(whole: u64, part: u64, of: u64) -> u64 {
    let share = u128::from(whole) * u128::from(part) / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 1 << 20;

    #[test]
    fn a_sample_tells_the_kind() {
        assert_eq!(Kind::of(0, 16384), Kind(0));
        assert_eq!(Kind::of(8192, 16384), Kind(8));
        assert_eq!(Kind::of(20000, 16384), Kind(15));
    }

    #[test]
    fn what_was_not_tried_is_packed() {
        let kinds = Kinds::default();
        assert!(!kinds.is_hard((Kind(9), CHUNK), (0, u64::MAX), 0));
    }

    #[test]
    fn room_is_for_the_hardest() {
        let mut kinds = Kinds::default();
        let (easy, hard) = (Kind(0), Kind(8));
        for _ in 0..10 {
            kinds.packed(easy, (CHUNK, CHUNK / 16), Duration::from_micros(200));
            kinds.packed(hard, (CHUNK, CHUNK / 2), Duration::from_millis(3));
        }
        let stored = 10 * (CHUNK / 16 + CHUNK / 2) as u64;
        // Room for two chunks more: the hard ones want all of it.
        let most = stored + 2 * CHUNK as u64;
        assert!(kinds.is_hard((hard, CHUNK), (stored, most), 0));
        assert!(!kinds.is_hard((easy, CHUNK), (stored, most), 0));
        // Room for all of the hard ones, and then some.
        let most = stored + 8 * CHUNK as u64;
        assert!(kinds.is_hard((easy, CHUNK), (stored, most), 0));
        assert!(!kinds.is_hard((hard, CHUNK), (stored, stored), 0));
        // It is written in 400 us.
        assert!(!kinds.is_hard((easy, CHUNK), (stored, most), 400));
        assert!(kinds.is_hard((hard, CHUNK), (stored, most), 400));
        // Half of the hard ones are enough for half of the room.
        let most = stored + 5 * CHUNK as u64 / 2;
        (0..10).for_each(|_| kinds.stored(hard, CHUNK));
        assert!(!kinds.is_hard((hard, CHUNK), (stored + 10 * CHUNK as u64, most), 0));
    }
}
