//! Programs at rest, of one size each: what dumps and restores are measured with.
//!
//! `idle-threads [COUNT]`: threads that are all alike and wait on a futex. `idle-tree [COUNT]`: children that have
//! written to some pages of their own and wait on a pipe. `idle-heap [MIB] [objects|shared|noise|huge|zeros|sparse]`: a heap like
//! that of an object-oriented program, the same in shared memory, one that cannot be compressed, one of objects in huge
//! pages, one that has them in every sixteenth page and zeros in all others, one of islands in a thousand times as much;
//! with `beat`, a thread beside it notes for how long it did not run. `idle-workers [COUNT] [MIB]`: children that have a heap in common since they were forked.
//! `idle-mappings [COUNT] [mixed]`: mappings of one page each, or of all permissions, some untouched, and a large one
//! among them. `idle-descriptors [COUNT]`: files, pipes, sockets and
//! counters in equal parts. No other task than the first and that thread wakes up by itself.

use crate::Entry;
use crate::os::{Map, PAGE, os, word};
use crate::protocol::{Check, Failure, Gate, Guest, NAP, ensure, fnv1a, same, until};
use rustix::io::FdFlags;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("idle-threads", threads),
    Entry("idle-tree", tree),
    Entry("idle-heap", heap),
    Entry("idle-workers", workers),
    Entry("idle-mappings", mappings),
    Entry("idle-descriptors", descriptors),
];

const MIB: usize = 1 << 20;
/// Bytes of an island of a sparse heap, which is so many times as large as all of them.
const ISLAND: usize = 64 << 10;
const FAR: usize = 1024;

fn threads(guest: &Guest) -> Check {
    let count = guest.number(0, 8)?;
    let barrier = Barrier::new(count + 1);
    let one = |index: usize| {
        let own = std::hint::black_box(word(31, index));
        barrier.wait();
        barrier.wait();
        std::hint::black_box(own) == word(31, index)
    };
    let one = &one;
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for index in 0..count {
            let builder = std::thread::Builder::new().stack_size(64 * 1024);
            threads.push(builder.spawn_scoped(scope, move || one(index))?);
        }
        barrier.wait();
        let held = guest.hold();
        barrier.wait();
        held?;
        for (index, thread) in threads.into_iter().enumerate() {
            let kept = thread
                .join()
                .map_err(|_| Failure::new("a thread panicked"))?;
            ensure!(kept, "the word of thread {index} changed");
        }
        Ok(())
    })
}

fn tree(guest: &Guest) -> Check {
    const PAGES: usize = 8;
    let count = guest.number(0, 20)?;
    NAP.store(20, Ordering::Relaxed);
    let map = Map::anon(PAGES * PAGE)?;
    map.fill(0, PAGES, 32);
    let mut ends = [0; 2];
    os!(libc::pipe(ends.as_mut_ptr()))?;
    let [read, write] = ends;
    // One byte from each child, once it has come to where it waits.
    let mut reports = [0; 2];
    os!(libc::pipe(reports.as_mut_ptr()))?;
    let mut kids = Vec::new();
    for index in 0..count {
        kids.push(guest.fork(&format!("idle-{index}"), |_| {
            os!(libc::close(write))?;
            os!(libc::close(reports[0]))?;
            map.fill(0, PAGES / 2, index as u64);
            os!(libc::write(reports[1], c"!".as_ptr().cast(), 1))?;
            os!(libc::close(reports[1]))?;
            let mut byte = 0_u8;
            same!(
                "end of the pipe",
                os!(libc::read(read, (&raw mut byte).cast(), 1))?,
                0
            );
            map.check("own pages", 0, PAGES / 2, index as u64)?;
            map.check("the parent's pages", PAGES / 2, PAGES, 32)
        })?);
    }
    os!(libc::close(reports[1]))?;
    let mut byte = 0_u8;
    while os!(libc::read(reports[0], (&raw mut byte).cast(), 1))? == 1 {}
    os!(libc::close(reports[0]))?;
    guest.hold()?;
    os!(libc::close(write))?;
    kids.iter().try_for_each(|kid| kid.join(guest))
}

