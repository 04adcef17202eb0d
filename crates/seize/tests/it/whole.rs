//! Whole trees that stand rather still.

use gelid_seize::State;

use crate::guest::{Guest, eventually, state, tracer};

#[test]
fn a_single_process_is_frozen_and_runs_on() {
    let mut guest =
        Guest::python("import sys\nprint('ready')\nfor line in sys.stdin: print(int(line) + 1)");
    assert_eq!(guest.ask("1"), "2");
    for _ in 0..20 {
        let tree = guest.freeze();
        assert_eq!(tree.processes().len(), 1);
        let root = tree.root();
        assert_eq!(
            (root.pid, root.state.clone(), root.threads.len()),
            (guest.pid(), State::Alive, 1)
        );
        assert_eq!(root.ppid, std::process::id() as i32);
        assert_eq!(state(guest.pid()), 't');
        assert!(root.threads[0].task().unwrap().regs().unwrap().rip != 0);
        tree.thaw().unwrap();
        assert_eq!(guest.ask("41"), "42");
    }
    assert_eq!(tracer(guest.pid()), 0);
}

#[test]
fn every_thread_is_frozen() {
    let guest = Guest::python(
        "import threading, time\n\
         def spin():\n while True: pass\n\
         for i in range(30): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
         for i in range(3): threading.Thread(target=spin, daemon=True).start()\n\
         print('ready')\ntime.sleep(1000)",
    );
    let tree = guest.freeze();
    assert_eq!(tree.root().threads.len(), 34);
    assert_eq!(tree.root().threads[0].tid, guest.pid());
    assert!(tree.threads().all(|thread| state(thread.tid) == 't'));
    let tids: Vec<_> = tree.threads().map(|thread| thread.tid).collect();
    drop(tree);
    assert!(tids.iter().all(|tid| tracer(*tid) == 0));
    eventually(|| tids.iter().all(|tid| matches!(state(*tid), 'S' | 'R')));
}

#[test]
fn parents_come_before_children() {
    // Each of three children has three children, and they are born by threads.
    let guest = Guest::python(
        "import os, threading, time\n\
         def child(depth):\n\
         \x20 if os.fork() == 0:\n\
         \x20  if depth: brood(depth - 1)\n\
         \x20  time.sleep(1000)\n\
         def brood(depth):\n\
         \x20 threads = [threading.Thread(target=lambda: (child(depth), time.sleep(1000)), daemon=True) for i in range(3)]\n\
         \x20 [thread.start() for thread in threads]\n\
         brood(1)\ntime.sleep(1)\nprint('ready')\ntime.sleep(1000)",
    );
    let tree = guest.freeze();
    let processes = tree.processes();
    assert_eq!(processes.len(), 13);
    for (index, process) in processes.iter().enumerate().skip(1) {
        let parent = processes
            .iter()
            .position(|other| other.pid.as_raw_pid() == process.ppid)
            .unwrap();
        assert!(parent < index);
        // Depth first: what is between a parent and its child descends from the parent.
        let between = &processes[parent + 1..index];
        assert!(between.iter().all(|other| {
            other.ppid == process.ppid
                || processes[parent + 1..index]
                    .iter()
                    .any(|p| p.pid.as_raw_pid() == other.ppid)
        }));
    }
    tree.thaw().unwrap();
}

#[test]
fn a_killed_tree_is_dead() {
    let mut guest = Guest::python(
        "import os, threading, time\n\
         for i in range(5): os.fork()\n\
         for i in range(5): threading.Thread(target=time.sleep, args=(1000,)).start()\n\
         time.sleep(.5)\nprint('ready')\ntime.sleep(1000)",
    );
    let tree = guest.freeze();
    let pids: Vec<_> = tree.processes().iter().map(|process| process.pid).collect();
    assert_eq!((pids.len(), tree.threads().count()), (32, 32 * 6));
    tree.kill().unwrap();
    assert!(pids.iter().all(|pid| matches!(state(*pid), 'Z' | '-')));
    // The root was ours to reap.
    assert_eq!(state(guest.pid()), '-');
    let _ = guest.child().try_wait();
}

#[test]
fn a_tree_can_be_left_stopped() {
    let mut guest = Guest::python(
        "import sys, threading, time\n\
         for i in range(8): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
         print('ready')\nfor line in sys.stdin: print(line)",
    );
    guest.freeze().leave_stopped().unwrap();
    assert_eq!(tracer(guest.pid()), 0);
    assert_eq!(state(guest.pid()), 'T');
    guest.signal(rustix::process::Signal::CONT);
    assert_eq!(guest.ask("on"), "on");
}

#[test]
fn seccomp_is_suspended_only_while_frozen() {
    // Strict mode: nothing but read, write and exit.
    let mut guest = Guest::python(
        "import ctypes, os\n\
         getppid = os.getppid\nread = os.read\nwrite = os.write\n\
         ctypes.CDLL(None).prctl(22, 1, 0, 0, 0)\n\
         write(1, b'ready\\n')\n\
         while True:\n\
         \x20 line = read(0, 64)\n\
         \x20 if line == b'break\\n': getppid()\n\
         \x20 write(1, line)",
    );
    let tree = guest.freeze();
    assert_eq!(
        tree.seccomp_suspended(),
        rustix::process::geteuid().is_root()
    );
    tree.thaw().unwrap();
    assert_eq!(guest.ask("on"), "on");
    guest.say("break");
    assert_eq!(guest.child().wait().unwrap().code(), None);
}
