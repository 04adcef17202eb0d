//! Every phase of a dump and of a restore fails once, with trees that have much to be undone.

mod listed;

use crate::failures::{must_be_gone, must_be_untouched, must_fail, start};
use crate::trial;
use anyhow::{Context, Result, ensure};
use gelid_tests::{Engine, Outcome, Verdict};
use libtest_mimic::Trial;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Phases as `GELID_FAULT` names them.
const OF_DUMP: &[&str] = &[
    "freeze", "tree", "memory", "tasks", "files", "pages", "write", "commit", "finish",
];
const OF_RESTORE: &[&str] = &[
    "plan", "files", "births", "memory", "threads", "state", "release",
];

/// Guests, and options of their dumps.
const GUESTS: &[(&str, &[&str])] = &[
    ("threads", &[]),
    ("sharing-mixed", &[]),
    ("thread-leader-gone-status", &[]),
    ("sessions", &[]),
    ("session-leader-dead", &[]),
    ("zombies", &[]),
    ("stopped", &[]),
    ("deleted", &[]),
    ("deleted-directory", &[]),
    ("deleted-hard-linked", &["--link-remap"]),
    ("fifo-deleted", &[]),
    ("cwd-deleted", &[]),
    ("file-deleted", &[]),
    ("memfd-sealed", &[]),
    ("shared-anon", &[]),
    ("posix-timers", &[]),
    ("large-table", &["--file-locks"]),
    ("tcp-full", CONNECTED),
];

/// The option of dumps that restores need too.
const CONNECTED: &[&str] = &["--tcp-established"];

/// Options of a restore.
fn of_restore<'a>(of_dump: &[&'a str]) -> Vec<&'a str> {
    let both = of_dump.iter().filter(|option| CONNECTED.contains(option));
    both.copied().collect()
}

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let listed = listed::CONTAINERS.iter();
    let listed = listed.map(|container| {
        let name = format!("fault/listed-{}", container.name);
        trial(name, || listed::run(container))
    });
    let both = GUESTS.iter().flat_map(|(guest, options)| {
        [
            trial(format!("fault/dump-{guest}"), || dump(guest, options)),
            trial(format!("fault/restore-{guest}"), || restore(guest, options)),
        ]
    });
    both.chain(listed).collect()
}

/// The engine, unless it is CRIU, which has its own points of failure.
fn engine() -> Result<Option<Engine>> {
    Ok(Some(Engine::find()?).filter(|engine| !engine.is_criu()))
}

fn not_criu() -> Verdict {
    Verdict::Skipped("CRIU has other points of failure".into())
}

/// The command must have failed on purpose, and nowhere else.
fn must_fail_in(outcome: &Outcome, phase: &str) -> Result<()> {
    must_fail(outcome, phase)?;
    let text = format!("{}{}", outcome.output, outcome.log);
    let wanted = format!("phase {phase}");
    ensure!(text.contains(&wanted), "no {wanted:?} in:\n{text}");
    Ok(())
}

/// All files below a folder.
fn names(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(names(&entry.path())?);
        }
        found.insert(entry.path());
    }
    Ok(found)
}

/// Mounts in a folder.
fn mounts(dir: &Path) -> Result<Vec<String>> {
    let dir = dir.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounts = mounts.lines().filter(|line| line.contains(&dir));
    Ok(mounts.map(str::to_owned).collect())
}

/// A tree whose dump fails runs on, nothing is left of the dump, and it can still be dumped.
fn dump(name: &str, options: &[&str]) -> Result<Verdict> {
    let Some(engine) = engine()? else {
        return Ok(not_criu());
    };
    let mut guest = start(name, &[])?;
    // It may say that it is ready a little before the last of its tasks has come to rest.
    std::thread::sleep(Duration::from_millis(50));
    let before = guest.snapshot(&["sd"])?;
    let files = names(&guest.path())?;
    for end in ["", "--leave-running", "--leave-stopped"] {
        let options = [options, &[end][usize::from(end.is_empty())..]].concat();
        for phase in OF_DUMP {
            let told = || format!("fault in {phase} {end}");
            let images = guest.images(&format!("{phase}{end}"));
            let faulty = engine.failing_in(phase);
            let outcome = faulty.dump(guest.tree.root(), &images, &options)?;
            must_fail_in(&outcome, phase).with_context(told)?;
            must_be_untouched(&mut guest, &before, &[], &images).with_context(told)?;
            ensure!(names(&guest.path())? == files, "{}: files left", told());
        }
    }
    let images = guest.images("whole");
    engine
        .dump(guest.tree.root(), &images, options)?
        .expect("dump")?;
    guest.tree.await_death(Duration::from_secs(20))?;
    engine
        .restore(&images, &of_restore(options))?
        .expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}

/// Nothing is left of a restore that fails, and it can be done again.
fn restore(name: &str, options: &[&str]) -> Result<Verdict> {
    let Some(engine) = engine()? else {
        return Ok(not_criu());
    };
    let mut guest = start(name, &[])?;
    std::thread::sleep(Duration::from_millis(50));
    let images = guest.images("images");
    guest.tree.look();
    engine
        .dump(guest.tree.root(), &images, options)?
        .expect("dump")?;
    guest.tree.await_death(Duration::from_secs(20))?;
    let files = names(&guest.path())?;
    let mounts = mounts(&guest.path())?;
    for phase in OF_RESTORE {
        let told = || format!("fault in {phase}");
        let outcome = engine
            .failing_in(phase)
            .restore(&images, &of_restore(options))?;
        must_fail_in(&outcome, phase).with_context(told)?;
        must_be_gone(&guest).with_context(told)?;
        ensure!(names(&guest.path())? == files, "{}: files left", told());
        ensure!(
            self::mounts(&guest.path())? == mounts,
            "{}: mounts left",
            told()
        );
    }
    engine
        .restore(&images, &of_restore(options))?
        .expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}
