//! Trees that fork, clone, exec and exit at full speed.

use std::time::{Duration, Instant};

use gelid_seize::{Tree, freeze};
use gelid_sys::Pid;
use gelid_sys::proc::tasks::threads;
use gelid_sys::proc::{TaskDir, stat};

use crate::guest::{Guest, state};

/// The frozen tree is complete: nothing in it runs, and no process or thread belongs to it that it lacks.
fn is_complete(tree: &Tree) {
    for process in tree.processes().iter().filter(|process| process.is_alive()) {
        let is_held = |tid: &Pid| process.threads.iter().any(|thread| thread.tid == *tid);
        let listed = threads(&TaskDir::open(process.pid).unwrap()).unwrap();
        let mut others = listed.into_iter().filter(|tid| !is_held(tid));
        let runs = others.find(|tid| !is_on_its_way_out(process.pid, *tid));
        assert_eq!(runs, None, "{process:?}");
        for thread in &process.threads {
            assert_eq!(state(thread.tid), 't');
            assert!(thread.task().unwrap().sigmask().is_ok());
            let children = format!("/proc/{}/task/{}/children", process.pid, thread.tid);
            for child in std::fs::read_to_string(children)
                .unwrap()
                .split_whitespace()
            {
                let pid: i32 = child.parse().unwrap();
                assert!(
                    tree.processes()
                        .iter()
                        .any(|other| other.pid.as_raw_pid() == pid),
                    "{pid} is missing"
                );
            }
        }
    }
}

/// Whether a thread is in its end, from which nothing brings it back, or is gone. It is listed until it is done.
fn is_on_its_way_out(pid: Pid, tid: Pid) -> bool {
    const PF_EXITING: u32 = 4;
    let stat = TaskDir::open(pid).and_then(|task| stat::read(&task.thread(tid)?));
    stat.map_or(true, |stat| stat.flags & PF_EXITING != 0)
}

/// Freezes and thaws again and again; prints the longest time it took.
fn hunt(name: &str, guest: &Guest, rounds: u32) {
    let mut longest = Duration::ZERO;
    let (mut listings, mut seized, mut vforks, mut found) = (0, 0, 0, 0);
    for _ in 0..rounds {
        let start = Instant::now();
        let options = gelid_seize::Options::new(guest.pid());
        let tree = freeze(&options).unwrap_or_else(|error| panic!("{name}: {error}"));
        longest = longest.max(start.elapsed());
        let stats = tree.stats();
        listings = listings.max(stats.rounds);
        seized += stats.seized;
        vforks += stats.vforks;
        found += tree.threads().count();
        is_complete(&tree);
        tree.thaw().unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    println!(
        "{name}: longest {longest:?}, {listings} listings, {seized} seized, {found} held, {vforks} vforks"
    );
}

#[test]
fn a_shell_that_forks() {
    let guest = Guest::spawn(
        std::process::Command::new("bash")
            .args(["-c", "while :; do (:) & (: | :) ; done 2> /dev/null"]),
    );
    std::thread::sleep(Duration::from_millis(50));
    hunt("shell", &guest, 100);
}

#[test]
fn a_tree_that_forks_exits_and_reaps() {
    let guest = Guest::perl(
        "$SIG{CHLD} = 'IGNORE'; print qq(ready\\n); for (1..3) { fork } \
         while (1) { if (!fork) { fork; fork; exit 0 } }",
    );
    hunt("forks", &guest, 100);
}

#[test]
fn a_chain_of_threads() {
    // Each thread starts the next and ends.
    let guest = Guest::python(
        "import _thread, time\n\
         def chain(): _thread.start_new_thread(chain, ())\n\
         for i in range(4): chain()\n\
         print('ready')\ntime.sleep(1000)",
    );
    hunt("chain of threads", &guest, 100);
}

#[test]
fn a_chain_of_processes_under_a_reaper() {
    let guest = Guest::python(
        "import ctypes, os, sys\n\
         ctypes.CDLL(None).prctl(36, 1)\n\
         print('ready')\n\
         if os.fork() == 0:\n\
         \x20 while True:\n\
         \x20  if os.fork(): os._exit(0)\n\
         while True: os.wait()",
    );
    hunt("chain of processes", &guest, 100);
}

#[test]
fn spawning_at_full_speed() {
    // posix_spawn is vfork and execve.
    let guest = Guest::python(
        "import os, threading\n\
         def work():\n\
         \x20 while True: os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)\n\
         for i in range(3): threading.Thread(target=work, daemon=True).start()\n\
         print('ready')\nwork()",
    );
    hunt("spawns", &guest, 100);
}

#[test]
fn threads_that_exec() {
    // A thread that is not the main one calls execve, again and again.
    let guest = Guest::spawn(std::process::Command::new("python3").args([
        "-S",
        "-E",
        "-c",
        "import os, sys, threading\n\
         print('ready', flush=True)\n\
         def go(): os.execv('/proc/self/exe', sys.orig_argv)\n\
         threading.Thread(target=go).start()\n\
         threading.Thread(target=lambda: sum(range(10**6))).start()",
    ]));
    std::thread::sleep(Duration::from_millis(100));
    hunt("execs", &guest, 150);
}

#[test]
fn spawning_two_deep() {
    let guest = Guest::python(
        "import os, threading\n\
         inner = 'import os\\nfor i in range(3): os.waitpid(os.posix_spawn(\"/bin/true\", [\"true\"], {}), 0)'\n\
         def work():\n\
         \x20 while True: os.waitpid(os.posix_spawn('/usr/bin/env', ['env', 'python3', '-S', '-c', inner], os.environ), 0)\n\
         for i in range(2): threading.Thread(target=work, daemon=True).start()\n\
         print('ready')\nwork()",
    );
    hunt("spawns in spawns", &guest, 60);
}
