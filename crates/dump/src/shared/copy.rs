//! Copies of shared memory, so that a tree that is to run on need not wait until its pages are packed and written.
//!
//! No kernel makes them as it copies an address space: the pages are read by all workers at once, into huge pages of
//! the dumper, which take a quarter of the time of small ones.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use gelid_pages::{CHUNK_BYTES, PageSource, default_workers};
use gelid_sys::map::Anonymous;
use rustix::io::Errno;
use rustix::process::getpid;

use super::Object;
use crate::Options;
use crate::snapshot::{self, Taken};

/// Bytes of a copy that one worker fills at a time: a huge page.
const PIECE: usize = 2 << 20;

/// Memory for a copy, found while the tree still runs: that takes the kernel as long as to copy, and much longer where a
/// host has to find it.
pub(crate) struct Room(Option<Anonymous>);

impl Room {
    /// Makes room for so many bytes, if so many will be copied and there is memory for twice as many.
    pub(crate) fn prepare(options: &Options, bytes: u64) -> Self {
        if !snapshot::is_worth_while(options, bytes) || snapshot::headroom(getpid()) / 2 < bytes {
            return Self(None);
        }
        // Without it memory is found when it is needed.
        let room = usize::try_from(bytes).ok().and_then(|bytes| {
            let room = Anonymous::huge(bytes.next_multiple_of(PIECE)).ok()?;
            room.populate();
            Some(room)
        });
        Self(room)
    }

    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |room| room.len())
    }

    /// The room, if it is large enough; else it is given back.
    fn take(&mut self, bytes: usize) -> Option<Anonymous> {
        self.0.take().filter(|room| room.len() >= bytes)
    }
}

/// Copies objects, if they are large and there is memory for that beside what copies of address spaces may come to take;
/// they are as they were, and may change afterwards. Those that are not copied come first.
pub(crate) fn copied(
    objects: Vec<Object>,
    spaces: &[Taken],
    (options, mut room): (&Options, Room),
) -> (Vec<Object>, Vec<Object>) {
    let bytes: u64 = objects.iter().map(Object::bytes).sum();
    let promised: u64 = spaces.iter().map(Taken::bytes).sum();
    let wanted = bytes.saturating_sub(room.len() as u64) + promised;
    if !snapshot::is_worth_while(options, bytes) || snapshot::headroom(getpid()) < wanted {
        return (objects, Vec::new());
    }
    let largest = objects.iter().map(Object::bytes).max();
    let workers = options.pages.workers.unwrap_or_else(default_workers);
    let (mut standing, mut copies) = (Vec::new(), Vec::new());
    for object in objects {
        let room = match largest == Some(object.bytes()) {
            true => room.take(object.bytes() as usize),
            false => None,
        };
        match copy(&object, workers, room) {
            Ok(copy) => copies.push(Object {
                source: Arc::new(copy),
                ..object
            }),
            Err(error) => {
                let shmid = object.shmid;
                tracing::debug!(shmid, %error, "no copy of shared memory: it is read while the tree stands still");
                standing.push(object);
            }
        }
    }
    (standing, copies)
}

/// Memory as it was, addressed as that was.
#[derive(Debug)]
struct Copy {
    /// The bytes of all ranges, one behind the other, and what is missing to the next huge page.
    bytes: Anonymous,
    /// The ranges, ascending, and where each begins in `bytes`.
    places: Vec<(Range<u64>, usize)>,
}

impl PageSource for Copy {
    fn read(&self, ranges: &[Range<u64>], mut buf: &mut [u8]) -> io::Result<()> {
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let next = self.places.partition_point(|(place, _)| place.end <= at);
                let found = self.places.get(next);
                let (place, start) = found
                    .filter(|(place, _)| place.contains(&at))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                let start = start + (at - place.start) as usize;
                let len = (range.end.min(place.end) - at) as usize;
                let (here, rest) = buf.split_at_mut(len);
                here.copy_from_slice(&self.bytes[start..start + len]);
                (buf, at) = (rest, at + len as u64);
            }
        }
        Ok(())
    }
}

