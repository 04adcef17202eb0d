//! How hard to compress, when nobody has said.
//!
//! Whoever dumps waits for the slower of two: the processors, which pack, or whatever takes the bytes. While the
//! processors are slower, packing less thoroughly, and some chunks not at all, makes a dump faster; while the disk is,
//! it makes it slower. Both are measured as the work goes on. However fast the disk, what is stored stays below
//! [`MOST`] of the memory that it stands for, as far as the data allow: where tasks share pages, that is more than is read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Level while the disk is what everybody waits for: in half the time of level 1, heaps become about a tenth larger.
const THOROUGH: i32 = -1;
/// Level while the processors are.
const HASTY: i32 = -5;
/// Bytes to be packed, and to be written, before a verdict.
const SEEN: u64 = 4 << 20;
/// Share of the memory that may be stored for the sake of speed, in sixteenths.
const MOST: u64 = 5;

/// What is to be done with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Packed at this level.
    Level(i32),
    /// Stored as it is.
    None,
}

/// The figures so far, of all workers.
#[derive(Debug)]
pub(crate) struct Pace {
    workers: u64,
    packing: Rate,
    writing: Rate,
    /// What became of the bytes packed.
    packed: AtomicU64,
    /// All bytes that came or are stored with others, and all that went.
    taken: AtomicU64,
    stored: AtomicU64,
}

/// Bytes, and the time that they have taken.
#[derive(Debug, Default)]
struct Rate {
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Rate {
    fn add(&self, bytes: usize, took: Duration) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Picoseconds for a byte.
    fn per_byte(&self) -> u64 {
        self.nanoseconds
            .load(Ordering::Relaxed)
            .saturating_mul(1000)
            / self.bytes().max(1)
    }
}

impl Pace {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: workers as u64,
            packing: Rate::default(),
            writing: Rate::default(),
            packed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            stored: AtomicU64::new(0),
        }
    }

    /// What to do with the next chunk, which has `len` bytes.
    pub(crate) fn effort(&self, len: usize) -> Effort {
        let len = len as u64;
        if !self.processors_are_slower() {
            return Effort::Level(THOROUGH);
        }
        let (taken, stored) = (load(&self.taken), load(&self.stored));
        match (stored + len) * 16 <= (taken + len) * MOST {
            true => Effort::None,
            false => Effort::Level(HASTY),
        }
    }

    /// Whether a byte is written sooner than it is packed and what is left of it written.
    fn processors_are_slower(&self) -> bool {
        let (packed, written) = (self.packing.bytes(), self.writing.bytes());
        if packed < SEEN || written < SEEN / 4 {
            return false;
        }
        let left = (load(&self.packed) * 16 / packed).min(16);
        // Everybody packs at the same time; one at a time writes.
        let pack = self.packing.per_byte() / self.workers;
        let write = self.writing.per_byte();
        write * (16 - left) < pack * 16
    }

    /// A chunk was packed.
    pub(crate) fn packed(&self, len: usize, packed: usize, since: Instant) {
        self.packing.add(len, since.elapsed());
        self.packed.fetch_add(packed as u64, Ordering::Relaxed);
        self.passed(len, packed);
    }

    /// So many bytes belong to what is dumped, but are stored with others.
    pub(crate) fn shared(&self, len: u64) {
        self.taken.fetch_add(len, Ordering::Relaxed);
    }

    /// A chunk goes on its way.
    pub(crate) fn passed(&self, len: usize, stored: usize) {
        self.taken.fetch_add(len as u64, Ordering::Relaxed);
        self.stored.fetch_add(stored as u64, Ordering::Relaxed);
    }

    /// Bytes were written.
    pub(crate) fn written(&self, len: usize, since: Instant) {
        self.writing.add(len, since.elapsed());
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 1 << 20;

    /// Goes on until `chunks` have come, each packed to an eighth in `pack`, written at `write` for a whole one.
    fn run(workers: usize, chunks: usize, pack: Duration, write: Duration) -> (Pace, usize) {
        let pace = Pace::new(workers);
        let as_they_are = go_on(&pace, chunks, pack, write);
        (pace, as_they_are)
    }

    fn go_on(pace: &Pace, chunks: usize, pack: Duration, write: Duration) -> usize {
        let mut as_they_are = 0;
        for _ in 0..chunks {
            let stored = match pace.effort(CHUNK) {
                Effort::None => {
                    as_they_are += 1;
                    pace.passed(CHUNK, CHUNK);
                    CHUNK
                }
                Effort::Level(_) => {
                    pace.packing.add(CHUNK, pack);
                    pace.packed.fetch_add(CHUNK as u64 / 8, Ordering::Relaxed);
                    pace.passed(CHUNK, CHUNK / 8);
                    CHUNK / 8
                }
            };
            let share = stored as f64 / CHUNK as f64;
            pace.writing.add(stored, write.mul_f64(share));
        }
        as_they_are
    }

    #[test]
    fn a_fast_disk_gets_more_but_no_third() {
        let (pace, as_they_are) = run(
            2,
            1000,
            Duration::from_micros(1400),
            Duration::from_micros(400),
        );
        assert!(as_they_are > 100);
        assert!(load(&pace.stored) * 3 < load(&pace.taken));
        assert_eq!(pace.effort(1 << 30), Effort::Level(HASTY));
    }

    #[test]
    fn what_many_share_is_stored_as_it_is() {
        let (pack, write) = (Duration::from_micros(1400), Duration::from_micros(400));
        let pace = Pace::new(2);
        pace.shared(7000 * CHUNK as u64);
        go_on(&pace, 100, pack, write);
        let as_they_are = go_on(&pace, 1000, pack, write);
        assert_eq!(as_they_are, 1000);
    }

    #[test]
    fn a_slow_disk_gets_as_little_as_can_be() {
        let (pace, as_they_are) = run(
            2,
            1000,
            Duration::from_micros(1400),
            Duration::from_millis(5),
        );
        assert_eq!(as_they_are, 0);
        assert_eq!(pace.effort(CHUNK), Effort::Level(THOROUGH));
    }

    #[test]
    fn many_processors_pack_all() {
        let (_, as_they_are) = run(
            16,
            1000,
            Duration::from_micros(1400),
            Duration::from_micros(400),
        );
        assert_eq!(as_they_are, 0);
    }
}
