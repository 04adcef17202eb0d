//! Signals that come while a tape plays: none is lost, none is made up.

use std::time::Duration;

use gelid_seize::Tree;
use gelid_sys::syscall::nr;
use gelid_tape::{Arg, Error, Tape};
use rustix::process::{Pid, Signal, kill_process};

use crate::guest::{Python, eventually, state};
use crate::stage::Stage;

/// Freezes a program that waits for a line, lets it wait for one on a tape, does something meanwhile, and
/// lets it go.
fn while_a_tape_plays(guest: &mut Python, act: impl FnOnce(Pid)) -> Tree {
    let mut tree = guest.root.freeze();
    let mut stage = Stage::set(&mut tree, 0);
    let mut tape = Tape::new();
    let line = tape.space(16);
    let read = tape.must(nr::read, [Arg::Value(0), line.into(), Arg::Value(16)]);
    let pid = tape.must(nr::getpid, []);
    stage.carriers[0].start(&tape).unwrap();
    std::thread::sleep(Duration::from_millis(2));
    act(guest.pid());
    std::thread::sleep(Duration::from_millis(2));
    guest.say("for the tape");
    let outcome = stage.carriers[0].finish().unwrap();
    assert_eq!(
        outcome.ok(read),
        Ok(13),
        "restarted, however often it was stopped"
    );
    assert_eq!(
        outcome.result(pid),
        i64::from(guest.pid().as_raw_nonzero().get())
    );
    let again = stage.carriers[0].play(&short()).unwrap();
    assert_eq!(again.failure(), None);
    stage.strike(&mut tree, 0, false);
    tree
}

fn short() -> Tape {
    let mut tape = Tape::new();
    tape.must(nr::getpid, []);
    tape
}

#[test]
fn a_caught_signal_that_also_ends_tapes_arrives_once() {
    let mut guest = Python::start(
        "import signal, sys\n\
         n = 0\n\
         def count(*_):\n\
         \x20 global n\n\
         \x20 n += 1\n\
         for s in (signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD): signal.signal(s, count)\n\
         print('ready')\n\
         for line in sys.stdin: print(n)",
    );
    for round in 1..=20 {
        let send = |pid| kill_process(pid, Signal::URG).unwrap();
        while_a_tape_plays(&mut guest, send).thaw().unwrap();
        assert_eq!(guest.ask("how many?"), round.to_string());
        while_a_tape_plays(&mut guest, |_| ()).thaw().unwrap();
        assert_eq!(guest.ask("how many?"), round.to_string());
    }
}

/// Blocks the signals that end tapes, one more and one of real time, and takes them when told.
const PATIENT: &str = "import signal, sys\n\
     S = [signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD, signal.SIGUSR1, signal.SIGRTMIN]\n\
     signal.pthread_sigmask(signal.SIG_BLOCK, S)\n\
     print('ready')\n\
     for line in sys.stdin:\n\
     \x20 got = []\n\
     \x20 while True:\n\
     \x20  i = signal.sigtimedwait(S, 0)\n\
     \x20  if i is None: break\n\
     \x20  got.append((i.si_signo, i.si_code, i.si_pid))\n\
     \x20 print(sorted(got))";

#[test]
fn a_blocked_signal_stays_pending_with_its_sender() {
    let mut guest = Python::start(PATIENT);
    let me = std::process::id();
    for signal in [Signal::URG, Signal::WINCH, Signal::CHILD, Signal::USR1] {
        let send = |pid| kill_process(pid, signal).unwrap();
        while_a_tape_plays(&mut guest, send).thaw().unwrap();
        let want = format!("[({}, 0, {me})]", signal.as_raw());
        assert_eq!(guest.ask("which?"), want);
    }
    // Were all of them pending before, one has to end the tapes all the same.
    for signal in [Signal::URG, Signal::WINCH, Signal::CHILD] {
        guest.signal(signal);
    }
    while_a_tape_plays(&mut guest, |_| ()).thaw().unwrap();
    let want = format!("[(17, 0, {me}), (23, 0, {me}), (28, 0, {me})]");
    assert_eq!(guest.ask("which?"), want);
}

#[test]
fn queued_signals_all_arrive() {
    let mut guest = Python::start(PATIENT);
    let send = |pid: Pid| {
        // SIGRTMIN of the C library; the tape is not to see it.
        let text = format!("kill -34 {pid}; kill -34 {pid}; kill -34 {pid}");
        let shell = std::process::Command::new("sh")
            .args(["-c", &text])
            .status();
        assert!(shell.unwrap().success());
    };
    while_a_tape_plays(&mut guest, send).thaw().unwrap();
    assert_eq!(guest.ask("which?").matches("(34, 0,").count(), 3);
}

#[test]
fn a_stop_comes_after_the_tape() {
    let mut guest = Python::start(PATIENT);
    let pid = guest.pid();
    let stop = |pid| kill_process(pid, Signal::STOP).unwrap();
    while_a_tape_plays(&mut guest, stop).thaw().unwrap();
    eventually(|| state(pid) == 'T');
    // A stopped program carries tapes too, and still is stopped afterwards.
    let mut tree = guest.root.freeze();
    let mut stage = Stage::set(&mut tree, 0);
    assert_eq!(stage.carriers[0].play(&short()).unwrap().failure(), None);
    stage.strike(&mut tree, 0, false);
    tree.thaw().unwrap();
    eventually(|| state(pid) == 'T');
    guest.signal(Signal::CONT);
    assert_eq!(guest.ask("which?"), "[]");

    let both = |pid| {
        kill_process(pid, Signal::STOP).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        kill_process(pid, Signal::CONT).unwrap();
    };
    while_a_tape_plays(&mut guest, both).thaw().unwrap();
    assert_eq!(guest.ask("which?"), "[]", "the later one counts");
}

#[test]
fn a_task_killed_while_it_plays_is_told_gone() {
    let alone = "print('ready')\ninput()";
    let crowd = "import threading, time\n\
         for i in range(5): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
         print('ready')\ninput()";
    for text in [alone, crowd] {
        let guest = Python::start(text);
        let mut tree = guest.root.freeze();
        let mut stage = Stage::set(&mut tree, 0);
        let mut tape = Tape::new();
        let line = tape.space(16);
        tape.must(nr::read, [Arg::Value(0), line.into(), Arg::Value(16)]);
        stage.carriers[0].start(&tape).unwrap();
        kill_process(guest.pid(), Signal::KILL).unwrap();
        // The main thread is not reported before the others, which nobody waits for, are.
        let tid = guest.pid();
        assert_eq!(stage.carriers[0].finish().unwrap_err(), Error::Gone { tid });
        for carrier in stage.carriers {
            assert!(carrier.release().is_err());
        }
        let _ = tree.thaw();
    }
}
