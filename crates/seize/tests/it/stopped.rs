//! Job control and other signals around a freeze.

use std::time::Duration;

use gelid_seize::State;
use rustix::process::{Signal, WaitOptions, waitpid};

use crate::guest::{Guest, eventually, state};

const THREADS: &str = "import sys, threading, time\n\
    for i in range(8): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
    print('ready')\nfor line in sys.stdin: print(line.strip())";

#[test]
fn what_was_stopped_stays_stopped() {
    for signal in [Signal::STOP, Signal::TSTP, Signal::TTIN] {
        let mut guest = Guest::python(THREADS);
        guest.signal(signal);
        eventually(|| state(guest.pid()) == 'T');
        for _ in 0..10 {
            let tree = guest.freeze();
            assert_eq!(
                tree.root().state,
                State::Stopped {
                    signal: signal.as_raw()
                }
            );
            tree.thaw().unwrap();
            eventually(|| state(guest.pid()) == 'T');
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(state(guest.pid()), 'T');
        }
        guest.signal(Signal::CONT);
        assert_eq!(guest.ask("on"), "on");
    }
}

#[test]
fn the_parent_is_told_of_a_stop_only_once() {
    let guest = Guest::python(THREADS);
    guest.signal(Signal::STOP);
    let options = WaitOptions::UNTRACED | WaitOptions::CONTINUED;
    let (_, status) = waitpid(Some(guest.pid()), options).unwrap().unwrap();
    assert_eq!(status.stopping_signal(), Some(Signal::STOP.as_raw()));
    guest.freeze().thaw().unwrap();
    eventually(|| state(guest.pid()) == 'T');
    std::thread::sleep(Duration::from_millis(20));
    assert!(
        waitpid(Some(guest.pid()), options | WaitOptions::NOHANG)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_stop_in_the_middle_is_seen_whole() {
    for round in 0..50 {
        let mut guest = Guest::python(THREADS);
        let pid = guest.pid();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(20 * round));
            rustix::process::kill_process(pid, Signal::STOP).unwrap();
        });
        let tree = guest.freeze();
        stopper.join().unwrap();
        tree.thaw().unwrap();
        eventually(|| state(pid) == 'T');
        guest.signal(Signal::CONT);
        assert_eq!(guest.ask("on"), "on");
    }
}

#[test]
fn a_continue_in_the_middle_is_not_lost() {
    let mut guest = Guest::python(THREADS);
    guest.signal(Signal::STOP);
    eventually(|| state(guest.pid()) == 'T');
    let tree = guest.freeze();
    guest.signal(Signal::CONT);
    tree.thaw().unwrap();
    assert_eq!(guest.ask("on"), "on");
}

#[test]
fn a_signal_while_frozen_is_delivered_after() {
    let mut guest = Guest::python(
        "import signal, sys\nsignal.signal(signal.SIGUSR1, lambda *_: print('usr1'))\nprint('ready')\n\
         for line in sys.stdin: print(line.strip())",
    );
    let tree = guest.freeze();
    guest.signal(Signal::USR1);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(state(guest.pid()), 't');
    tree.thaw().unwrap();
    assert_eq!(guest.line(), "usr1");
}

#[test]
fn no_signal_is_lost_in_a_hail() {
    let mut guest = Guest::python(
        "import ctypes, os, signal, threading\n\
         N = 20000\n\
         libc = ctypes.CDLL(None)\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])\n\
         pid = os.fork()\n\
         if pid == 0:\n\
         \x20 print('ready')\n\
         \x20 n = 0\n\
         \x20 while n < N:\n\
         \x20  info = signal.sigtimedwait([signal.SIGRTMIN], 10)\n\
         \x20  if info is None: break\n\
         \x20  n += 1\n\
         \x20 print(n)\n\
         \x20 os._exit(0)\n\
         for i in range(N):\n\
         \x20 while libc.sigqueue(pid, signal.SIGRTMIN, ctypes.c_void_p(i)) != 0: pass\n\
         os.wait()\ninput()",
    );
    for _ in 0..30 {
        let tree = guest.freeze();
        assert!(tree.processes().len() <= 2);
        tree.thaw().unwrap();
    }
    assert_eq!(guest.line(), "20000");
}

#[test]
fn a_handler_runs_once_per_signal() {
    let mut guest = Guest::perl(
        "my $n = 0; $SIG{USR1} = sub { $n++ }; my $pid = fork; \
         if (!$pid) { my $parent = getppid; for (1..3000) { kill 'USR1', $parent; \
           select undef, undef, undef, 0.0003 } kill 'USR2', $parent; sleep 1000 } \
         my $end = 0; $SIG{USR2} = sub { $end = 1 }; print qq(ready\\n); 1 until $end; print qq($n\\n); sleep 1000;",
    );
    let mut signals = 0;
    for _ in 0..200 {
        let tree = guest.freeze();
        signals += tree.stats().signals;
        tree.thaw().unwrap();
    }
    // Ordinary signals may merge, but the program stays alive and counts most of them.
    let seen: u32 = guest.line().parse().unwrap();
    assert!(
        (100..=3000).contains(&seen),
        "{seen} seen, {signals} met on the way"
    );
}

#[test]
fn a_wait_that_any_stop_ends_goes_on() {
    let mut guest = Guest::python(
        "import ctypes, signal\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n\
        mask, none = ctypes.c_uint64(1 << 9), ctypes.c_void_p()\n\
        print('ready')\n\
        print(ctypes.CDLL(None).syscall(128, ctypes.byref(mask), none, none, ctypes.c_long(8)))",
    );
    let waits = |pid| {
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
        call.is_ok_and(|call| call.starts_with("128 "))
    };
    for _ in 0..10 {
        eventually(|| waits(guest.pid()));
        guest.freeze().thaw().unwrap();
    }
    eventually(|| waits(guest.pid()));
    guest.signal(Signal::USR1);
    assert_eq!(guest.line(), "10");
}
