//! Freezing by way of a cgroup's freezer, of both versions where the machine has them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gelid_seize::{CgroupError, Error, Options, State, freeze};
use rustix::process::{Pid, Signal};

use crate::guest::{Guest, eventually, state};

/// A cgroup of its own, removed at the end.
struct Group {
    path: PathBuf,
    is_v1: bool,
}

impl Group {
    /// One of each version that can be made here.
    fn all() -> Vec<Self> {
        let mut groups = Vec::new();
        for base in [
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/freezer",
        ] {
            let path = Path::new(base).join(format!("gelid-seize-{}", rustix::thread::gettid()));
            let _ = std::fs::remove_dir(&path);
            if std::fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self {
                is_v1: path.join("freezer.state").exists(),
                path,
            };
            if group.is_v1 || group.path.join("cgroup.freeze").exists() {
                groups.push(group);
            }
        }
        if groups.is_empty() {
            eprintln!("no cgroup can be made here");
        }
        groups
    }

    fn enter(&self, guest: &Guest) {
        std::fs::write(self.path.join("cgroup.procs"), guest.pid().to_string()).unwrap();
    }

    fn freeze(&self, yes: bool) {
        let (file, text) = match (self.is_v1, yes) {
            (true, true) => ("freezer.state", "FROZEN"),
            (true, false) => ("freezer.state", "THAWED"),
            (false, true) => ("cgroup.freeze", "1"),
            (false, false) => ("cgroup.freeze", "0"),
        };
        std::fs::write(self.path.join(file), text).unwrap();
    }

    fn is_frozen(&self) -> bool {
        let read = |file| std::fs::read_to_string(self.path.join(file)).unwrap();
        if self.is_v1 {
            read("freezer.state").trim() == "FROZEN"
        } else {
            read("cgroup.events").contains("frozen 1")
        }
    }

    fn options(&self, guest: &Guest) -> Options {
        Options {
            freeze_cgroup: Some(self.path.clone()),
            ..Options::new(guest.pid())
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        while self.path.exists() && std::fs::remove_dir(&self.path).is_err() && Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const FORKS: &str = "$SIG{CHLD} = 'IGNORE'; print qq(ready\\n); <STDIN>; \
    for (1..2) { fork } while (1) { if (!fork) { fork; exit 0 } }";
const ECHO: &str = "import sys\nprint('ready')\nfor line in sys.stdin: print(line.strip())";

#[test]
fn a_storm_is_held_by_its_cgroup() {
    for group in Group::all() {
        let mut guest = Guest::perl(FORKS);
        group.enter(&guest);
        guest.say("go");
        std::thread::sleep(Duration::from_millis(20));
        for _ in 0..20 {
            let tree = freeze(&group.options(&guest)).unwrap();
            assert!(!group.is_frozen());
            assert!(tree.threads().all(|thread| state(thread.tid) == 't'));
            tree.thaw().unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn what_was_found_frozen_is_frozen_again() {
    for group in Group::all() {
        let mut guest = Guest::python(ECHO);
        group.enter(&guest);
        group.freeze(true);
        eventually(|| group.is_frozen());
        for _ in 0..3 {
            let tree = freeze(&group.options(&guest)).unwrap();
            assert!(!group.is_frozen());
            assert!(tree.root().threads[0].task().unwrap().regs().is_ok());
            tree.thaw().unwrap();
            eventually(|| group.is_frozen());
        }
        group.freeze(false);
        assert_eq!(guest.ask("on"), "on");
    }
}

#[test]
fn a_stopped_process_in_a_frozen_cgroup_stays_stopped() {
    for group in Group::all() {
        let mut guest = Guest::python(ECHO);
        guest.signal(Signal::STOP);
        eventually(|| state(guest.pid()) == 'T');
        group.enter(&guest);
        group.freeze(true);
        eventually(|| group.is_frozen());
        let tree = freeze(&group.options(&guest)).unwrap();
        assert_eq!(
            tree.root().state,
            State::Stopped {
                signal: Signal::STOP.as_raw()
            }
        );
        tree.thaw().unwrap();
        eventually(|| group.is_frozen());
        group.freeze(false);
        eventually(|| state(guest.pid()) == 'T');
        guest.signal(Signal::CONT);
        assert_eq!(guest.ask("on"), "on");
    }
}

#[test]
fn a_failure_restores_the_cgroup() {
    for group in Group::all() {
        for frozen in [false, true] {
            let mut guest = Guest::perl(
                "print qq(ready\n); <STDIN>; my $pid = fork; sleep 1000 unless $pid; print qq($pid\n); \
                 while (<STDIN>) { print }",
            );
            group.enter(&guest);
            let child = Pid::from_raw(guest.ask("fork").parse().unwrap()).unwrap();
            let tracer = std::thread::spawn(move || {
                gelid_sys::ptrace::seize(child, gelid_sys::ptrace::Options::empty()).unwrap();
                std::thread::park();
            });
            eventually(|| crate::guest::tracer(child) != 0);
            group.freeze(frozen);
            eventually(|| group.is_frozen() == frozen);
            let error = freeze(&group.options(&guest)).unwrap_err();
            assert!(
                matches!(error, Error::Traced { tid, .. } if tid == child),
                "{error}"
            );
            eventually(|| group.is_frozen() == frozen);
            tracer.thread().unpark();
            tracer.join().unwrap();
            group.freeze(false);
            assert_eq!(guest.ask("on"), "on");
        }
    }
}

#[test]
fn a_group_with_the_caller_in_it_is_refused() {
    let guest = Guest::python(ECHO);
    for base in [
        "/sys/fs/cgroup/freezer",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup",
        "/proc",
    ] {
        let options = Options {
            freeze_cgroup: Some(base.into()),
            ..Options::new(guest.pid())
        };
        let error = freeze(&options).unwrap_err();
        let expected = matches!(
            error,
            Error::Cgroup(CgroupError::NoFreezer { .. } | CgroupError::ContainsSelf { .. })
        );
        assert!(expected, "{error}");
    }
}
