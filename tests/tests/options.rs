//! What options of the two commands do beside a dump and a restore.

mod around;
mod earlier;
mod equal;
mod tables;

use crate::failures::{must_be_gone, must_fail, start};
use crate::trial;
use anyhow::{Context, Result, ensure};
use gelid_tests::{Engine, Guest, Running, Verdict, run_to_end};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// A test with a name.
type Test = (&'static str, fn() -> Result<Verdict>);

const TESTS: &[Test] = &[
    ("exec-cmd", exec_cmd),
    ("leave-stopped", leave_stopped),
    ("file-validation", file_validation),
    ("restore-sibling", restore_sibling),
    ("dump-from-inside", dump_from_inside),
];

/// So long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let tests = TESTS.iter().chain(around::TESTS);
    let tests = tests
        .chain(earlier::TESTS)
        .chain(equal::TESTS)
        .chain(tables::TESTS);
    let tests = tests.map(|(name, body)| trial(format!("option/{name}"), body));
    tests.collect()
}

fn until(what: &str, mut test: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !test() {
        ensure!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The state and the parent of a process.
fn stat(pid: i32) -> Option<(String, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    let state = words.next()?.to_owned();
    Some((state, words.next()?.parse().ok()?))
}

/// A guest that was dumped and is gone.
fn dumped(name: &str, options: &[&str]) -> Result<Guest> {
    let mut guest = start(name, &[])?;
    guest.tree.look();
    let images = guest.images("images");
    Engine::find()?
        .dump(guest.tree.root(), &images, options)?
        .expect("dump")?;
    guest.tree.await_death(LIMIT)?;
    Ok(guest)
}

/// The program that is executed instead of the restorer is the parent of the tree.
fn exec_cmd() -> Result<Verdict> {
    let mut guest = dumped("tree-deep", &[])?;
    let (images, root) = (guest.images("images"), guest.tree.root());
    let words = ["--exec-cmd", "--", "sleep", "1000"];
    let mut program = Engine::find()?.start("restore", &images, &words)?;
    let name = format!("/proc/{}/comm", program.pid());
    until("the program", || {
        fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n")
    })?;
    let (state, parent) = stat(root).context("no root")?;
    ensure!(parent == program.pid(), "child of {parent}");
    ensure!(state != "T" && state != "t", "it is in state {state}");
    program.kill()?;
    guest.check()?;
    Ok(Verdict::Passed)
}

/// The tree stands still, and goes on when it is told to.
fn leave_stopped() -> Result<Verdict> {
    let mut guest = start("tree-deep", &[])?;
    let pids = guest.tree.look();
    let images = guest.images("images");
    Engine::find()?
        .dump(guest.tree.root(), &images, &["--leave-stopped"])?
        .expect("dump")?;
    let is_in =
        |pid: &i32, wanted: bool| stat(*pid).is_some_and(|(state, _)| (state == "T") == wanted);
    for wanted in [true, false] {
        until("stopped, or not", || {
            pids.iter().all(|pid| is_in(pid, wanted))
        })?;
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            kill_process(pid, Signal::CONT)?;
        }
    }
    guest.check()?;
    Ok(Verdict::Passed)
}

/// A file of another length is refused, whichever way files are compared.
fn file_validation() -> Result<Verdict> {
    let engine = Engine::find()?;
    for method in ["filesize", "buildid"] {
        let method = ["--file-validation", method];
        let mut guest = dumped("dup", &method)?;
        let (images, file) = (guest.images("images"), guest.path().join("data"));
        let bytes = fs::read(&file)?;
        fs::write(&file, "longer than it was by much")?;
        must_fail(&engine.restore(&images, &method)?, "another length")?;
        must_be_gone(&guest)?;
        fs::write(&file, &bytes)?;
        engine.restore(&images, &method)?.expect("restore")?;
        guest.check()?;
    }
    must_fail(
        &engine.restore(&std::env::temp_dir(), &["--file-validation", "hope"])?,
        "an unknown method",
    )?;
    Ok(Verdict::Passed)
}

/// The root is a child of whoever has started the restorer, here a shell.
fn restore_sibling() -> Result<Verdict> {
    let mut guest = dumped("tree-deep", &[])?;
    let (images, root) = (guest.images("images"), guest.tree.root());
    let mut words = Command::new("sh");
    let script = r#""$@" && touch restored && exec sleep 1000"#;
    words.current_dir(&images).args(["-c", script, "sh"]);
    words.arg(Engine::find()?.program());
    words.args(["restore", "-d", "--restore-sibling", "-o", "restore.log"]);
    let mut shell = Running::start(&mut words)?;
    until("the restore", || images.join("restored").exists())?;
    let (_, parent) = stat(root).context("no root")?;
    ensure!(parent == shell.pid(), "child of {parent}");
    shell.kill()?;
    guest.check()?;
    Ok(Verdict::Passed)
}

/// A tree that has the dumper in it, as a child of the root or further down, is refused, and runs on.
fn dump_from_inside() -> Result<Verdict> {
    let program = Engine::find()?.program().to_owned();
    for script in [
        r#""$1" dump -t $$ -D . --shell-job; echo code $?"#,
        r#"root=$$; (sh -c '"$1" dump -t $0 -D . --shell-job' $root "$1"; echo code $?); :"#,
    ] {
        let images = tempfile::tempdir()?;
        let mut shell = Command::new("sh");
        shell.current_dir(&images).args(["-c", script, "sh"]);
        let done = run_to_end(shell.arg(&program))?;
        let (said, told) = [&done.stdout, &done.stderr]
            .map(|text| String::from_utf8_lossy(text))
            .into();
        ensure!(
            said.contains("code 1") && done.status.success(),
            "{script}: {done:?}"
        );
        ensure!(
            told.contains("contains the freezing process"),
            "{script}: {told}"
        );
        ensure!(!images.path().join("inventory.img").exists(), "{script}");
    }
    Ok(Verdict::Passed)
}
