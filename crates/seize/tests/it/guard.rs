//! Whatever happens to the one who freezes, the tree runs on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use gelid_seize::{Options, freeze};

use crate::guest::{Guest, eventually, state, tracer};

const ECHO: &str = "import sys\nprint('ready')\nfor line in sys.stdin: print(line.strip())";

#[test]
fn a_panic_thaws() {
    let mut guest = Guest::python(ECHO);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _tree = guest.freeze();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(result.is_err());
    assert_eq!(tracer(guest.pid()), 0);
    assert_eq!(guest.ask("on"), "on");
}

#[test]
fn the_end_of_the_tracing_thread_thaws() {
    let mut guest = Guest::python(ECHO);
    let pid = guest.pid();
    std::thread::spawn(move || std::mem::forget(freeze(&Options::new(pid)).unwrap()))
        .join()
        .unwrap();
    eventually(|| tracer(pid) == 0);
    assert_eq!(guest.ask("on"), "on");
}

#[test]
fn a_thread_taken_out_is_stopped_and_let_go() {
    let mut guest = Guest::python(ECHO);
    let mut tree = guest.freeze();
    let task = tree.processes_mut()[0].threads[0].take().unwrap();
    let _ = task.cont(0).unwrap();
    drop(tree);
    assert_eq!(tracer(guest.pid()), 0);
    assert_eq!(guest.ask("on"), "on");
}

#[test]
fn a_thread_can_be_given_back() {
    let mut guest = Guest::python(ECHO);
    let mut tree = guest.freeze();
    let thread = &mut tree.processes_mut()[0].threads[0];
    let task = thread.take().unwrap();
    assert!(thread.task().is_none());
    thread.put(task);
    assert!(thread.task().is_some());
    tree.thaw().unwrap();
    assert_eq!(guest.ask("on"), "on");
}

#[test]
fn a_task_killed_while_frozen_hinders_nothing() {
    let mut guest = Guest::python(
        "import os, sys, time\npid = os.fork()\nif pid == 0: time.sleep(1000)\nprint(pid)\n\
         for line in sys.stdin: print(os.waitpid(pid, 0)[1])",
    );
    let tree = guest.freeze();
    rustix::process::kill_process(tree.processes()[1].pid, rustix::process::Signal::KILL).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    tree.thaw().unwrap();
    assert_eq!(guest.ask("status"), "9");
    crate::guest::eventually(|| state(guest.pid()) == 'S');
}

/// Names the process to freeze, to this program run again as the one who freezes.
const VICTIM: &str = "GELID_SEIZE_VICTIM";

/// Does nothing as a test; run by the next one it freezes, and waits for its death.
#[test]
fn freezer() {
    let Ok(victim) = std::env::var(VICTIM) else {
        return;
    };
    let pid = rustix::process::Pid::from_raw(victim.parse().unwrap()).unwrap();
    loop {
        let tree = freeze(&Options::new(pid)).unwrap();
        println!("frozen");
        drop(tree);
    }
}

#[test]
fn the_death_of_the_freezer_thaws() {
    // The program checks a sum it keeps going: a lost signal, a broken system call or register would show.
    let mut guest = Guest::python(
        "import os, sys, threading, time\n\
         a = b = 0\n\
         def count():\n\
         \x20 global a\n\
         \x20 while True:\n\
         \x20  a += 1\n\
         \x20  time.sleep(0)\n\
         for i in range(4): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
         threading.Thread(target=count, daemon=True).start()\n\
         if os.fork() == 0:\n\
         \x20 while True: sum(range(1000))\n\
         print('ready')\n\
         for line in sys.stdin:\n\
         \x20 b, c = a, b\n\
         \x20 time.sleep(.01)\n\
         \x20 print(a > c)",
    );
    for round in 0..40_u64 {
        let mut freezer = std::process::Command::new(std::env::current_exe().unwrap());
        let freezer = freezer.args(["--exact", "guard::freezer", "--nocapture"]);
        let mut freezer = freezer
            .env(VICTIM, guest.pid().to_string())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = std::io::BufReader::new(freezer.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("frozen") {
            line.clear();
            std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        }
        std::thread::sleep(Duration::from_micros(round * 37));
        freezer.kill().unwrap();
        freezer.wait().unwrap();
        assert_eq!(guest.ask("well?"), "True");
        assert_eq!(tracer(guest.pid()), 0);
    }
}
