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
    let running = task.cont(0).unwrap();
    drop(tree);
    drop(running);
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
    assert_eq!(state(guest.pid()), 'S');
}