fn heap(guest: &Guest) -> Check {
    let len = guest.number(0, 16)? * MIB;
    let kind = guest.args.get(1).map_or("objects", String::as_str);
    let map = match kind {
        "shared" => Map::shared(len)?,
        "sparse" => Map::anon(len * FAR)?,
        _ => Map::anon(len)?,
    };
    let mut parts = vec![0..len];
    match kind {
        "objects" | "shared" => objects(&map, 0..len),
        "noise" => map.fill(0, len / PAGE, 33),
        "huge" => {
            map.advise(0, len, libc::MADV_HUGEPAGE)?;
            objects(&map, 0..len);
        }
        "zeros" => {
            (0..len).step_by(PAGE).for_each(|at| map.set(at, 0));
            (0..len)
                .step_by(16 * PAGE)
                .for_each(|at| objects(&map, at..at + PAGE));
        }
        "sparse" => {
            let islands = (0..len * FAR).step_by(ISLAND * FAR);
            parts = islands.map(|at| at..at + ISLAND).collect();
            parts.iter().for_each(|part| objects(&map, part.clone()));
        }
        kind => return Err(Failure::new(format!("no heap of {kind}"))),
    }
    let sums = || {
        parts
            .iter()
            .fold(0, |all, part| all ^ sum(&map, part.clone()))
    };
    let before = sums();
    if guest.args.get(2).is_some_and(|beat| beat == "beat") {
        let page = beat_page(guest)?;
        let beats = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&beats);
        std::thread::Builder::new().spawn(move || beat(&page, &begun))?;
        until("the first beat", || Ok(beats.load(Ordering::Relaxed)))?;
    }
    guest.hold()?;
    same!("sum of the heap", sums(), before);
    Ok(())
}

/// A page of the file `beat`, whose first word is the longest pause in nanoseconds.
fn beat_page(guest: &Guest) -> Check<Map> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(guest.path("beat"))?;
    file.set_len(PAGE as u64)?;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    Map::new(PAGE, prot, libc::MAP_SHARED, file.as_raw_fd(), 0)
}

/// Notes the longest time between two looks at the clock. Whoever measures sets it back to 0.
fn beat(page: &Map, begun: &AtomicBool) -> ! {
    let mut last = Instant::now();
    begun.store(true, Ordering::Relaxed);
    loop {
        std::thread::sleep(Duration::from_micros(100));
        let now = Instant::now();
        let pause = (now - last).as_nanos() as u64;
        if pause > page.get(0) {
            page.set(0, pause);
        }
        last = now;
    }
}

fn workers(guest: &Guest) -> Check {
    let (count, len) = (guest.number(0, 8)?, guest.number(1, 8)? * MIB);
    let map = Map::anon(len)?;
    objects(&map, 0..len);
    let before = sum(&map, 0..len);
    let mut ends = [0; 2];
    os!(libc::pipe(ends.as_mut_ptr()))?;
    let [read, write] = ends;
    let gate = Gate::new()?;
    let mut kids = Vec::new();
    for index in 0..count {
        kids.push(guest.fork(&format!("worker-{index}"), |_| {
            os!(libc::close(write))?;
            // What is its own stays small.
            let own = len / PAGE / 64;
            let at = |page: usize| (page * 64 + index % 64) * PAGE;
            (0..own).for_each(|page| map.set(at(page), index as u64));
            let before = sum(&map, 0..len);
            gate.arrive()?;
            let mut byte = 0_u8;
            same!(
                "end of the pipe",
                os!(libc::read(read, (&raw mut byte).cast(), 1))?,
                0
            );
            same!("sum of the heap", sum(&map, 0..len), before);
            Ok(())
        })?);
    }
    gate.wait(count)?;
    guest.hold()?;
    same!("sum of the heap", sum(&map, 0..len), before);
    os!(libc::close(write))?;
    kids.iter().try_for_each(|kid| kid.join(guest))
}

fn mappings(guest: &Guest) -> Check {
    let count = guest.number(0, 200)?;
    if guest.args.get(1).is_some_and(|kind| kind == "mixed") {
        return mixed_mappings(guest, count);
    }
    let map = Map::anon(count * PAGE)?;
    map.fill(0, count, 35);
    for page in (0..count).step_by(2) {
        map.protect(page * PAGE, PAGE, libc::PROT_READ)?;
    }
    guest.hold()?;
    map.check("pages", 0, count, 35)
}

