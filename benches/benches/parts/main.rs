//! Single steps of a dump and a restore, each beside what the machine needs for it at best.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

mod collapse;
mod decode;
mod scan;
mod stop;
mod tape;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group};
use gelid_benches::guest::serve_if_guest;

/// A group whose results are shares of `throughput` in a second.
fn group<'a>(
    c: &'a mut Criterion,
    name: &str,
    throughput: Throughput,
) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(throughput);
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    group
}

criterion_group!(
    benches,
    stop::stop,
    tape::tape,
    scan::scan,
    collapse::collapse,
    decode::decode
);

fn main() {
    if serve_if_guest().unwrap() {
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
