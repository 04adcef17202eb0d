//! What the machine can do with memory at best, and how the page pipeline grows with workers: `machine limits|scaling MIB
//! WORKERS DIR` prints milliseconds as JSON. Files are made in `DIR`, and have no names. `machine warm MIB DIR` has a host
//! find memory for the file that somebody will write next.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Seek, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use gelid_benches::guest::{Contents, Guest, serve_if_guest};
use gelid_pages::{
    Extent, FillRequest, Filler, Format, HUGE_BYTES, ObjectKey, ObjectReader, Owner, PageSource,
    Placement, ProcessSource, ProcessTarget, Store, StoreOptions,
};
use gelid_sys::madvise::{self, Advice};
use gelid_sys::{Errno, Pid, pidfd, vm};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that a worker has in hand.
const CHUNK: u64 = 1 << 20;
const KEY: ObjectKey = ObjectKey {
    pages_id: 1,
    owner: Owner::Task(1),
};

fn main() -> ExitCode {
    match serve_if_guest() {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(failure) => return failed(&failure),
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let measured = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["limits", mib, workers, dir] => limits(mib, workers, Path::new(dir)),
        ["scaling", mib, workers, dir] => scaling(mib, workers, Path::new(dir)),
        ["warm", mib, dir] => written(mib, Path::new(dir)).map(|_| json!({})),
        _ => Err("usage: machine limits|scaling MIB WORKERS DIR, or machine warm MIB DIR".into()),
    };
    match measured {
        Ok(all) => {
            println!("{all}");
            ExitCode::SUCCESS
        }
        Err(failure) => failed(failure.as_ref()),
    }
}

fn failed(failure: &dyn std::error::Error) -> ExitCode {
    eprintln!("machine: {failure}");
    ExitCode::FAILURE
}

/// Milliseconds of the faster of two rounds. The second finds the memory that the first has given back: the host of a
/// virtual machine may have taken away what was free before, and whoever touches it first waits until it is found again.
fn twice<const N: usize>(
    round: impl Fn() -> Result<[f64; N], Failure>,
) -> Result<[f64; N], Failure> {
    let (first, second) = (round()?, round()?);
    Ok(std::array::from_fn(|at| first[at].min(second[at])))
}

/// Bare calls on as many bytes and workers.
fn limits(mib: &str, workers: &str, dir: &Path) -> Result<Value, Failure> {
    let bytes = mib.parse::<u64>()? << 20;
    let workers: usize = workers.parse()?;
    let [write] = twice(|| Ok([written(mib, dir)?]))?;
    let [read] = twice(|| {
        let (guest, range) = guest(bytes, Contents::Touched)?;
        let read = |chunk, buffer: &mut [u8]| vm::read_ranges(guest.pid(), &[chunk], buffer);
        Ok([by_workers(&range, workers, CHUNK, read)?])
    })?;
    // Once, as memory is free after the end of a program: so a restore finds it.
    let (fresh, range) = guest(bytes, Contents::Fresh)?;
    let again = |area, buffer: &mut [u8]| vm::write_ranges(fresh.pid(), buffer, &[area]);
    let first = |area: Range<u64>, buffer: &mut [u8]| {
        collapse(fresh.pid(), &area)?;
        again(area, buffer)
    };
    let fill = by_workers(&range, workers, HUGE_BYTES, first)?;
    let fill_again = by_workers(&range, workers, HUGE_BYTES, again)?;
    drop(fresh);
    let [copy] = twice(|| {
        let (full, range) = guest(bytes, Contents::Touched)?;
        let file = tempfile::tempfile_in(dir)?;
        Ok([copied(full.pid(), &range, workers, &file)?])
    })?;
    Ok(json!({
        "write": write, "read": read, "copy": copy, "fill": fill, "fill_again": fill_again,
    }))
}

/// A guest, and so many bytes of its memory, from where huge pages may begin.
fn guest(bytes: u64, contents: Contents) -> Result<(Guest, Range<u64>), Failure> {
    let mut guest = Guest::start()?;
    let room = usize::try_from(bytes + HUGE_BYTES)?;
    let range = guest.allocate(room, contents)?;
    let start = range.start.next_multiple_of(HUGE_BYTES);
    Ok((guest, start..start + bytes))
}

/// Milliseconds that bare calls take for what a raw dump and a raw restore have to do at least.
fn bare(bytes: u64, workers: usize, dir: &Path) -> Result<[f64; 2], Failure> {
    let file = tempfile::tempfile_in(dir)?;
    let (full, range) = guest(bytes, Contents::Touched)?;
    let dump = copied(full.pid(), &range, workers, &file)?;
    drop(full);
    let (fresh, range) = guest(bytes, Contents::Fresh)?;
    Ok([dump, filled(fresh.pid(), &range, workers, &file)?])
}

/// Milliseconds until workers have read a range and written it into a file, one after the other.
fn copied(pid: Pid, range: &Range<u64>, workers: usize, file: &File) -> Result<f64, Failure> {
    by_workers(range, workers, CHUNK, |chunk, buffer| {
        let at = chunk.start - range.start;
        let read = vm::read_ranges(pid, &[chunk], buffer)?;
        file.write_all_at(buffer, at).map_err(errno)?;
        Ok(read)
    })
}

