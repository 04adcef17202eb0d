//! The calls that no dump and no restore of a tree can do without, and nothing else.
//!
//! `bare look PID DIR` notes down what the tree of `PID` is made of, which is not measured. `bare dump PID DIR` ends the
//! tree and prints as JSON for how many milliseconds it stood still. `bare restore DIR` makes a tree of the same shape: as
//! many processes, threads, mappings, pages and descriptors, which wait for a signal.
//!
//! Nothing is decoded, encoded, compared, planned or checked, and nobody could go on with what comes of it: what a dump or
//! a restore takes beyond this it takes for what it does itself. Of 30,000 mappings of one page, every second of them
//! read-only, each is mapped as it is to be in the end, and `/proc/PID/mem` forces its way into it: 90 ms, with
//! `UFFDIO_COPY` instead 99, and 114 to 120 where all are mapped and filled as one and told apart by `mprotect(2)` (medians
//! of nine rounds in turns, two threads).
//!
//! # Limitations
//!
//! A dump here asks all that gelid asks, and nothing in two ways; but it leaves out
//!
//! - what is only there for the sake of a tree that runs on, whatever happens: signals are not kept away while scripts are
//!   played, nothing is put back, and the ends of scripts do not find back by themselves;
//! - what is seldom there: filters of seccomp, pending signals, queues of AIO, connections of TCP, epoll, namespaces of the
//!   tree, shared memory, links of `map_files` for shared mappings of files; it would be asked where what is asked shows it;
//! - atomic files: they have their names from the beginning;
//! - programs loaded into the kernel: an iterator over tasks (`BPF_TRACE_ITER`) could tell namespaces, cgroups and much
//!   else of all threads by one read, and no figure here says anything of such a dump;
//! - pages written by their owner, which would be copied once instead of twice, but needs a descriptor in it.
//!
//! A restore here makes no more than there was, but not all: sockets become pairs, in the order of their numbers; what is
//! neither file, pipe nor socket becomes a counter; no credentials, limits, timers, cgroups, sessions or advice for memory.
//! A restore that tells such mappings apart while those below are filled by `UFFDIO_COPY` is faster than this one.
//! Threads are born traced and play a tape each: a tree whose threads ran code of their own would need fewer stops.

#![forbid(unsafe_code)]

mod asked;
mod cgroups;
mod descriptors;
mod dump;
mod filling;
mod kernel;
mod look;
mod opened;
mod outside;
mod restore;
mod script;
mod shape;
mod stage;

use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Threads that move pages.
const WORKERS: usize = 2;
/// Bytes that a worker has in hand.
const CHUNK: u64 = 1 << 20;
/// Bytes that may be mapped.
const SPACE: u64 = (1 << 47) - 4096;
/// The file of pages.
const PAGES: &str = "pages";
/// The file of the tree's shape.
const SHAPE: &str = "shape";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["look", pid, dir] => look::look(pid, Path::new(dir)),
        ["dump", pid, dir] => dump::dump(pid, Path::new(dir))
            .map(|frozen| println!("{}", serde_json::json!({ "frozen": frozen }))),
        ["restore", dir] => restore::restore(Path::new(dir)),
        _ => Err("usage: bare look|dump PID DIR, bare restore DIR".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bare: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The name of a file for records.
fn image(number: usize) -> String {
    format!("{number}.img")
}

/// Cuts ranges into what workers can have in hand; small ones go together.
fn in_chunks(
    ranges: &[Range<u64>],
    mut send: impl FnMut(Vec<Range<u64>>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut chunk, mut room) = (Vec::new(), CHUNK);
    for range in ranges {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + room);
            chunk.push(start..end);
            room -= end - start;
            start = end;
            if room == 0 {
                send(std::mem::take(&mut chunk))?;
                room = CHUNK;
            }
        }
    }
    if chunk.is_empty() {
        return Ok(());
    }
    send(chunk)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_full_but_for_the_last() {
        let mut chunks = Vec::new();
        let ranges = [0..4096, CHUNK..3 * CHUNK];
        in_chunks(&ranges, |chunk| {
            chunks.push(chunk);
            Ok(())
        })
        .unwrap();
        let end = 2 * CHUNK - 4096;
        let last = 3 * CHUNK - 4096;
        let first = vec![0..4096, CHUNK..end];
        assert_eq!(chunks, [first, vec![end..last], vec![last..3 * CHUNK]]);
    }
}
