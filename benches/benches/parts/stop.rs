//! Threads are stopped and let go: the freezer beside the bare system calls.

use std::fs;

use criterion::{BenchmarkId, Criterion, Throughput};
use gelid_benches::guest::Guest;
use gelid_seize::{Options, freeze};
use gelid_sys::{Pid, ptrace, wait};

const THREADS: [usize; 2] = [100, 1000];

pub(crate) fn stop(c: &mut Criterion) {
    let mut group = super::group(c, "stop", Throughput::Elements(1));
    for threads in THREADS {
        let mut guest = Guest::start().unwrap();
        guest.spawn(threads).unwrap();
        let tids = threads_of(guest.pid());
        group.throughput(Throughput::Elements(tids.len() as u64));
        group.bench_function(BenchmarkId::new("limit: bare calls", threads), |b| {
            b.iter(|| bare(&tids));
        });
        let options = Options::new(guest.pid());
        group.bench_function(BenchmarkId::new("freeze and thaw", threads), |b| {
            b.iter(|| freeze(&options).unwrap().thaw().unwrap());
        });
    }
    group.finish();
}

/// Four calls for each thread, and nothing found out about any.
fn bare(tids: &[Pid]) {
    for tid in tids {
        let task = ptrace::seize(*tid, ptrace::Options::empty()).unwrap();
        task.interrupt().unwrap();
    }
    for tid in tids {
        wait::wait_task(*tid).unwrap();
    }
    for tid in tids {
        let task = ptrace::Running::attached(*tid).stopped();
        task.detach(0).unwrap();
    }
}

fn threads_of(pid: Pid) -> Vec<Pid> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    let numbers = names.map(|name| name.to_str().unwrap().parse().unwrap());
    numbers.map(|tid| Pid::from_raw(tid).unwrap()).collect()
}
