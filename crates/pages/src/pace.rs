//! How hard to compress, when nobody has said.
//!
//! Whoever dumps waits for the slower of two: the processors, which pack, or whatever takes the bytes. While the
//! processors are slower, packing less thoroughly, and some chunks not at all, makes a dump faster; while the disk is,
//! it makes it slower. Both are measured as the work goes on. However fast the disk, what is stored stays below
//! [`MOST`] of the memory that it stands for, as far as the data allow: where tasks share pages, that is more than is read.
//! What is stored as it is, is what is hardest to pack.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::frame::SAMPLE_LEVEL;
use crate::kinds::{Kind, Kinds};

/// Level while the disk is what everybody waits for: in half the time of level 1, heaps become about a tenth larger.
const THOROUGH: i32 = -1;
/// Level while the processors are: that of samples, so that it need not be changed for each.
const HASTY: i32 = SAMPLE_LEVEL;
/// Bytes to be packed before a verdict, and eight times what is to be written.
const SEEN: u64 = 2 << 20;
/// Share of the memory that has come so far that may be stored for the sake of speed, in sixteenths. Workers that decide at
/// the same time may exceed it by a chunk each.
const MOST: u64 = 5;
/// To pack a chunk must take at least so many times as long as to write what that saves, or there is little to be won
/// by using room for it that something harder may want later.
const WORTH: u64 = 3;

/// What is to be done with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Packed at a level; its kind, if somebody has looked.
    Pack { level: i32, kind: Option<Kind> },
    /// Stored as it is.
    Store(Kind),
}

/// The figures so far, of all workers.
#[derive(Debug)]
pub(crate) struct Pace {
    workers: u64,
    packing: Rate,
    writing: Rate,
    /// All bytes that came or are stored with others, and all that went.
    taken: AtomicU64,
    stored: AtomicU64,
    kinds: Mutex<Kinds>,
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

    fn took(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }

    /// Picoseconds for a byte.
    fn per_byte(&self) -> u64 {
        self.took().saturating_mul(1000) / self.bytes().max(1)
    }
}

impl Pace {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: workers as u64,
            packing: Rate::default(),
            writing: Rate::default(),
            taken: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            kinds: Mutex::default(),
        }
    }

    /// What to do with the next chunk, which has `len` bytes, and is of a kind unless it is too short for that.
    pub(crate) fn effort(&self, kind: Option<Kind>, len: usize) -> Effort {
        match kind {
            Some(kind) if self.is_stored(kind, len) => Effort::Store(kind),
            kind => Effort::Pack {
                level: self.level(),
                kind,
            },
        }
    }

    /// Whether there is room for a chunk, and it is written sooner than it is packed and what is left of it written.
    fn is_stored(&self, kind: Kind, len: usize) -> bool {
        let (taken, stored) = (load(&self.taken) + len as u64, load(&self.stored));
        let most = taken * MOST / 16;
        if !self.is_known() || stored + len as u64 > most {
            return false;
        }
        // Everybody packs at the same time; one at a time writes.
        let write = self.writing.per_byte() * self.workers.max(WORTH);
        self.kinds().is_hard((kind, len), (stored, most), write)
    }

    /// How hard to pack.
    fn level(&self) -> i32 {
        let (packing, writing) = (self.packing.took(), self.writing.took());
        // In haste more is left to be written.
        match self.is_known() && writing / 2 * 3 < packing / self.workers {
            true => HASTY,
            false => THOROUGH,
        }
    }

    fn is_known(&self) -> bool {
        self.packing.bytes() >= SEEN && self.writing.bytes() >= SEEN / 8
    }

    /// A chunk was packed.
    pub(crate) fn packed(&self, kind: Option<Kind>, (len, packed): (usize, usize), took: Duration) {
        if let Some(kind) = kind {
            self.kinds().packed(kind, (len, packed), took);
        }
        self.packing.add(len, took);
        self.passed(len, packed);
    }

    /// A chunk is stored as it is, in so many bytes.
    pub(crate) fn stored(&self, kind: Kind, (len, stored): (usize, usize)) {
        self.kinds().stored(kind, len);
        self.passed(len, stored);
    }

    /// A chunk goes on its way.
    fn passed(&self, len: usize, stored: usize) {
        self.taken.fetch_add(len as u64, Ordering::Relaxed);
        self.stored.fetch_add(stored as u64, Ordering::Relaxed);
    }

    /// So many bytes belong to what is dumped, but are stored with others.
    pub(crate) fn shared(&self, len: u64) {
        self.taken.fetch_add(len, Ordering::Relaxed);
    }

    /// Bytes were written.
    pub(crate) fn written(&self, len: usize, since: Instant) {
        self.writing.add(len, since.elapsed());
    }

    fn kinds(&self) -> MutexGuard<'_, Kinds> {
        // Sums that are not complete do no harm.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
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
        let as_they_are = go_on(&pace, chunks, &[(pack, 8)], write);
        (pace, as_they_are[0])
    }

    /// Chunks of several kinds in turn, each with the time it takes to be packed, and to one of how many bytes; how
    /// many of each kind were stored as they are.
    fn go_on(pace: &Pace, chunks: usize, of: &[(Duration, usize)], write: Duration) -> Vec<usize> {
        let mut as_they_are = vec![0; of.len()];
        for chunk in 0..chunks {
            let (pack, left) = of[chunk % of.len()];
            let kind = Kind::of(CHUNK / left, CHUNK);
            let effort = pace.effort(Some(kind), CHUNK);
            let stored = match effort {
                Effort::Store(kind) => {
                    as_they_are[chunk % of.len()] += 1;
                    pace.stored(kind, (CHUNK, CHUNK));
                    CHUNK
                }
                Effort::Pack { kind, .. } => {
                    pace.packed(kind, (CHUNK, CHUNK / left), pack);
                    CHUNK / left
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
        let kind = Kind::of(CHUNK / 8, CHUNK);
        let packed = Effort::Pack {
            level: HASTY,
            kind: Some(kind),
        };
        assert_eq!(pace.effort(Some(kind), 1 << 30), packed);
    }

    #[test]
    fn what_is_hard_to_pack_is_stored_first() {
        let (easy, hard) = (Duration::from_micros(200), Duration::from_millis(3));
        let kinds = [(easy, 50), (easy, 50), (easy, 50), (hard, 2)];
        let pace = Pace::new(2);
        let as_they_are = go_on(&pace, 1000, &kinds, Duration::from_micros(400));
        // There is room for all of the hard ones but the first, and for little else.
        assert!(as_they_are[3] > 200, "{as_they_are:?}");
        assert!(
            as_they_are[..3].iter().sum::<usize>() < 50,
            "{as_they_are:?}"
        );
        assert!(load(&pace.stored) * 16 <= load(&pace.taken) * MOST);
    }

    #[test]
    fn what_many_share_is_stored_as_it_is() {
        let (pack, write) = (Duration::from_micros(1400), Duration::from_micros(400));
        let pace = Pace::new(2);
        pace.shared(7000 * CHUNK as u64);
        go_on(&pace, 100, &[(pack, 8)], write);
        let as_they_are = go_on(&pace, 1000, &[(pack, 8)], write);
        assert_eq!(as_they_are, [1000]);
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
        assert_eq!(pace.level(), THOROUGH);
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
