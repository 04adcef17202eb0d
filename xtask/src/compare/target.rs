//! A program that is dumped: started, restored, asked and ended.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait, waitpid};

use super::redis::Redis;

/// Nothing of a round may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks.
const PAUSE: Duration = Duration::from_micros(250);

/// What is started.
pub(crate) enum Program {
    /// A guest of the integration tests, with its arguments.
    Guest(&'static str, &'static [&'static str]),
    /// Some command, which is asked nothing.
    Command(&'static [&'static str]),
    /// A redis server with so many bytes of data.
    Redis(u64),
    /// A JVM at work, which behaves like a guest.
    Java,
}

/// How a program is asked whether all is well.
enum Asked {
    /// It is not.
    No,
    /// By files in its folder; it ends then.
    Guest,
    /// As its clients ask it.
    Redis(Redis),
}

/// The source of the JVM's program.
const WORK: &str = include_str!("../../../tests/tests/programs/Work.java");

/// A program that runs, or that is dumped. This process is the parent of all of its orphans; ended with
/// everything below it when it is dropped.
pub(crate) struct Running {
    pid: Pid,
    folder: PathBuf,
    asked: Asked,
}

impl Running {
    /// Starts a program with its files in `folder`, and waits until it is ready.
    pub(crate) fn start(program: &Program, guests: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir(folder)?;
        let (name, rest, asked) = words(program, folder)?;
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
            asked,
        };
        running.until("the program is ready", || Ok(running.ready()))?;
        if let Asked::Redis(redis) = &running.asked {
            redis.fill().context("fill redis")?;
        }
        Ok(running)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    fn ready(&self) -> bool {
        if let Asked::Guest = self.asked {
            return self.folder.join("ready").exists();
        }
        // It is no longer the launcher, and waits.
        let exe = fs::read_link(format!("/proc/{}/exe", self.pid())).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        !exe.ends_with("gelid-guest") && stat.contains(") S ")
    }

    /// Waits until nothing of the tree is left. It has been killed.
    pub(crate) fn await_death(&mut self) -> Result<()> {
        self.until("the tree is gone", || {
            collect();
            Ok(children().is_empty())
        })
    }

    /// The longest time for which it did not run since it was asked last, if it takes note of that.
    pub(crate) fn pause(&self) -> Result<Option<Duration>> {
        let Ok(mut beat) = File::options()
            .read(true)
            .write(true)
            .open(self.folder.join("beat"))
        else {
            return Ok(None);
        };
        let mut word = [0; 8];
        beat.read_exact(&mut word)?;
        beat.rewind()?;
        beat.write_all(&[0; 8])?;
        Ok(Some(Duration::from_nanos(u64::from_ne_bytes(word))))
    }

    /// Ends it as it is.
    pub(crate) fn end(&mut self) -> Result<()> {
        kill_process(self.pid, Signal::KILL)?;
        self.await_death()
    }

    /// Asks it, and waits for the first answer, which has to be right; how long that took, if it can be asked.
    pub(crate) fn answer(&self) -> Result<Option<Duration>> {
        let start = Instant::now();
        match &self.asked {
            Asked::No => return Ok(None),
            Asked::Redis(redis) => redis.ask_once().context("ask redis")?,
            Asked::Guest => {
                fs::write(self.folder.join("go"), "")?;
                let result = self.folder.join("result");
                self.until("the program has checked itself", || Ok(result.exists()))?;
                self.result()?;
            }
        }
        Ok(Some(start.elapsed()))
    }

    /// Lets a guest check itself, if it has not; asks any other program, and ends it.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let result = self.folder.join("result");
        let comm = fs::read_to_string(format!("/proc/{}/comm", self.pid()));
        ensure!(comm.is_ok() || result.exists(), "it is not there");
        match &self.asked {
            Asked::Guest if result.exists() => {}
            Asked::Guest => fs::write(self.folder.join("go"), "")?,
            Asked::No => return self.end(),
            Asked::Redis(redis) => {
                redis.ask().context("ask redis")?;
                return self.end();
            }
        }
        let mut end = None;
        self.until("the program ends", || {
            end = waitpid(Some(self.pid), WaitOptions::NOHANG)?.map(|(_, status)| status);
            Ok(end.is_some())
        })?;
        self.result()?;
        ensure!(
            end.is_some_and(|end| end.exit_status() == Some(0)),
            "it ends with {end:?}"
        );
        self.await_death()
    }

    /// Whether a guest says that all is well.
    fn result(&self) -> Result<()> {
        let result = fs::read_to_string(self.folder.join("result")).unwrap_or_default();
        ensure!(result.starts_with("ok\n"), "it says {result:?}");
        Ok(())
    }

    fn until(&self, what: &str, mut test: impl FnMut() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !test()? {
            if start.elapsed() > PATIENCE {
                let said = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("{what}: not within {PATIENCE:?}; it said {said:?}");
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// The name of a guest, its arguments, and how it is asked.
fn words(program: &Program, folder: &Path) -> Result<(&'static str, Vec<String>, Asked)> {
    let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    Ok(match program {
        Program::Guest(name, args) => (name, owned(args), Asked::Guest),
        Program::Command(words) => ("run", owned(words), Asked::No),
        Program::Redis(bytes) => {
            let redis = Redis::new(*bytes)?;
            let words = [vec!["redis-server".to_owned()], redis.options().to_vec()].concat();
            ("run", words, Asked::Redis(redis))
        }
        Program::Java => {
            let source = folder.join("Work.java");
            fs::write(&source, WORK)?;
            let (source, folder) = (source.display().to_string(), folder.display().to_string());
            // It would miss the file of its counters.
            let words = ["java", "-XX:-UsePerfData", "-Xmx1g", &source, &folder, "1"];
            ("run", owned(&words), Asked::Guest)
        }
    })
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
