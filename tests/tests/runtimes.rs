//! Container runtimes as they are shipped, with gelid as their `criu`. A container is made on the spot: its root file
//! system is a static busybox. What it counts is in the memory of its shell alone.

mod containerd;
mod lxc;
mod podman;
mod runc;

use crate::trial;
use anyhow::{Context, Result, bail, ensure};
use gelid_tests::{Engine, Verdict, run_to_end};
use libtest_mimic::Trial;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A test with a name.
type Test = (&'static str, fn(&Yard) -> Result<()>);

/// Commands that the shell of the container needs.
const APPLETS: &[&str] = &["sh", "sleep", "mv", "cat", "ls", "echo", "mkfifo", "nc"];

/// Counts, and tells by a file that is never half written.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >/c; mv /c /count; sleep 0.02; done";

/// Nothing takes longer to happen.
const LIMIT: Duration = Duration::from_secs(30);

/// Every test of this folder.
pub(crate) fn trials() -> Vec<Trial> {
    let of = |program: &'static str, tests: &'static [Test]| {
        tests
            .iter()
            .map(move |(name, body)| trial(format!("{program}/{name}"), move || at(program, *body)))
    };
    let all = of("runc", runc::TESTS);
    let all = all.chain(of("podman", podman::TESTS));
    let all = all.chain(of("ctr", containerd::TESTS));
    all.chain(of("lxc-checkpoint", lxc::TESTS)).collect()
}

/// Runs a test where its runtime is, and can start a container at all.
fn at(program: &str, body: fn(&Yard) -> Result<()>) -> Result<Verdict> {
    for needed in [program, "busybox", "runc"] {
        if find(needed).is_none() {
            return Ok(Verdict::Skipped(format!("no {needed}")));
        }
    }
    let yard = Yard::new()?;
    match body(&yard) {
        Ok(()) => Ok(Verdict::Passed),
        Err(error) => match error.downcast_ref::<CannotStart>() {
            Some(CannotStart(why)) => Ok(Verdict::Skipped(why.clone())),
            None => Err(error),
        },
    }
}

/// The machine has the runtime, but no container can be started, which is not gelid's business.
#[derive(Debug, thiserror::Error)]
#[error("no container can be started here: {0}")]
struct CannotStart(String);

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut folders = std::env::split_paths(&path);
    folders.find_map(|folder| fs::canonicalize(folder.join(program)).ok())
}

/// A folder with a root file system, and `criu` on the path.
pub(crate) struct Yard {
    folder: TempDir,
    path: String,
    /// No other container on this machine is called so.
    pub(crate) name: String,
}

impl Yard {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("gelid-yard.").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let programs = folder.path().join("bin");
        fs::create_dir(&programs)?;
        // A copy of the name, not a link: whoever restores must find it whatever becomes of its folder.
        symlink(Engine::find()?.program(), programs.join("criu"))?;
        let path = std::env::var("PATH").context("PATH")?;
        let name = folder.path().file_name().and_then(|name| name.to_str());
        let name = name.context("a name")?.replace('.', "-");
        Ok(Self {
            path: format!("{}:{path}", programs.display()),
            name,
            folder,
        })
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A root file system at a new folder.
    pub(crate) fn root(&self, name: &str) -> Result<PathBuf> {
        let root = self.at(name);
        for folder in ["bin", "dev", "proc", "sys", "tmp", "etc", "run"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let busybox = find("busybox").context("busybox")?;
        fs::copy(busybox, root.join("bin/busybox"))?;
        for applet in APPLETS.iter().map(|applet| root.join("bin").join(applet)) {
            // It is made once only.
            if !applet.is_symlink() {
                symlink("busybox", applet)?;
            }
        }
        Ok(root)
    }

    /// A command that finds gelid as `criu`.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", &self.path).env("HOME", "/nonexistent");
        command
            .env_remove("CRIU_CONFIG_FILE")
            .env_remove("XDG_RUNTIME_DIR");
        command.current_dir(self.folder.path());
        command
    }

    /// Runs a command that must succeed; what it prints.
    fn succeed(&self, command: &mut Command, logs: &[&str]) -> Result<String> {
        let output = run_to_end(command)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let excerpts = logs.iter().map(|log| self.excerpt(log));
        let excerpts: String = excerpts.collect();
        bail!("{command:?}: {}\n{excerpts}", said(&output))
    }

    /// The lines of a log that tell why; logs may lie in folders whose names are not known.
    fn excerpt(&self, log: &str) -> String {
        let mut found = String::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                } else if path.file_name().is_some_and(|name| name == log) {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    let lines = text.lines().filter(|line| line.contains("Error"));
                    lines.for_each(|line| found.push_str(&format!("  {log}: {line}\n")));
                }
            }
        }
        found
    }
}

/// What a command has printed.
fn said(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{} {} {}", output.status, text[0].trim(), text[1].trim())
}

impl Drop for Yard {
    /// Runtimes leave the groups above those of containers.
    fn drop(&mut self) {
        remove_everywhere(&self.name);
    }
}

/// Removes a group of all hierarchies, as soon as nobody is in it any more.
pub(crate) fn remove_everywhere(name: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup");
    let hierarchies = hierarchies.into_iter().flatten().flatten();
    let groups = hierarchies.map(|hierarchy| hierarchy.path().join(name));
    let start = Instant::now();
    for group in groups.chain([Path::new("/sys/fs/cgroup").join(name)]) {
        remove_groups(&group);
        while group.exists() && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(10));
            remove_groups(&group);
        }
    }
}

/// Removes a group, and those below.
fn remove_groups(group: &Path) {
    for below in fs::read_dir(group).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&below.path());
        }
    }
    // Most hierarchies have none.
    let _ = fs::remove_dir(group);
}

/// The number that a container has come to.
fn count(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Waits until a container counts on from where it was; it must not begin anew.
fn counts_on(file: &Path, from: u64) -> Result<u64> {
    counting(from, || match count(file) {
        0 => bail!("nothing is counted"),
        now => Ok(now),
    })
}

/// The same of one that is asked some other way, and gives an error if it has not begun.
fn counting(from: u64, mut ask: impl FnMut() -> Result<u64>) -> Result<u64> {
    let start = Instant::now();
    loop {
        let now = ask();
        if let Ok(now) = now {
            ensure!(now >= from, "it counts {now} after {from}");
            if now > from + 2 {
                return Ok(now);
            }
        }
        ensure!(
            start.elapsed() < LIMIT,
            "it still counts {now:?} after {from}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
