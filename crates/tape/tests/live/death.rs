//! The tracer is killed at any instant, while it plays tapes in a loop: its target never notices.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use gelid_seize::{Options, freeze};
use gelid_sys::syscall::nr;
use gelid_sys::wait::{Status, wait_task};
use gelid_sys::{proc, ptrace};
use gelid_tape::{Arg, Tape, play_all};
use rustix::process::Pid;

use crate::guest::{Guest, Python, Root, eventually};
use crate::stage::Stage;

/// Names the process to freeze, to this program run again as the tracer.
const VICTIM: &str = "GELID_TAPE_VICTIM";
/// Set if the tracer is to stay in the middle of it.
const STAYS: &str = "GELID_TAPE_STAYS";
/// What the tracer says before it plays, and, if it stays, when its victim carries a tape.
const BEGUN: &str = "begun";
const ABOARD: &str = "aboard";
/// Set if the tracer is to wait for a line when its victim is frozen, and to end after one round.
const COUNTED: &str = "GELID_TAPE_COUNTED";
/// What it says then, followed by its thread's id.
const FROZEN: &str = "frozen by ";

/// Does nothing as a test; run by the others it plays tapes until it is killed.
#[test]
fn tracer() {
    let Ok(victim) = std::env::var(VICTIM) else {
        return;
    };
    let pid = Pid::from_raw(victim.parse().unwrap()).unwrap();
    let mut tape = Tape::new();
    tape.must(nr::getpid, []);
    let stack = tape.space(24);
    tape.must(nr::sigaltstack, [Arg::Value(0), stack.into()]);
    let room = [0, 4096, 3, 0x22, u64::MAX, 0].map(Arg::Value);
    let mapped = tape.must(nr::mmap, room);
    tape.must(nr::munmap, [mapped.into(), Arg::Value(4096)]);
    let stays = std::env::var(STAYS).is_ok();
    let counted = std::env::var(COUNTED).is_ok();
    println!("{BEGUN}");
    loop {
        let mut tree = freeze(&Options::new(pid)).unwrap();
        if counted {
            println!("{}{}", FROZEN, rustix::thread::gettid());
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        for process in 0..tree.processes().len() {
            if !tree.processes()[process].is_alive() {
                continue;
            }
            let mut stage = Stage::set(&mut tree, process);
            let work = stage.carriers.iter_mut().map(|carrier| (carrier, &tape));
            let outcomes = play_all(work).unwrap();
            assert!(outcomes.iter().all(|outcome| outcome.failure().is_none()));
            if stays {
                println!("{ABOARD}");
                std::thread::sleep(Duration::from_secs(1000));
            }
            stage.strike(&mut tree, process, false);
        }
        tree.thaw().unwrap();
        if counted {
            std::process::exit(0);
        }
    }
}

/// Starts a tracer of the process, and waits until it says a word; the line with it.
fn trace(pid: Pid, until: &str) -> (Root, String) {
    let mut tracer = Command::new(std::env::current_exe().unwrap());
    let tracer = tracer.args(["--exact", "death::tracer", "--nocapture"]);
    let tracer = tracer.env(VICTIM, pid.to_string()).stdout(Stdio::piped());
    match until {
        ABOARD => drop(tracer.env(STAYS, "1")),
        FROZEN => drop(tracer.env(COUNTED, "1").stdin(Stdio::piped())),
        _ => {}
    }
    let mut tracer = Root(tracer.spawn().unwrap());
    let lines = BufReader::new(tracer.0.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    let line = lines.find(|line| line.contains(until)).unwrap();
    (tracer, line)
}

/// Starts a tracer of the process and kills it after a while.
fn trace_and_die(pid: Pid, after: Duration) {
    let (mut tracer, _) = trace(pid, BEGUN);
    std::thread::sleep(after);
    assert_eq!(tracer.0.try_wait().unwrap(), None, "the tracer failed");
    tracer.0.kill().unwrap();
    tracer.0.wait().unwrap();
}

/// Instants that lie everywhere in the loop, the same in each run.
fn instants() -> impl Iterator<Item = Duration> {
    let mut state = 0x9e37_79b9_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        Duration::from_micros((state >> 33) % 5000)
    })
}

