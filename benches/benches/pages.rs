//! The page store: reading, zero test, compression, decompression, filling, huge pages; each beside the
//! limit that the machine sets.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group};
use gelid_benches::guest::{Contents, Guest, serve_if_guest};
use gelid_benches::{bench_bytes, memory};
use gelid_pages::*;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Seek, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

const KEY: ObjectKey = ObjectKey {
    pages_id: 1,
    owner: Owner::Task(1),
};
const ZSTD: Format = Format::Zstd { level: -1 };

/// A group whose results are bytes per second of `bytes`.
fn group<'a>(c: &'a mut Criterion, name: &str, bytes: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::BytesDecimal(bytes as u64));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    group
}

/// A source without cost of its own but the copy.
struct Slice(Vec<u8>);

impl PageSource for Slice {
    fn read(&self, ranges: &[Range<u64>], mut buf: &mut [u8]) -> io::Result<()> {
        for range in ranges {
            let from = &self.0[range.start as usize..range.end as usize];
            let (here, rest) = buf.split_at_mut(from.len());
            here.copy_from_slice(from);
            buf = rest;
        }
        Ok(())
    }
}

fn start(format: Format, workers: usize) -> Store {
    Store::start(StoreOptions {
        format,
        workers: NonZeroUsize::new(workers),
        ..StoreOptions::default()
    })
    .unwrap()
}

fn dump(
    store: &Store,
    source: &Arc<dyn PageSource>,
    range: Range<u64>,
    sink: Box<dyn PageSink>,
) -> Summary {
    let mut object = store.object(KEY, sink);
    object.push(source, Extent::anonymous(range)).unwrap();
    object.finish().unwrap().wait().unwrap()
}