/// Mappings of one to three pages that count as writable; one of four mebibytes after half of them.
fn mixed_mappings(guest: &Guest, count: usize) -> Check {
    const LARGE: usize = 1024;
    let (read, write) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE);
    let others = [write, read, libc::PROT_NONE, read | libc::PROT_EXEC, read];
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let map = Map::new((3 * count + LARGE) * PAGE, write, flags, -1, 0)?;
    let mut parts = Vec::new();
    let mut end = 0;
    for index in 0..count {
        let pages = if index == count / 2 {
            LARGE
        } else {
            1 + index % 3
        };
        parts.push((end..end + pages, others[index % others.len()]));
        end += pages;
    }
    let is_filled = |index: usize| !index.is_multiple_of(7);
    for (index, (pages, prot)) in parts.iter().enumerate() {
        if is_filled(index) {
            map.fill(pages.start, pages.end, 35);
        }
        map.protect(pages.start * PAGE, pages.len() * PAGE, *prot)?;
    }
    guest.hold()?;
    map.protect(0, end * PAGE, read)?;
    for (index, (pages, _)) in parts.iter().enumerate() {
        if is_filled(index) {
            map.check("pages", pages.start, pages.end, 35)?;
        } else {
            map.check_zero("pages", pages.start, pages.end)?;
        }
    }
    Ok(())
}

fn descriptors(guest: &Guest) -> Check {
    let count = guest.number(0, 80)?;
    let mut files = Vec::new();
    let mut ends = Vec::new();
    for index in 0..count / 8 {
        let path = guest.path(&format!("file-{index}"));
        std::fs::write(&path, index.to_string())?;
        files.push(File::open(&path)?);
        files.push(File::options().append(true).open(&path)?);
        let pipe = rustix::pipe::pipe()?;
        rustix::io::write(&pipe.1, &index.to_ne_bytes())?;
        ends.push([pipe.0, pipe.1]);
        let (one, other) = UnixStream::pair()?;
        rustix::io::write(&one, &index.to_ne_bytes())?;
        ends.push([other.into(), one.into()]);
        let flags = rustix::event::EventfdFlags::empty();
        let counter = rustix::event::eventfd(index as u32 + 1, flags)?;
        ends.push([counter.try_clone()?, counter]);
    }
    guest.hold()?;
    for (index, file) in files.into_iter().enumerate().step_by(2) {
        let text = std::io::read_to_string(file)?;
        same!("a file", text, (index / 2).to_string());
    }
    for (place, [read, other]) in ends.iter().enumerate() {
        let closed =
            |end| Ok::<_, Failure>(rustix::io::fcntl_getfd(end)?.contains(FdFlags::CLOEXEC));
        let closed = [closed(read)?, closed(other)?];
        let made = [[false, false], [true, true], [true, false]];
        same!("closed on exec", closed, made[place % 3]);
        let mut word = [0; 8];
        rustix::io::read(read, &mut word)?;
        let more = usize::from(place % 3 == 2);
        same!("what waits", usize::from_ne_bytes(word), place / 3 + more);
    }
    Ok(())
}

/// Fills a part of a mapping with objects of eight words: type pointers, pointers into the heap, small numbers, short
/// strings, unused words. zstd packs them about five to one.
fn objects(map: &Map, part: Range<usize>) {
    for at in part.step_by(64) {
        let index = at / 64;
        let dice = word(34, index);
        let class = 0x7f52_1040_0000 + (dice % 24) * 0x1c0;
        let near = map.addr() as u64 + at as u64 + (dice >> 8) % 4096 * 16;
        let words = match dice >> 32 & 7 {
            0 => [class, near, near + 64, dice >> 40 & 63, 0, 0, 0, 0],
            1..=3 => [class, 1, near, 0, 0, 0, dice >> 56, 0],
            4 | 5 => [
                class,
                dice >> 52 & 15,
                u64::from_le_bytes(*b"property"),
                0,
                0,
                near,
                0,
                0,
            ],
            _ => [class, 0, 0, 0, 0, 0, 0, 0],
        };
        for (index, word) in words.into_iter().enumerate() {
            map.set(at + index * 8, word);
        }
    }
}

/// A sum over every word of a part, in which places matter.
fn sum(map: &Map, part: Range<usize>) -> u64 {
    part.step_by(8).fold(fnv1a(b"heap"), |sum, at| {
        (sum.rotate_left(5) ^ map.get(at)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}
