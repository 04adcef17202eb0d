//! What the machine can do with memory at best, and how the page pipeline grows with workers: `machine limits|scaling MIB
//! WORKERS DIR` prints milliseconds as JSON. Files are made in `DIR`, and have no names.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Seek, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
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
use gelid_sys::{Pid, pidfd, vm};
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
        _ => Err("usage: machine limits|scaling MIB WORKERS DIR".into()),
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

/// Bare calls on as many bytes and workers.
fn limits(mib: &str, workers: &str, dir: &Path) -> Result<Value, Failure> {
    let bytes = mib.parse::<u64>()? << 20;
    let workers: usize = workers.parse()?;
    let mut guest = Guest::start()?;
    let pid = guest.pid();
    let write = written(bytes, dir)?;

    // Two mebibytes more, so that aligned ones are as many as were asked for.
    let room = usize::try_from(bytes + HUGE_BYTES)?;
    let range = guest.allocate(room, Contents::Touched)?;
    let read = by_workers(&aligned(&range, bytes), workers, CHUNK, |chunk, buffer| {
        vm::read_ranges(pid, &[chunk], buffer)
    })?;
    let range = aligned(&guest.allocate(room, Contents::Fresh)?, bytes);
    let fill = by_workers(&range, workers, HUGE_BYTES, |area, buffer| {
        collapse(pid, &area)?;
        vm::write_ranges(pid, buffer, &[area])
    })?;
    let fill_again = by_workers(&range, workers, HUGE_BYTES, |area, buffer| {
        vm::write_ranges(pid, buffer, &[area])
    })?;
    Ok(json!({"write": write, "read": read, "fill": fill, "fill_again": fill_again}))
}

/// Milliseconds to write as many bytes into a new file.
fn written(bytes: u64, dir: &Path) -> Result<f64, Failure> {
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

/// The page store and the filler between a process and a file, with one worker and with more.
fn scaling(mib: &str, workers: &str, dir: &Path) -> Result<Value, Failure> {
    let bytes = mib.parse::<usize>()? << 20;
    let mut all = serde_json::Map::new();
    let mut guest = Guest::start()?;
    for (name, format) in [("raw", Format::Raw), ("zstd", Format::Zstd { level: -1 })] {
        for count in [1, workers.parse()?] {
            let count = NonZeroUsize::new(count).ok_or("no workers")?;
            let range = guest.allocate(bytes, Contents::Heap)?;
            let file = tempfile::tempfile_in(dir)?;
            let start = Instant::now();
            let summary = {
                let store = Store::start(StoreOptions {
                    format,
                    workers: Some(count),
                    ..StoreOptions::default()
                })?;
                let source: Arc<dyn PageSource> = Arc::new(ProcessSource::new(guest.pid()));
                let mut object = store.object(KEY, Box::new(file.try_clone()?));
                object.push(&source, Extent::anonymous(range.clone()))?;
                object.finish()?.wait()?
            };
            all.insert(format!("dump {name} {count}"), json!(millis(start)));

            let mut placements = Placement::of_pagemap(&summary.pagemap);
            let fresh = guest.allocate(bytes, Contents::Fresh)?;
            for placement in &mut placements {
                placement.vaddr = placement.vaddr - range.start + fresh.start;
            }
            let start = Instant::now();
            let request = FillRequest {
                reader: Arc::new(reader(format, file, &summary.checksums)?),
                target: Arc::new(ProcessTarget::new(guest.pid())),
                placements,
                huge: vec![fresh],
                compared: Vec::new(),
            };
            Filler::new(Some(count)).fill(request)?.wait()?;
            all.insert(format!("restore {name} {count}"), json!(millis(start)));
        }
    }
    Ok(Value::Object(all))
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

/// The first `bytes` of a range from where huge pages may begin.
fn aligned(range: &Range<u64>, bytes: u64) -> Range<u64> {
    let start = range.start.next_multiple_of(HUGE_BYTES);
    start..start + bytes
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
