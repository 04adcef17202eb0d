//! Waiting until what was told to stop has stopped.

use std::time::{Duration, Instant};

use gelid_sys::Pid;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::stat::{self, State};

/// Each thread takes the signal as soon as it has a processor.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_micros(100);

/// Waits until all of these threads, with their processes, stand still, so that whoever looks at them next finds
/// them stopped. Somebody may let them go on meanwhile: after a while it is given up.
pub(crate) fn all(threads: &[(Pid, Pid)]) {
    let since = Instant::now();
    for (pid, tid) in threads {
        while since.elapsed() < PATIENCE && is_running(*pid, *tid) {
            std::thread::sleep(PAUSE);
        }
    }
}

fn is_running(pid: Pid, tid: Pid) -> bool {
    let stat = TaskDir::open(pid)
        .and_then(|process| process.thread(tid))
        .and_then(|thread| stat::read(&thread));
    // What is gone runs no more.
    stat.is_ok_and(|stat| {
        !matches!(stat.state, State::Stopped | State::TracingStop) && !stat.state.is_dead()
    })
}