/// Milliseconds until workers have read a file and written it into huge pages that are made for it.
fn filled(pid: Pid, range: &Range<u64>, workers: usize, file: &File) -> Result<f64, Failure> {
    by_workers(range, workers, HUGE_BYTES, |area, buffer| {
        file.read_exact_at(buffer, area.start - range.start)
            .map_err(errno)?;
        collapse(pid, &area)?;
        vm::write_ranges(pid, buffer, &[area])
    })
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Milliseconds to write so many mebibytes into a new file.
fn written(mib: &str, dir: &Path) -> Result<f64, Failure> {
    let bytes = mib.parse::<u64>()? << 20;
    let mut file = tempfile::tempfile_in(dir)?;
    let chunk = vec![7; usize::try_from(CHUNK)?];
    let start = Instant::now();
    for _ in 0..bytes / CHUNK {
        file.write_all(&chunk)?;
    }
    Ok(millis(start))
}

/// Has a huge page made of an area, one page of which is written first.
fn collapse(pid: Pid, area: &Range<u64>) -> rustix::io::Result<()> {
    vm::write_ranges(pid, &[1], &[area.start..area.start + 1])?;
    madvise::process_madvise(
        pidfd::open(pid)?,
        std::slice::from_ref(area),
        Advice::Collapse,
    )
    .map(drop)
}

/// Milliseconds until workers have done `work` with every `step` bytes of a range, each with a buffer of that size.
fn by_workers(
    range: &Range<u64>,
    workers: usize,
    step: u64,
    work: impl Fn(Range<u64>, &mut [u8]) -> rustix::io::Result<usize> + Sync,
) -> Result<f64, Failure> {
    let next = AtomicU64::new(range.start);
    let one = || {
        let mut buffer = vec![7; step as usize];
        loop {
            let start = next.fetch_add(step, Ordering::Relaxed);
            if start >= range.end {
                return Ok::<(), Failure>(());
            }
            if work(start..start + step, &mut buffer)? != buffer.len() {
                return Err("memory is missing".into());
            }
        }
    };
    let start = Instant::now();
    let ended = std::thread::scope(|scope| {
        let crew: Vec<_> = (0..workers).map(|_| scope.spawn(one)).collect();
        crew.into_iter()
            .map(|worker| worker.join())
            .collect::<Vec<_>>()
    });
    let time = millis(start);
    for worker in ended {
        worker.map_err(|_| "a worker has panicked")??;
    }
    Ok(time)
}

/// The page store and the filler between a process and a file, and bare calls, with one worker and with more.
fn scaling(mib: &str, workers: &str, dir: &Path) -> Result<Value, Failure> {
    let bytes = mib.parse::<u64>()? << 20;
    let mut all = serde_json::Map::new();
    for count in [1, workers.parse()?] {
        for (name, format) in [("raw", Format::Raw), ("zstd", Format::Zstd { level: -1 })] {
            let [dump, restore] = twice(|| pipeline(bytes, count, dir, format))?;
            all.insert(format!("dump {name} {count}"), json!(dump));
            all.insert(format!("restore {name} {count}"), json!(restore));
        }
        let [dump, restore] = twice(|| bare(bytes, count, dir))?;
        all.insert(format!("dump bare {count}"), json!(dump));
        all.insert(format!("restore bare {count}"), json!(restore));
    }
    Ok(Value::Object(all))
}

/// Milliseconds that pages take through the store and the filler.
fn pipeline(bytes: u64, workers: usize, dir: &Path, format: Format) -> Result<[f64; 2], Failure> {
    let workers = Some(NonZeroUsize::new(workers).ok_or("no workers")?);
    let (full, range) = guest(bytes, Contents::Heap)?;
    let file = tempfile::tempfile_in(dir)?;
    let start = Instant::now();
    let summary = {
        let store = Store::start(StoreOptions {
            format,
            workers,
            ..StoreOptions::default()
        })?;
        let source: Arc<dyn PageSource> = Arc::new(ProcessSource::new(full.pid()));
        let mut object = store.object(KEY, Box::new(file.try_clone()?));
        object.push(&source, Extent::anonymous(range.clone()))?;
        object.finish()?.wait()?
    };
    let dump = millis(start);
    drop(full);

    let (empty, fresh) = guest(bytes, Contents::Fresh)?;
    let mut placements = Placement::of_pagemap(&summary.pagemap);
    for placement in &mut placements {
        placement.vaddr = placement.vaddr - range.start + fresh.start;
    }
    let start = Instant::now();
    let request = FillRequest {
        reader: Arc::new(reader(format, file, &summary.checksums)?),
        target: Arc::new(ProcessTarget::new(empty.pid())),
        placements,
        huge: vec![fresh],
        compared: Vec::new(),
    };
    Filler::new(workers).fill(request)?.wait()?;
    Ok([dump, millis(start)])
}

fn reader(
    format: Format,
    mut file: File,
    sums: &[gelid_pages::ChunkSum],
) -> Result<ObjectReader, Failure> {
    file.rewind()?;
    let input = Box::new(file);
    Ok(match format {
        Format::Raw => ObjectReader::open_raw(KEY, input, Some(sums))?,
        Format::Zstd { .. } | Format::Adaptive => ObjectReader::open_zstd(KEY, input)?,
    })
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
