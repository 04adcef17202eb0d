//! What the pages of an address space are: the scan of a dump beside one bare call, and beside a copy of the page tables.

use std::hint::black_box;
use std::ops::Range;

use criterion::{BenchmarkId, Criterion, Throughput};
use gelid_benches::guest::{Contents, Guest};
use gelid_sys::pagemap::{self, Categories, Query};
use gelid_sys::proc;
use rustix::fs::OFlags;

const BYTES: usize = 256 << 20;
const PAGES: usize = BYTES / 4096;

pub(crate) fn scan(c: &mut Criterion) {
    let mut group = super::group(c, "scan", Throughput::Bytes(BYTES as u64));
    let tables = vec![1_u64; PAGES];
    let mut copy = vec![0_u64; PAGES];
    group.bench_function("limit: copy of the page table", |b| {
        b.iter(|| black_box(&mut copy).copy_from_slice(&tables));
    });
    let stored = Categories::PRESENT | Categories::SWAPPED;
    let query = Query {
        any_of: stored,
        report: stored | Categories::FILE | Categories::PFNZERO,
        ..Query::default()
    };
    let mut guest = Guest::start().unwrap();
    for (name, contents) in [
        ("every page", Contents::Touched),
        ("every other page", Contents::Striped),
    ] {
        let range = guest.allocate(BYTES, contents).unwrap();
        let task = proc::task_dir(guest.pid()).unwrap();
        let file = task.open_file("pagemap", OFlags::RDONLY).unwrap();
        let mut regions = Vec::with_capacity(PAGES);
        group.bench_function(BenchmarkId::new("limit: one bare call", name), |b| {
            b.iter(|| pagemap::scan(&file, range.clone(), &query, &mut regions).unwrap());
        });
        let found = |range: Range<u64>| {
            let mut pages = 0;
            let take =
                |region: pagemap::Region| pages += (region.end - region.start) as usize / 4096;
            pagemap::scan_each(&file, range, &query, take).unwrap();
            pages
        };
        assert!(found(range.clone()) >= PAGES / 2);
        group.bench_function(BenchmarkId::new("as a dump does it", name), |b| {
            b.iter(|| found(range.clone()));
        });
    }
    group.finish();
}
