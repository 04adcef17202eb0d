//! Every guest program carries tapes and then finds nothing wrong with itself.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use gelid_seize::Tree;
use gelid_sys::prctl::PR_GET_NAME;
use gelid_sys::proc;
use gelid_sys::syscall::nr;
use gelid_tape::{Arg, Carrier, Data, Op, Outcome, Tape, play_all};

use crate::guest::{Guest, names};
use crate::stage::Stage;

/// What a thread is asked about itself.
struct Questions {
    tape: Tape,
    pid: Op,
    name: Data,
    umask: Option<Op>,
}

impl Questions {
    /// `changes` lets it change something for a moment that the whole process has.
    fn new(changes: bool) -> Self {
        let mut tape = Tape::new();
        let name = tape.space(16);
        let pid = tape.must(nr::getpid, []);
        tape.must(nr::prctl, [PR_GET_NAME.into(), name.into()]);
        let stack = tape.space(24);
        tape.must(nr::sigaltstack, [Arg::Value(0), stack.into()]);
        let umask = changes.then(|| {
            let old = tape.must(nr::umask, [Arg::Value(0o77)]);
            tape.must(nr::umask, [old.into()])
        });
        Self {
            tape,
            pid,
            name,
            umask,
        }
    }

    fn check(&self, outcome: &Outcome, pid: i32, name: &[u8]) {
        assert_eq!(outcome.failure(), None);
        assert_eq!(outcome.played(), self.tape.len());
        assert_eq!(outcome.result(self.pid), i64::from(pid));
        let told = outcome.data(self.name);
        let len = told.iter().position(|byte| *byte == 0).unwrap();
        assert_eq!(&told[..len], name);
        if let Some(umask) = self.umask {
            assert_eq!(outcome.result(umask), 0o77);
        }
    }
}

/// Lets all threads of a frozen process carry a tape, twice.
fn carry(tree: &mut Tree, process: usize, turned: bool) {
    let mut stage = Stage::set(tree, process);
    let pid = tree.processes()[process].pid;
    let dir = proc::task_dir(pid).unwrap();
    // It has one in each pid namespace, and is told that of its own.
    let number = *proc::status::read(&dir).unwrap().ns_tgid.last().unwrap();
    for _ in 0..2 {
        let questions: Vec<_> = (0..stage.carriers.len())
            .map(|index| Questions::new(index == 0))
            .collect();
        let tapes = questions.iter().map(|questions| &questions.tape);
        let outcomes = play_all(stage.carriers.iter_mut().zip(tapes)).unwrap();
        for ((carrier, outcome), questions) in stage.carriers.iter().zip(&outcomes).zip(&questions)
        {
            let thread = dir.thread(Carrier::tid(carrier)).unwrap();
            let name = proc::status::read(&thread).unwrap().name;
            questions.check(outcome, number, &name);
        }
    }
    stage.strike(tree, process, turned);
}

/// Guests that cannot be frozen: one is traced already, and a parent in `vfork` stops only when its child lets it go. The
/// main threads of others have ended: under their ids there is nobody to talk to. One diverts the calls of any tape,
/// and one is content only after a dump. One has to be the first of a pid namespace, and one has to be told what is to
/// run below it. One runs 32-bit code, which no tape is made for: a dump refuses it before.
const LEFT_OUT: [&str; 11] = [
    "traced",
    "thread-leader-gone",
    "thread-leader-gone-status",
    "refused-leader-death",
    "vfork",
    "vfork-vm",
    "refused-dispatch",
    "tcp-closed",
    "last-pid",
    "below",
    "refused-32-bit",
];

fn through_tapes(name: &str) -> Result<(), String> {
    let Some(guest) = Guest::start(name) else {
        return Ok(());
    };
    for round in 0..3 {
        let mut tree = guest.root.freeze();
        for process in 0..tree.processes().len() {
            if tree.processes()[process].is_alive() {
                carry(&mut tree, process, round % 2 == 1);
            }
        }
        tree.thaw().map_err(|error| format!("{name}: {error}"))?;
        std::thread::sleep(Duration::from_millis(20));
    }
    match guest.verdict() {
        ok if ok == "ok" => Ok(()),
        wrong => Err(format!("{name}: {wrong}")),
    }
}

#[test]
fn no_guest_is_harmed_by_tapes() {
    let mut names: VecDeque<_> = names().into();
    names.retain(|name| !LEFT_OUT.contains(&name.as_str()));
    let names = Mutex::new(names);
    let one = std::env::var("GELID_TAPE_GUEST").ok();
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(name) = names.lock().unwrap().pop_front() else {
                        return;
                    };
                    if one.as_ref().is_some_and(|one| !name.contains(one)) {
                        continue;
                    }
                    let done = std::panic::catch_unwind(|| through_tapes(&name));
                    match done {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => wrong.lock().unwrap().push(error),
                        Err(_) => wrong.lock().unwrap().push(format!("{name}: panic")),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