/// Copies an object into some room, or finds memory for it.
fn copy(object: &Object, workers: NonZeroUsize, room: Option<Anonymous>) -> io::Result<Copy> {
    let len = usize::try_from(object.bytes()).map_err(|_| Errno::NOMEM)?;
    // The kernel begins a mapping where a huge page can begin only if it ends where one ends.
    let mut bytes = match room {
        Some(room) => room,
        None => Anonymous::huge(len.next_multiple_of(PIECE))?,
    };
    fill(object, &mut bytes[..len], workers)?;
    let places = object.ranges.iter().scan(0, |end, range| {
        let start = *end;
        *end += (range.end - range.start) as usize;
        Some((range.clone(), start))
    });
    let places = places.collect();
    Ok(Copy { bytes, places })
}

fn fill(object: &Object, bytes: &mut [u8], workers: NonZeroUsize) -> io::Result<()> {
    let mut left = object.ranges.iter().cloned();
    let mut rest = 0..0;
    let pieces = bytes.chunks_mut(PIECE).map(move |piece| {
        let reads: Vec<_> = piece
            .chunks_mut(CHUNK_BYTES)
            .map(|buf| (take(&mut rest, &mut left, buf.len()), buf))
            .collect();
        reads
    });
    let pieces = Mutex::new(pieces);
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> io::Result<()> {
        while let Some(reads) = next() {
            for (ranges, buf) in reads {
                object.source.read(&ranges, buf)?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers.get()).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().map(|other| {
            other
                .join()
                .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
        });
        others.fold(own, Result::and)
    })
}

/// Takes the first `len` bytes of `rest` and of what is `left` behind it.
fn take(
    rest: &mut Range<u64>,
    left: &mut impl Iterator<Item = Range<u64>>,
    len: usize,
) -> Vec<Range<u64>> {
    let mut taken = Vec::new();
    let mut wanted = len as u64;
    while wanted > 0 {
        if rest.is_empty() {
            match left.next() {
                Some(range) => *rest = range,
                None => break,
            }
        }
        let end = rest.end.min(rest.start + wanted);
        wanted -= end - rest.start;
        taken.push(rest.start..end);
        rest.start = end;
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use gelid_pages::{FileSource, PAGE_SIZE};

    use super::*;

    #[test]
    fn copies_are_what_was_there() {
        const PAGE: u64 = PAGE_SIZE as u64;
        const HUGE: u64 = PIECE as u64;
        let number = |at: u64| (at / PAGE) as u8;
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..4 * HUGE).map(number).collect();
        file.write_all_at(&bytes, 0).unwrap();
        // Ranges that end within a read, within a piece, and far behind one.
        let mut ranges: Vec<_> = (0..300)
            .map(|at| at * 2 * PAGE..(at * 2 + 1) * PAGE)
            .collect();
        ranges.push(700 * PAGE..2 * HUGE + 3 * PAGE);
        ranges.push(4 * HUGE - PAGE..4 * HUGE);
        let object = Object {
            shmid: 1,
            source: Arc::new(FileSource::new(file.try_clone().unwrap())),
            ranges: ranges.clone(),
        };
        let room = Anonymous::huge(4 * PIECE).unwrap();
        room.populate();
        for room in [None, Room(Some(room)).take(3 * PIECE)] {
            file.write_all_at(&bytes, 0).unwrap();
            let copy = copy(&object, NonZeroUsize::new(3).unwrap(), room).unwrap();
            file.set_len(0).unwrap();
            compare(&copy, &ranges, number);
        }
        let small = Anonymous::huge(PIECE).unwrap();
        assert!(Room(Some(small)).take(PIECE + 1).is_none());
    }

    fn compare(copy: &Copy, ranges: &[Range<u64>], number: impl Fn(u64) -> u8) {
        const PAGE: u64 = PAGE_SIZE as u64;
        for range in ranges {
            let mut found = vec![0; (range.end - range.start) as usize];
            copy.read(std::slice::from_ref(range), &mut found).unwrap();
            let expected: Vec<u8> = range.clone().map(&number).collect();
            assert!(found == expected);
        }
        let both = [2 * PAGE..3 * PAGE, 800 * PAGE..801 * PAGE];
        let mut found = [0; 2 * PAGE_SIZE];
        copy.read(&both, &mut found).unwrap();
        assert_eq!((found[0], found[PAGE_SIZE]), (2, 800u64 as u8));
        let hole = copy.read(std::slice::from_ref(&(PAGE..2 * PAGE)), &mut [0; PAGE_SIZE]);
        assert!(hole.is_err());
    }
}
