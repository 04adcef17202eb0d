//! What has ended.

use gelid_seize::{Error, Options, State, freeze};

use crate::guest::{Guest, eventually, state, tracer};

#[test]
fn zombies_are_found_with_their_status() {
    let guest = Guest::python(
        "import os, signal, time\n\
         def child(f):\n\
         \x20 pid = os.fork()\n\
         \x20 if pid == 0: f()\n\
         child(lambda: os._exit(7))\n\
         child(lambda: os.kill(os.getpid(), signal.SIGTERM))\n\
         child(lambda: (os.setsid(), os._exit(0)))\n\
         time.sleep(.3)\nprint('ready')\ntime.sleep(1000)",
    );
    for _ in 0..3 {
        let tree = guest.freeze();
        let mut zombies = Vec::new();
        for process in &tree.processes()[1..] {
            assert_eq!(process.ppid, guest.pid().as_raw_pid());
            assert!(process.threads.is_empty() && !process.is_alive());
            let State::Zombie(zombie) = &process.state else {
                panic!("{process:?}")
            };
            assert_eq!(zombie.comm, b"python3");
            zombies.push((zombie.exit_status, zombie.sid == process.pid.as_raw_pid()));
        }
        assert_eq!(zombies, [(7 << 8, false), (15, false), (0, true)]);
        tree.thaw().unwrap();
    }
}

#[test]
fn a_process_is_frozen_without_its_main_thread() {
    let guest = Guest::python(
        "import ctypes, threading, time\n\
         def work():\n\
         \x20 time.sleep(.2)\n\
         \x20 print('ready')\n\
         \x20 time.sleep(1000)\n\
         threading.Thread(target=work).start()\n\
         ctypes.CDLL(None).syscall(60, 7)",
    );
    assert_eq!(state(guest.pid()), 'Z');
    for _ in 0..3 {
        let tree = guest.freeze();
        let root = tree.root();
        assert_eq!(root.pid, guest.pid());
        assert_eq!(root.state, State::Alive);
        assert_eq!(root.ended_leader, Some(7 << 8));
        let [thread] = &root.threads[..] else {
            panic!("{root:?}")
        };
        assert_ne!(thread.tid, root.pid);
        assert_eq!(root.living(), thread.tid);
        let maps = gelid_sys::proc::maps::read(&root.dir().unwrap()).unwrap();
        assert!(!maps.is_empty());
        tree.thaw().unwrap();
    }
    let tids = std::fs::read_dir(format!("/proc/{}/task", guest.pid())).unwrap();
    for tid in tids.map(|entry| {
        entry
            .unwrap()
            .file_name()
            .into_string()
            .unwrap()
            .parse()
            .unwrap()
    }) {
        let tid = rustix::process::Pid::from_raw(tid).unwrap();
        assert_eq!(tracer(tid), 0);
        eventually(|| matches!(state(tid), 'S' | 'Z'));
    }
}

#[test]
fn a_zombie_root_is_refused() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    eventually(|| state(pid) == 'Z');
    assert!(matches!(
        freeze(&Options::new(pid)),
        Err(Error::RootIsZombie { .. })
    ));
    child.wait().unwrap();
    assert!(matches!(
        freeze(&Options::new(pid)),
        Err(Error::Gone { .. })
    ));
}
