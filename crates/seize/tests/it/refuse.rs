//! What is not frozen, and what the message says.

use std::time::{Duration, Instant};

use gelid_seize::{Error, Options, freeze};
use gelid_sys::ptrace;
use rustix::process::{Pid, getpid};

use crate::guest::{Guest, state};

#[test]
fn another_tracer_is_named() {
    let guest = Guest::perl("if (!fork) { sleep 1000 } print qq(ready\\n); sleep 1000;");
    let tree = guest.freeze();
    let child = tree.processes()[1].pid;
    let tracer = rustix::thread::gettid().as_raw_pid();
    tree.thaw().unwrap();
    ptrace::seize(child, ptrace::Options::empty()).unwrap();
    let pid = guest.pid();
    let error = std::thread::spawn(move || freeze(&Options::new(pid)).unwrap_err())
        .join()
        .unwrap();
    assert!(
        matches!(error, Error::Traced { tid, tracer: by, .. } if tid == child && by == tracer),
        "{error}"
    );
    assert!(
        error.to_string().contains(&format!("traced by {tracer}")),
        "{error}"
    );
    assert!(matches!(state(pid), 'S' | 'R'));
}

#[test]
fn impossible_roots_are_refused() {
    let refused = |pid: i32| freeze(&Options::new(Pid::from_raw(pid).unwrap())).unwrap_err();
    assert!(matches!(
        refused(getpid().as_raw_pid()),
        Error::ContainsSelf { .. }
    ));
    assert!(matches!(refused(1), Error::ContainsSelf { .. }));
    assert!(matches!(refused(i32::MAX), Error::Gone { .. }));
    assert!(matches!(refused(2), Error::KernelThread { .. }));
    let own = std::thread::spawn(move || {
        let tid = rustix::thread::gettid();
        freeze(&Options::new(tid)).unwrap_err()
    });
    assert!(matches!(own.join().unwrap(), Error::NotAProcess { .. }));
}

#[test]
fn a_vfork_that_does_not_end_is_refused_in_time() {
    // The child of vfork sleeps on without calling execve.
    let guest = Guest::python(
        "import ctypes\nprint('ready')\nlibc = ctypes.CDLL(None)\n\
         if libc.syscall(56, 0x4000 | 17, 0, 0, 0, 0) == 0:\n import time; time.sleep(1000)",
    );
    crate::guest::eventually(|| state(guest.pid()) == 'D');
    let start = Instant::now();
    let options = Options {
        timeout: Duration::from_millis(300),
        ..Options::new(guest.pid())
    };
    let error = freeze(&options).unwrap_err();
    assert!(
        matches!(error, Error::Vfork { tid, .. } if tid == guest.pid()),
        "{error}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(state(guest.pid()), 'D');
}
