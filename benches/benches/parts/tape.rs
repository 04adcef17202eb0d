//! A tape of many system calls beside the stops that each of them would cost without one.

use criterion::{Criterion, Throughput};
use gelid_benches::guest::Guest;
use gelid_sys::proc::{self, maps};
use gelid_sys::ptrace::{self, Stopped};
use gelid_sys::syscall::nr;
use gelid_sys::{Pid, wait};
use gelid_tape::{Carrier, Ground, Host, Identity, Tape};

const CALLS: usize = 20;
/// Bytes of a tape.
const ROOM: usize = 4096;
/// `SIGURG`, which nobody has a handler for.
const SIGNAL: i32 = 23;

pub(crate) fn tape(c: &mut Criterion) {
    let mut group = super::group(c, "tape", Throughput::Elements(CALLS as u64));
    let guest = Guest::start().unwrap();
    let mut task = Some(stopped(guest.pid()));
    group.bench_function("limit: two stops", |b| {
        b.iter(|| task = task.take().map(|task| stop_again(stop_again(task))));
    });
    task.unwrap().detach(0).unwrap();

    let guest = Guest::start().unwrap();
    let (host, mut carrier) = aboard(stopped(guest.pid()));
    let tape = of(CALLS);
    group.bench_function("one tape of 20 calls", |b| {
        b.iter(|| carrier.play(&tape).unwrap());
    });
    let single = of(1);
    group.bench_function("20 tapes of one call", |b| {
        b.iter(|| (0..CALLS).for_each(|_| drop(carrier.play(&single).unwrap())));
    });
    let task = host.leave(carrier).map_err(|(error, _)| error).unwrap();
    task.detach(0).unwrap();
    group.finish();
}

fn of(calls: usize) -> Tape {
    let mut tape = Tape::new();
    for _ in 0..calls {
        tape.call(nr::getppid, []);
    }
    tape
}

fn stopped(pid: Pid) -> Stopped {
    let running = ptrace::seize(pid, ptrace::Options::empty()).unwrap();
    running.interrupt().unwrap();
    wait::wait_task(pid).unwrap();
    running.stopped()
}

/// Lets a task run no further than to its next stop, which is due.
fn stop_again(task: Stopped) -> Stopped {
    task.interrupt().unwrap();
    let running = task.cont(0).unwrap();
    wait::wait_task(running.pid()).unwrap();
    running.stopped()
}

fn aboard(task: Stopped) -> (Host, Carrier) {
    let pid = task.pid();
    let all = maps::read(&proc::task_dir(pid).unwrap()).unwrap();
    let code = all
        .iter()
        .filter(|map| map.path == b"[vdso]")
        .map(maps::Mapping::range);
    let ground = Ground {
        code: code.collect(),
        spare: None,
    };
    let number = pid.as_raw_nonzero().get();
    let identity = Identity {
        tgid: number,
        tid: number,
        signal: SIGNAL,
    };
    let host = Host::seized(task, identity, &ground, ROOM, ROOM);
    host.map_err(|(error, _)| error).unwrap()
}