#[test]
fn the_target_never_notices() {
    // They check memory, arithmetic, mask and clock, general registers, vector registers, and sections that
    // are aborted; `steady` has two processes that talk to each other.
    let names = [
        "steady",
        "registers",
        "flags",
        "avx512",
        "rseq-critical",
        "sigmasks",
        "dispatch",
        "key-read-only",
    ];
    let guests: Vec<_> = names
        .iter()
        .filter_map(|name| Some((name, Guest::start(name)?)))
        .collect();
    for (round, after) in instants().take(240).enumerate() {
        let (name, guest) = &guests[round % guests.len()];
        trace_and_die(guest.root.pid(), after);
        let ended = gelid_sys::proc::task_dir(guest.root.pid()).is_err();
        assert!(!ended, "{name} ended in round {round}");
    }
    for (name, guest) in guests {
        assert_eq!(guest.verdict(), "ok", "{name}");
    }
}

#[test]
fn calls_that_wait_go_on_waiting() {
    // Each waits for two seconds in all, and says how long it was; deaths must not make it longer.
    for name in [
        "blocked-nanosleep",
        "blocked-poll",
        "blocked-futex-timeout",
        "blocked-pipe-read",
    ] {
        let guest = Guest::start(name).unwrap();
        for after in instants().take(6) {
            trace_and_die(guest.root.pid(), after);
        }
        assert_eq!(guest.verdict(), "ok", "{name}");
    }
}

#[test]
fn a_signal_meanwhile_ends_the_call_that_waits_for_one() {
    /// How `/proc/PID/syscall` begins in `pause(2)`.
    const PAUSES: &str = "34 ";
    let mut guest = Python::start(
        "import ctypes, signal\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         seen = []\n\
         signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))\n\
         print('ready')\n\
         while True:\n\
         \x20 done = libc.pause()\n\
         \x20 print(done, ctypes.get_errno(), len(seen))",
    );
    let call = format!("/proc/{}/syscall", guest.pid());
    for round in 1..=5 {
        // A signal that comes before the call does not end it.
        eventually(|| std::fs::read_to_string(&call).is_ok_and(|text| text.starts_with(PAUSES)));
        let (mut tracer, _) = trace(guest.pid(), ABOARD);
        guest.signal(rustix::process::Signal::USR1);
        tracer.0.kill().unwrap();
        assert_eq!(guest.line(), format!("-1 4 {round}"));
    }
}

/// Lets the tracer go on from where its victim is frozen, and kills it at the `steps`th system call stop of
/// its thread. False if it has come to its end before.
fn die_at(pid: Pid, steps: usize) -> bool {
    let (mut tracer, line) = trace(pid, FROZEN);
    let (_, tid) = line.split_once(FROZEN).unwrap();
    let tid = Pid::from_raw(tid.trim().parse().unwrap()).unwrap();
    let running = ptrace::seize(tid, ptrace::Options::TRACESYSGOOD).unwrap();
    running.interrupt().unwrap();
    while !matches!(wait_task(tid).unwrap(), Status::EventStop(_)) {}
    let mut running = running.stopped().cont_to_syscall().unwrap();
    writeln!(tracer.0.stdin.take().unwrap(), "go on").unwrap();
    let mut seen = 0;
    while seen < steps {
        let status = wait_task(tid).unwrap();
        if status.is_dead() {
            // It gives up where a thread is still on its way back from the one before.
            return !tracer.0.wait().unwrap().success();
        }
        seen += usize::from(status == Status::SyscallStop);
        if seen < steps {
            running = running.stopped().cont_to_syscall().unwrap();
        }
    }
    tracer.0.kill().unwrap();
    while !wait_task(tid).unwrap().is_dead() {}
    true
}

/// The blocked signals of all threads, none while somebody traces them.
fn masks(pid: Pid) -> Option<Vec<u64>> {
    let task = proc::task_dir(pid).unwrap();
    let mut masks = Vec::new();
    for thread in proc::tasks::threads(&task).unwrap() {
        let status = proc::status::read(&task.thread(thread).unwrap()).unwrap();
        if status.tracer_pid != 0 {
            return None;
        }
        masks.push(status.sig_blocked);
    }
    Some(masks)
}

#[test]
fn every_step_of_the_tracer_may_be_its_last() {
    for name in ["registers", "dispatch"] {
        let Some(guest) = Guest::start(name) else {
            continue;
        };
        let pid = guest.root.pid();
        // A thread that has just been born blocks all signals.
        let has_begun = |mask: &u64| mask.count_zeros() > 4;
        eventually(|| masks(pid).is_some_and(|masks| masks.iter().all(has_begun)));
        let before = masks(pid);
        let mut steps = 1;
        while die_at(pid, steps) {
            eventually(|| masks(pid) == before);
            steps += 1;
        }
        assert!(steps > 100, "{steps} steps");
        assert_eq!(guest.verdict(), "ok", "{name}");
    }
}
