//! Instructions of pure work, by callgrind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process::{self, as_root, run};
use crate::workspace;

/// Work of the program `counted`.
const WORK: [&str; 4] = ["encode", "decode", "pages", "checksums"];
/// Processes of the tree that is planned.
const TREE: &str = "100";

/// What is counted, built as it is released; and what is measured beside the kernel, as the tests have it.
pub(super) struct Built {
    /// The folder of all executables.
    folder: PathBuf,
}

impl Built {
    pub(super) fn new() -> Result<Self> {
        for (profile, words) in [
            (
                "measured",
                ["-p", "gelid-benches", "--bin", "counted"].as_slice(),
            ),
            (
                "dev",
                ["-p", "gelid", "-p", "gelid-guests", "--bins"].as_slice(),
            ),
        ] {
            let mut cargo = workspace::cargo();
            cargo.args(["build", "--quiet", "--locked", "--profile", profile]);
            run(cargo.args(words))?;
        }
        Ok(Self {
            folder: workspace::members(&workspace::root().join("Cargo.toml"))?.target_directory,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        let profile = if name == "counted" {
            "measured"
        } else {
            "debug"
        };
        self.folder.join(profile).join(name)
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
    let (work, images) = (scratch.join("work"), scratch.join("images"));
    fs::create_dir(&work)?;
    fs::create_dir(&images)?;
    let mut guest = Guest::start(&built.path("gelid-guest"), &["idle-tree", TREE], &work)?;
    let mut dump = as_root(built.path("gelid"));
    dump.args(["dump", "--compress=none", "-t", guest.pid(), "-D"]);
    run(dump.arg(&images))?;
    guest.collect()?;
    if !process::is_root() {
        run(as_root("chmod").args(["-R", "a+rX"]).arg(&images))?;
    }
    Ok(images.display().to_string())
}

/// A program to be dumped.
pub(super) struct Guest {
    child: std::process::Child,
    pid: String,
}

impl Guest {
    /// Starts one and waits until it is ready.
    pub(super) fn start(program: &Path, words: &[&str], work: &Path) -> Result<Self> {
        let (name, rest) = words.split_first().context("no guest")?;
        let mut command = as_root(program);
        command.arg(name).arg(work).args(rest);
        // Whatever this command writes to may be another file by the time of a restore.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().context("start a guest")?;
        let mut guest = Self {
            child,
            pid: String::new(),
        };
        let since = std::time::Instant::now();
        while guest.pid.is_empty() {
            ensure!(since.elapsed().as_secs() < 60, "{name} does not come up");
            std::thread::sleep(std::time::Duration::from_millis(5));
            let said = fs::read_to_string(work.join("ready")).unwrap_or_default();
            guest.pid = said
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned();
        }
        Ok(guest)
    }

    /// The id that it knows itself by.
    pub(super) fn pid(&self) -> &str {
        &self.pid
    }

    /// Waits for its end.
    pub(super) fn collect(&mut self) -> Result<()> {
        self.child.wait().map(drop).context("wait for a guest")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
