//! Copies of shared memory, so that a tree that is to run on need not wait until its pages are packed and written.
//!
//! No kernel makes them as it copies an address space: the pages are read and written, by all workers at once, into
//! memory that ends with the dumper.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use gelid_pages::{FileSource, default_workers};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::getpid;

use super::Object;
use crate::Options;
use crate::snapshot::{self, Taken};

/// Bytes that are read and written in one go: they stay in the caches of a processor.
const PIECE: u64 = 256 << 10;

/// Copies objects, if they are large and there is memory for that beside what copies of address spaces may come to take;
/// they are as they were, and may change afterwards. Those that are not copied come first.
pub(crate) fn copied(
    objects: Vec<Object>,
    spaces: &[Taken],
    options: &Options,
) -> (Vec<Object>, Vec<Object>) {
    let bytes = objects.iter().map(Object::bytes).sum();
    let promised: u64 = spaces.iter().map(Taken::bytes).sum();
    let room = || snapshot::headroom(getpid()) >= bytes + promised;
    if !snapshot::is_worth_while(options, bytes) || !room() {
        return (objects, Vec::new());
    }
    let workers = options.pages.workers.unwrap_or_else(default_workers);
    let (mut standing, mut copies) = (Vec::new(), Vec::new());
    for object in objects {
        match copy(&object, workers) {
            Ok(file) => copies.push(Object {
                source: Arc::new(FileSource::new(file)),
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

fn copy(object: &Object, workers: NonZeroUsize) -> io::Result<File> {
    let file = File::from(memfd_create("gelid", MemfdFlags::CLOEXEC)?);
    let all = object.ranges.iter().flat_map(pieces);
    let pieces = Mutex::new(all);
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> io::Result<()> {
        let mut buf = vec![0; PIECE as usize];
        while let Some(piece) = next() {
            let here = &mut buf[..(piece.end - piece.start) as usize];
            object.source.read(std::slice::from_ref(&piece), here)?;
            file.write_all_at(here, piece.start)?;
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
    })?;
    Ok(file)
}

fn pieces(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = range.end;
    (range.start..end)
        .step_by(PIECE as usize)
        .map(move |start| start..end.min(start + PIECE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_what_was_there() {
        let bytes: Vec<u8> = (0..3 * PIECE).map(|at| (at / 4096) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let ranges = vec![4096..2 * PIECE + 8192, 3 * PIECE - 4096..3 * PIECE];
        let object = Object {
            shmid: 1,
            source: Arc::new(FileSource::new(file.try_clone().unwrap())),
            ranges: ranges.clone(),
        };
        let copy = copy(&object, NonZeroUsize::new(3).unwrap()).unwrap();
        file.set_len(0).unwrap();
        for range in ranges {
            let mut found = vec![0; (range.end - range.start) as usize];
            copy.read_exact_at(&mut found, range.start).unwrap();
            assert_eq!(found, bytes[range.start as usize..range.end as usize]);
        }
        let mut hole = [1; 4096];
        copy.read_exact_at(&mut hole, 0).unwrap();
        assert_eq!(hole, [0; 4096]);
    }
}
