//! A program that is dumped: started, restored, asked and ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait, waitpid};

/// Nothing of a round may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is started.
pub(super) enum Program {
    /// A guest of the integration tests, with its arguments.
    Guest(&'static str, &'static [&'static str]),
    /// Some command, which is asked nothing.
    Command(&'static [&'static str]),
}

/// A program that runs, or that is dumped. This process is the parent of all of its orphans; ended with
/// everything below it when it is dropped.
pub(super) struct Running {
    pid: Pid,
    folder: PathBuf,
    /// Whether it is a guest and says by itself how it is.
    guest: bool,
}

impl Running {
    /// Starts a program with its files in `folder`, and waits until it is ready.
    pub(super) fn start(program: &Program, guests: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir(folder)?;
        let (words, guest) = match program {
            Program::Guest(name, args) => ([&[*name], *args].concat(), true),
            Program::Command(words) => ([&["run"], *words].concat(), false),
        };
        let (name, rest) = words.split_first().context("no program")?;
        let output = File::create(folder.join("log"))?;
        let mut command = Command::new(guests);
        command.arg(name).arg(folder).args(rest).current_dir("/");
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = command.spawn().context("start a program")?;
        let running = Self {
            pid: Pid::from_raw(child.id().cast_signed()).context("no id")?,
            folder: folder.to_owned(),
            guest,
        };
        running.until("the program is ready", || Ok(running.ready()))?;
        Ok(running)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    fn ready(&self) -> bool {
        if self.guest {
            return self.folder.join("ready").exists();
        }
        // It is no longer the launcher, and waits.
        let exe = fs::read_link(format!("/proc/{}/exe", self.pid())).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        !exe.ends_with("gelid-guest") && stat.contains(") S ")
    }

    /// Waits until nothing of the tree is left. It has been killed.
    pub(super) fn await_death(&mut self) -> Result<()> {
        self.until("the tree is gone", || {
            collect();
            Ok(children().is_empty())
        })
    }

    /// Lets a guest check itself; ends any other program that is still there.
    pub(super) fn finish(&mut self) -> Result<()> {
        let comm = fs::read_to_string(format!("/proc/{}/comm", self.pid()));
        comm.context("it is not there")?;
        if !self.guest {
            kill_process(self.pid, Signal::KILL)?;
            return self.await_death();
        }
        fs::write(self.folder.join("go"), "")?;
        let mut end = None;
        self.until("the program ends", || {
            end = waitpid(Some(self.pid), WaitOptions::NOHANG)?.map(|(_, status)| status);
            Ok(end.is_some())
        })?;
        let result = fs::read_to_string(self.folder.join("result")).unwrap_or_default();
        ensure!(
            result.starts_with("ok\n") && end.is_some_and(|end| end.exit_status() == Some(0)),
            "it says {result:?}, {end:?}"
        );
        self.await_death()
    }

    fn until(&self, what: &str, mut test: impl FnMut() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !test()? {
            if start.elapsed() > PATIENCE {
                let said = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("{what}: not within {PATIENCE:?}; it said {said:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a success there is nothing left. All children of this process belong to the program.
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            collect();
            let left = children();
            if left.is_empty() {
                return;
            }
            for pid in left.into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Collects all children that have ended.
fn collect() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// The children of this process.
fn children() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let ids = list.split_whitespace().filter_map(|word| word.parse().ok());
            ids.collect::<Vec<i32>>()
        })
        .collect()
}