/// What the machine can do at best.
fn limits(c: &mut Criterion) {
    let bytes = bench_bytes();
    let mut group = group(c, "limit", bytes);
    let memory = memory::random(bytes);
    let mut chunk = vec![1; CHUNK_BYTES];
    group.bench_function("memcpy into a warm chunk", |b| {
        b.iter(|| {
            memory
                .chunks_exact(CHUNK_BYTES)
                .for_each(|from| black_box(&mut chunk).copy_from_slice(from))
        });
    });
    group.bench_function("memcpy into fresh 4 KiB pages", |b| {
        b.iter_batched_ref(
            || vec![0; bytes],
            |fresh| fresh.copy_from_slice(&memory),
            BatchSize::PerIteration,
        );
    });
    let file = tempfile::tempfile().unwrap();
    group.bench_function("write to fresh page cache", |b| {
        b.iter_batched(
            || file.set_len(0).and((&file).rewind()).unwrap(),
            |()| (&file).write_all(&memory).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    bare_zstd(c);
}

/// zstd alone, in one thread, with nothing read, tested or written.
fn bare_zstd(c: &mut Criterion) {
    let bytes = bench_bytes();
    let mut group = group(c, "limit", bytes);
    let chunk = memory::heap(CHUNK_BYTES);
    let mut packed = vec![0; zstd_safe::compress_bound(CHUNK_BYTES)];
    let mut packer = zstd_safe::CCtx::create();
    let mut pack = || packer.compress(&mut packed[..], &chunk, -1).unwrap();
    group.bench_function("zstd of a heap, packing", |b| {
        b.iter(|| {
            (0..bytes / CHUNK_BYTES)
                .map(|_| black_box(pack()))
                .sum::<usize>()
        });
    });
    let len = pack();
    let mut unpacked = vec![0; CHUNK_BYTES];
    let mut unpacker = zstd_safe::DCtx::create();
    group.bench_function("zstd of a heap, unpacking", |b| {
        b.iter(|| {
            for _ in 0..bytes / CHUNK_BYTES {
                let packed = &packed[..len];
                unpacker
                    .decompress(black_box(&mut unpacked[..]), packed)
                    .unwrap();
            }
        });
    });
    group.finish();
}

fn read(c: &mut Criterion) {
    let bytes = bench_bytes();
    let mut guest = Guest::start().unwrap();
    let range = guest.allocate(bytes, Contents::Heap).unwrap();
    let source = ProcessSource::new(guest.pid());
    let mut group = group(c, "read", bytes);
    let mut chunk = vec![0; CHUNK_BYTES];
    group.bench_function("4 KiB pages", |b| {
        b.iter(|| {
            for start in range.clone().step_by(CHUNK_BYTES) {
                let range = start..(start + CHUNK_BYTES as u64).min(range.end);
                let len = (range.end - range.start) as usize;
                source
                    .read(std::slice::from_ref(&range), &mut chunk[..len])
                    .unwrap();
            }
        });
    });
    group.finish();
}

fn look(c: &mut Criterion) {
    let bytes = bench_bytes();
    let mut group = group(c, "look", bytes);
    let zeros = vec![0; CHUNK_BYTES];
    let heap = memory::heap(CHUNK_BYTES);
    for (name, chunk) in [
        ("zero test of zeros", &zeros),
        ("zero test of a heap", &heap),
    ] {
        group.bench_function(name, |b| {
            let test = || {
                black_box(chunk)
                    .chunks_exact(PAGE_SIZE)
                    .filter(|page| is_zero(page))
                    .count()
            };
            b.iter(|| (0..bytes / CHUNK_BYTES).map(|_| test()).sum::<usize>());
        });
    }
    let random = memory::random(CHUNK_BYTES);
    group.bench_function("random or not", |b| {
        b.iter(|| {
            (0..bytes / CHUNK_BYTES)
                .filter(|_| looks_random(black_box(&random)))
                .count()
        });
    });
    group.finish();
}

/// The writing pipeline from memory to nowhere: what encoding costs.
fn encode(c: &mut Criterion) {
    let bytes = bench_bytes();
    let mut group = group(c, "encode", bytes);
    for (contents, memory) in [
        ("heap", memory::heap(bytes)),
        ("random", memory::random(bytes)),
    ] {
        let source: Arc<dyn PageSource> = Arc::new(Slice(memory));
        for (name, format) in [("raw", Format::Raw), ("zstd", ZSTD)] {
            for workers in [1, 2] {
                let store = start(format, workers);
                let id = BenchmarkId::new(format!("{name} {contents}"), workers);
                group.bench_function(id, |b| {
                    b.iter(|| dump(&store, &source, 0..bytes as u64, Box::new(io::sink())));
                });
            }
        }
    }
    group.finish();
}

/// A live process to a file.
fn dump_process(c: &mut Criterion) {
    let bytes = bench_bytes();
    let mut group = group(c, "dump", bytes);
    let mut guest = Guest::start().unwrap();
    for contents in [Contents::Heap, Contents::Random] {
        let range = guest.allocate(bytes, contents).unwrap();
        let source: Arc<dyn PageSource> = Arc::new(ProcessSource::new(guest.pid()));
        for (name, format) in [("raw", Format::Raw), ("zstd", ZSTD)] {
            for workers in [1, 2] {
                let store = start(format, workers);
                let id = BenchmarkId::new(format!("{name} {contents:?}"), workers);
                let fresh = || tempfile::tempfile().unwrap();
                group.bench_function(id, |b| {
                    let run = |file: &mut File| {
                        let sink = Box::new(file.try_clone().unwrap());
                        dump(&store, &source, range.clone(), sink)
                    };
                    b.iter_batched_ref(fresh, run, BatchSize::PerIteration);
                });
            }
        }
    }
    group.finish();
}

/// An object of the whole bench memory, in a file.
fn stored(format: Format, memory: Vec<u8>, at: u64) -> (Arc<ObjectReader>, Summary) {
    let file = tempfile::tempfile().unwrap();
    let range = at..at + memory.len() as u64;
    let source: Arc<dyn PageSource> = Arc::new(Memory::new(at, memory));
    let summary = dump(
        &start(format, 2),
        &source,
        range,
        Box::new(file.try_clone().unwrap()),
    );
    let input = Box::new(file);
    let reader = match format {
        Format::Raw => ObjectReader::open_raw(KEY, input, Some(&summary.checksums)),
        Format::Zstd { .. } | Format::Adaptive => ObjectReader::open_zstd(KEY, input),
    };
    (Arc::new(reader.unwrap()), summary)
}

fn decode(c: &mut Criterion) {
    let bytes = bench_bytes();
    let mut group = group(c, "decode", bytes);
    let mut pages = vec![0; CHUNK_BYTES];
    for (contents, memory) in [
        ("heap", memory::heap(bytes)),
        ("random", memory::random(bytes)),
    ] {
        for (name, format) in [("raw", Format::Raw), ("zstd", ZSTD)] {
            let (reader, _) = stored(format, memory.clone(), 0);
            let mut scratch = Scratch::new();
            group.bench_function(format!("{name} {contents}"), |b| {
                b.iter(|| {
                    for first in (0..reader.pages()).step_by(CHUNK_PAGES) {
                        let count = (reader.pages() - first).min(CHUNK_PAGES as u64) as usize;
                        reader
                            .read_at(&mut scratch, first, &mut pages[..count * PAGE_SIZE])
                            .unwrap();
                    }
                });
            });
        }
    }
    group.finish();
}

/// A file into a live process: small pages, huge pages.
fn fill(c: &mut Criterion) {
    let bytes = bench_bytes();
    let mut group = group(c, "fill", bytes);
    let mut guest = Guest::start().unwrap();
    for (name, format) in [("raw", Format::Raw), ("zstd", ZSTD)] {
        let (reader, summary) = stored(format, memory::heap(bytes), 0);
        for (pages, is_huge) in [("4 KiB pages", false), ("2 MiB pages", true)] {
            for workers in [1, 2] {
                let filler = Filler::new(NonZeroUsize::new(workers));
                let pid = guest.pid();
                let id = BenchmarkId::new(format!("{name} {pages}"), workers);
                let fill = |range: Range<u64>| {
                    let mut placements = Placement::of_pagemap(&summary.pagemap);
                    placements
                        .iter_mut()
                        .for_each(|placement| placement.vaddr += range.start);
                    let reader = Arc::clone(&reader);
                    let target = Arc::new(ProcessTarget::new(pid));
                    let huge = if is_huge { vec![range] } else { vec![] };
                    filler
                        .fill(FillRequest {
                            reader,
                            target,
                            placements,
                            huge,
                            compared: Vec::new(),
                        })
                        .unwrap()
                        .wait()
                        .unwrap()
                };
                group.bench_function(id, |b| {
                    let fresh = || guest.allocate(bytes, Contents::Fresh).unwrap();
                    b.iter_batched(fresh, fill, BatchSize::PerIteration);
                });
            }
        }
    }
    group.finish();
}

criterion_group!(
    benches,
    limits,
    read,
    look,
    encode,
    dump_process,
    decode,
    fill
);

fn main() {
    if serve_if_guest().unwrap() {
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
