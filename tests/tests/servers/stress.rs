//! Sets of stressors of stress-ng, which check their own work (`--verify`) and are asked to end after all rounds.

use super::{LIMIT, format, until};
use anyhow::{Context, Result, ensure};
use gelid_tests::{Engine, Tree, Verdict, rounds, succeeds};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Stressors that run at the same time, by what they are about.
pub(super) const SETS: &[(&str, &[&str])] = &[
    (
        "memory",
        &[
            "vm",
            "mmap",
            "mremap",
            "memfd",
            "stack",
            "vm-splice",
            "malloc",
        ],
    ),
    (
        "waiting",
        &[
            "pipe",
            "switch",
            "poll",
            "fifo",
            "eventfd",
            "sem",
            "futex",
            "mq",
            "ring-pipe",
            "sigfd",
        ],
    ),
    (
        "time",
        &["timer", "timerfd", "itimer", "nanosleep", "sigq", "sleep"],
    ),
    (
        "files",
        &["flock", "lockf", "lockofd", "rename", "dup", "utime"],
    ),
    (
        "computing",
        &[
            "cpu", "qsort", "matrix", "hash", "vecmath", "str", "zlib", "context",
        ],
    ),
];

/// Goes round with one set.
pub(super) fn run((name, stressors): &(&str, &[&str])) -> Result<Verdict> {
    const OPTIONS: &[&str] = &["--file-locks", "--tcp-established", "--ghost-limit=1G"];
    if !succeeds(Command::new("stress-ng").arg("--version")) {
        return Ok(Verdict::Skipped("stress-ng is not installed".into()));
    }
    let dir = tempfile::Builder::new().prefix("gelid-stress.").tempdir()?;
    let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let mut tree = start(dir.path(), stressors)?;
    until(|| tree.look().len() > stressors.len()).with_context(log)?;
    let engine = Engine::find()?;
    for round in 1..=rounds() as u64 {
        // They do something between two rounds.
        std::thread::sleep(Duration::from_millis(100));
        let images = dir.path().join(format!("images-{round}"));
        tree.look();
        let options = [OPTIONS, &[format(round)]].concat();
        engine
            .dump(tree.root(), &images, &options)?
            .expect("dump")?;
        tree.await_death(LIMIT)?;
        let restored = engine.restore(&images, OPTIONS)?;
        restored.expect("restore").with_context(log)?;
        fs::remove_dir_all(&images)?;
    }
    std::thread::sleep(Duration::from_millis(100));
    let root = Pid::from_raw(tree.root()).context("no root")?;
    kill_process(root, Signal::INT)?;
    let code = tree.await_root(LIMIT).with_context(log)?;
    ensure!(code == 0, "{name}: status {code:#x}\n{}", log());
    Ok(Verdict::Passed)
}

fn start(dir: &Path, stressors: &[&str]) -> Result<Tree> {
    let log = File::create(dir.join("log"))?;
    let mut command = Command::new("setsid");
    command.args(["stress-ng", "--verify", "--timeout", "1h", "--temp-path"]);
    command.arg(dir);
    command.args([
        "--vm-bytes",
        "16m",
        "--mmap-bytes",
        "8m",
        "--mremap-bytes",
        "4m",
    ]);
    command.args([
        "--memfd-bytes",
        "8m",
        "--malloc-bytes",
        "16m",
        "--vm-splice-bytes",
        "1m",
    ]);
    for stressor in stressors {
        command.arg(format!("--{stressor}")).arg("1");
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?);
    let child = command.stderr(log).current_dir("/").spawn()?;
    Ok(Tree::new(child.id().cast_signed()))
}
