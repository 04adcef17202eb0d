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
    // In a pid namespace there are none.
    let is_kernel_thread = std::fs::read("/proc/2/comm").is_ok_and(|comm| comm == b"kthreadd\n");
    match is_kernel_thread {
        true => assert!(matches!(refused(2), Error::KernelThread { .. })),
        false => println!("no kernel threads are seen from here"),
    }
    let own = std::thread::spawn(move || {
        let tid = rustix::thread::gettid();
        freeze(&Options::new(tid)).unwrap_err()
    });
    assert!(matches!(own.join().unwrap(), Error::NotAProcess { .. }));
}

/// Names the process to freeze, to this program run again without any right to.
const VICTIM: &str = "GELID_SEIZE_FORBIDDEN";

/// Does nothing as a test; run by the next one it tells what comes of freezing another user's process.
#[test]
fn stranger() {
    let Ok(victim) = std::env::var(VICTIM) else {
        return;
    };
    let pid = Pid::from_raw(victim.parse().unwrap()).unwrap();
    println!("\n{}", freeze(&Options::new(pid)).unwrap_err());
}

#[test]
fn a_task_of_another_user_is_refused_with_the_remedy() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let guest = Guest::perl("print qq(ready\\n); sleep 1000;");
    // A copy that another user may execute.
    let copy = std::env::temp_dir().join(format!("gelid-seize-{}", guest.pid()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut stranger = std::process::Command::new(&copy);
    stranger
        .args(["--exact", "refuse::stranger", "--nocapture"])
        .env(VICTIM, guest.pid().to_string());
    std::os::unix::process::CommandExt::uid(&mut stranger, 65534).current_dir("/");
    // A process that another test bears at this moment may have the copy open for writing until it has called `execve`.
    let busy = |output: &std::io::Result<_>| matches!(output, Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy);
    let mut output = stranger.output();
    for _ in 0..100 {
        if !busy(&output) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        output = stranger.output();
    }
    std::fs::remove_file(&copy).unwrap();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let expected = format!(
        "cannot trace task {} (perl): Operation not permitted",
        guest.pid()
    );
    assert!(
        text.contains(&expected) && text.contains("CAP_SYS_PTRACE"),
        "{text}"
    );
    assert!(matches!(state(guest.pid()), 'S' | 'R'));
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
