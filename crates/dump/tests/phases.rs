//! Whatever phase of a dump fails, the tree runs on as before and there are no images.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use gelid_dump::{End, Error, Options, Phase, Refusal, dump};
use gelid_image::messages::PstreeEntry;
use gelid_image::{Dir, ImageKind, manifest};
use gelid_pages::Format;
use rustix::process::Pid;

/// A shell with two children in a session of its own, one of them a zombie.
struct Guest(Child);

impl Guest {
    fn start() -> Self {
        let script = "sleep 1000 & true & trap '' TERM; while :; do sleep 0.02; done";
        let mut command = Command::new("setsid");
        let child = command.args(["bash", "-c", script]).spawn().unwrap();
        let guest = Self(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !guest.stat("comm").contains("bash") || guest.stat("task/main/children").is_empty() {
            assert!(Instant::now() < deadline, "the shell has not started");
            std::thread::sleep(Duration::from_millis(1));
        }
        guest
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn stat(&self, file: &str) -> String {
        let file = file.replace("main", &self.0.id().to_string());
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let children = self.stat("task/main/children");
        for pid in children.split_whitespace() {
            let pid = pid.parse().ok().and_then(Pid::from_raw);
            let _ = rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn options(guest: &Guest, dir: &tempfile::TempDir) -> Options {
    Options::new(guest.pid(), Dir::open(dir.path()).unwrap())
}

#[test]
fn a_fault_in_any_phase_leaves_the_tree_and_no_images() {
    let guest = Guest::start();
    for end in [End::Kill, End::Run, End::Stop] {
        for phase in Phase::ALL {
            let images = tempfile::tempdir().unwrap();
            let mut options = options(&guest, &images);
            options.end = end;
            options.fault = Some(phase);
            let error = dump(&options).unwrap_err();
            assert!(
                matches!(error, Error::Fault { phase: failed } if failed == phase),
                "{error}"
            );
            let left = fs::read_dir(images.path()).unwrap().count();
            assert_eq!(left, 0, "{phase}: files are left");
            let status = guest.stat("status");
            assert!(status.contains("TracerPid:\t0\n"), "{phase}: {status}");
            assert!(!status.contains("State:\tT"), "{phase}: {status}");
        }
    }
}

#[test]
fn a_tree_that_runs_on_has_images_all_the_same() {
    let guest = Guest::start();
    let images = tempfile::tempdir().unwrap();
    let mut options = options(&guest, &images);
    options.end = End::Run;
    options.pages.format = Format::Raw;
    let outcome = dump(&options).unwrap();
    assert!(guest.stat("status").contains("TracerPid:\t0\n"));
    assert!(outcome.pages > 0 && outcome.raw_bytes == outcome.packed_bytes);
    let dir = Dir::open(images.path()).unwrap();
    assert_eq!(manifest::verify(&dir).unwrap(), []);
    let tree: Vec<PstreeEntry> = dir.read_all(ImageKind::Pstree, ()).unwrap();
    assert_eq!(tree.len() as u64, outcome.tasks);
    assert_eq!((tree[0].ppid, tree[1].ppid), (0, tree[0].pid));
}

#[test]
fn a_tree_may_be_left_stopped_or_dead() {
    let mut guest = Guest::start();
    let images = tempfile::tempdir().unwrap();
    let mut options = options(&guest, &images);
    options.end = End::Stop;
    dump(&options).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !guest.stat("status").contains("State:\tT") {
        assert!(Instant::now() < deadline, "it has not stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    options.end = End::Kill;
    dump(&options).unwrap();
    // The dump has reaped its own child.
    assert!(!fs::exists(format!("/proc/{}", guest.0.id())).unwrap());
    guest.0 = Command::new("sleep").arg("1000").spawn().unwrap();
}

#[test]
fn a_job_of_a_shell_is_refused_before_it_is_frozen() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let images = tempfile::tempdir().unwrap();
    let dir = Dir::open(images.path()).unwrap();
    let refused = dump(&Options::new(Pid::from_child(&child), dir));
    child.kill().unwrap();
    child.wait().unwrap();
    let error = refused.unwrap_err();
    assert!(
        matches!(error, Error::Refused(Refusal::ShellJob { .. })),
        "{error}"
    );
}
