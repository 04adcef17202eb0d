//! Memory of another process is made: huge pages and small ones, beside the clearing of as many bytes.

use std::hint::black_box;
use std::ops::Range;

use criterion::{BatchSize, Criterion, Throughput};
use gelid_benches::bench_bytes;
use gelid_benches::guest::{Contents, Guest};
use gelid_sys::madvise::{self, Advice, Outcome};
use gelid_sys::{PAGE_SIZE, Pid, pidfd, vm};

const HUGE: u64 = 2 << 20;

pub(crate) fn collapse(c: &mut Criterion) {
    let mut guest = Guest::start().unwrap();
    let pid = guest.pid();
    let bytes = (bench_bytes() as u64 / HUGE - 1) * HUGE;
    let mut fresh = || {
        let range = guest.allocate(bench_bytes(), Contents::Fresh).unwrap();
        let start = range.start.next_multiple_of(HUGE);
        start..start + bytes
    };
    let outcome = collapsed(pid, &fresh());
    if outcome.advised < bytes {
        eprintln!("not all pages are huge ones: {outcome:?}");
    }
    let mut group = super::group(c, "collapse", Throughput::BytesDecimal(bytes));
    let mut warm = vec![1_u8; HUGE as usize];
    group.bench_function("limit: clearing 2 MiB that are warm", |b| {
        b.iter(|| (0..bytes / HUGE).for_each(|_| black_box(&mut warm).fill(0)));
    });
    group.bench_function("huge pages", |b| {
        b.iter_batched(
            &mut fresh,
            |range| collapsed(pid, &range),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("small pages", |b| {
        b.iter_batched(
            &mut fresh,
            |range| touch(pid, &range, PAGE_SIZE as u64),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// One page of each area is written, then the kernel is asked for all areas at once, as a restore does it.
fn collapsed(pid: Pid, range: &Range<u64>) -> Outcome {
    touch(pid, range, HUGE);
    let task = pidfd::open(pid).unwrap();
    madvise::best_effort(task, std::slice::from_ref(range), Advice::Collapse)
}

/// Writes a byte at every `step`.
fn touch(pid: Pid, range: &Range<u64>, step: u64) {
    let places: Vec<Range<u64>> = range
        .clone()
        .step_by(step as usize)
        .map(|at| at..at + 1)
        .collect();
    let bytes = [1; vm::IOV_MAX];
    for part in places.chunks(vm::IOV_MAX) {
        let written = vm::write_ranges(pid, &bytes[..part.len()], part).unwrap();
        assert_eq!(written, part.len());
    }
}
