//! Instructions of pure work, by callgrind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::compare::target::{Program, Running};
use crate::process::{self, as_root, run};
use crate::workspace;

/// Work of the program `counted`.
const WORK: [&str; 4] = ["encode", "decode", "pages", "checksums"];
/// Processes of the tree that is planned.
const TREE: &str = "100";

/// What is counted and what is measured beside the kernel, built as it is released.
pub(super) struct Built {
    /// The folder of the executables.
    folder: PathBuf,
}

impl Built {
    const PROFILE: &str = "measured";

    pub(super) fn new() -> Result<Self> {
        let mut cargo = workspace::cargo();
        cargo.args(["build", "--quiet", "--locked", "--profile", Self::PROFILE]);
        cargo.args(["-p", "gelid-benches", "--bin", "counted"]);
        cargo.args(["-p", "gelid", "--bin", "gelid"]);
        cargo.args(["-p", "gelid-guests", "--bin", "gelid-guest"]);
        run(&mut cargo)?;
        let target = workspace::members(&workspace::root().join("Cargo.toml"))?.target_directory;
        Ok(Self {
            folder: target.join(Self::PROFILE),
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Instructions of everything, by its name.
pub(super) fn all(built: &Built) -> Result<BTreeMap<String, u64>> {
    let scratch = tempfile::tempdir()?;
    let counted = built.path("counted");
    let start = count(&counted, &["start"], scratch.path())?;
    let mut all = BTreeMap::new();
    for work in WORK {
        let count = count(&counted, &[work], scratch.path())?;
        all.insert(work.to_owned(), count.saturating_sub(start));
    }
    let images = tree(built, scratch.path())?;
    let plan = count(&counted, &["plan", &images], scratch.path())?;
    all.insert("plan".to_owned(), plan.saturating_sub(start));
    Ok(all)
}

/// Instructions of one run.
fn count(program: &Path, words: &[&str], scratch: &Path) -> Result<u64> {
    let out = scratch.join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    run(valgrind.arg(program).args(words))?;
    let text = fs::read_to_string(&out)?;
    let sum = text.lines().find_map(|line| line.strip_prefix("summary: "));
    let sum = sum.context("callgrind has no sum")?;
    sum.trim().parse().context("the sum of callgrind")
}

/// The images of a tree, whose path is given.
fn tree(built: &Built, scratch: &Path) -> Result<String> {
    let images = scratch.join("images");
    fs::create_dir(&images)?;
    let guests = built.path("gelid-guest");
    let program = Program::Guest("idle-tree", &[TREE]);
    let mut guest = Running::start(&program, &guests, &scratch.join("work"))?;
    let mut dump = as_root(built.path("gelid"));
    dump.args([
        "dump",
        "--compress=none",
        "-t",
        &guest.pid().to_string(),
        "-D",
    ]);
    run(dump.arg(&images))?;
    guest.await_death()?;
    if !process::is_root() {
        run(as_root("chmod").args(["-R", "a+rX"]).arg(&images))?;
    }
    Ok(images.display().to_string())
}
