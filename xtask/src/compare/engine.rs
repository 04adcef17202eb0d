//! An executable that dumps and restores, and what its runs cost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use wait4::Wait4;

use crate::process::output;

/// Seconds that a dump may take to stop a tree; more than the ten that both have otherwise, for trees of many threads.
const PATIENCE: &str = "300";

/// An executable with its options for dumps.
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    program: PathBuf,
    options: &'static [&'static str],
    /// It makes the calls of dumps and restores, and no images.
    pub(crate) is_bare: bool,
}

/// What one run of a command took.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Cost {
    /// From before it was started until it was collected.
    pub(crate) wall: Duration,
    /// Processor time, user and system.
    pub(crate) processor: Duration,
    /// The most memory that was resident, in bytes; never less than this program itself has.
    pub(crate) memory: u64,
}

/// What one round took.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Measured {
    pub(crate) dump: Cost,
    /// Unless nobody could restore anything.
    pub(crate) restore: Option<Cost>,
    /// For how long the tasks stood still, as the dump itself counts it.
    pub(crate) frozen: Duration,
    /// The longest time for which the program did not run, as it saw that itself, if it was left running.
    pub(crate) pause: Option<Duration>,
    /// From the start of the restore until the program has given its first right answer, if it gives any.
    pub(crate) answer: Option<Duration>,
    /// From the start of the restore until all of its memory is there, unless that did not happen.
    pub(crate) resident: Option<Duration>,
    /// The size of all images, if there are any.
    pub(crate) bytes: Option<u64>,
}

impl Engine {
    pub(crate) fn new(
        name: &'static str,
        program: &Path,
        options: &'static [&'static str],
    ) -> Result<Self> {
        let program =
            fs::canonicalize(program).with_context(|| format!("{name}: {}", program.display()))?;
        Ok(Self {
            name,
            program,
            options,
            is_bare: false,
        })
    }

    /// One that makes the calls of dumps and restores, and nothing else.
    pub(crate) fn bare(program: &Path) -> Result<Self> {
        let mut engine = Self::new("bare calls", program, &[])?;
        engine.is_bare = true;
        Ok(engine)
    }

    /// Notes down what a tree is made of, for [`make_calls`](Self::make_calls), in a folder.
    pub(crate) fn look(&self, pid: u32, folder: &Path) -> Result<()> {
        let pid = pid.to_string();
        self.call("look", &[&pid], folder).map(drop)
    }

    /// Makes the calls of a dump that ends a tree, with files in a folder; also for how long the tree stood still.
    pub(crate) fn calls_alone(&self, pid: u32, folder: &Path) -> Result<(Cost, Duration)> {
        let pid = pid.to_string();
        let cost = self.call("dump", &[&pid], folder)?;
        let said = fs::read_to_string(folder.with_file_name("dump.out"))?;
        let said: Value = serde_json::from_str(&said)?;
        let frozen = said.get("frozen").and_then(Value::as_f64);
        let frozen = frozen.with_context(|| format!("it says {said}"))?;
        Ok((cost, Duration::from_secs_f64(frozen / 1e3)))
    }

    /// Makes the calls of a restore, which leaves a tree of the shape that was noted down waiting for its end.
    pub(crate) fn make_calls(&self, folder: &Path) -> Result<Cost> {
        self.call("restore", &[], folder)
    }

    fn call(&self, command: &str, words: &[&str], folder: &Path) -> Result<Cost> {
        let log = folder.with_file_name(format!("{command}.log"));
        let mut all = Command::new(&self.program);
        all.arg(command).args(words).arg(folder);
        self.measure(all, command, folder, &log)
    }

    /// Dumps a tree, and ends it unless it is to be left running.
    pub(crate) fn dump(&self, pid: u32, images: &Path, left: bool) -> Result<Cost> {
        let pid = pid.to_string();
        let end: &[&str] = if left { &["--leave-running"] } else { &[] };
        let own = ["-t", &pid, "--timeout", PATIENCE];
        self.run("dump", images, &[&own, end, self.options].concat())
    }

    /// Restores a tree, detached.
    pub(crate) fn restore(&self, images: &Path) -> Result<Cost> {
        self.run("restore", images, &["-d"])
    }

    /// Runs a command with its log beside the folder of images.
    fn run(&self, command: &str, images: &Path, options: &[&str]) -> Result<Cost> {
        let log = images.with_file_name(format!("{command}.log"));
        let mut words = Command::new(&self.program);
        words.arg(command).arg("-D").arg(images).arg("-o").arg(&log);
        words.args(options);
        self.measure(words, command, images, &log)
    }

    /// Runs what has its words; what it says goes into a file beside the folder of images.
    fn measure(
        &self,
        mut words: Command,
        command: &str,
        images: &Path,
        log: &Path,
    ) -> Result<Cost> {
        let said = images.with_file_name(format!("{command}.out"));
        words
            .stdin(Stdio::null())
            .stdout(File::create(&said)?)
            .stderr(File::create(
                images.with_file_name(format!("{command}.err")),
            )?);
        let start = Instant::now();
        let mut child = words
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let end = child.wait4()?;
        let wall = start.elapsed();
        if !end.status.success() {
            bail!(
                "{command}: {}\n{}\n{}\n{}",
                end.status,
                last_lines(&said),
                last_lines(&images.with_file_name(format!("{command}.err"))),
                last_lines(log)
            );
        }
        Ok(Cost {
            wall,
            processor: end.rusage.utime + end.rusage.stime,
            memory: end.rusage.maxrss,
        })
    }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// What a dump says of itself.
pub(crate) struct Statistics {
    /// The time for which the tasks stood still.
    pub(crate) frozen: Duration,
    /// Pages in the images.
    pub(crate) pages: u64,
}

/// The statistics beside the images of a dump.
pub(crate) fn statistics(gelid: &Path, images: &Path) -> Result<Statistics> {
    let text = output(
        Command::new(gelid)
            .arg("show")
            .arg(images)
            .args(["stats-dump", "--json"]),
    )?;
    let document: Value = serde_json::from_str(&text)?;
    let number = |name: &str| {
        document
            .pointer(&format!("/entries/0/dump/{name}"))
            .and_then(Value::as_u64)
            .with_context(|| format!("no {name} in {text}"))
    };
    Ok(Statistics {
        frozen: Duration::from_micros(number("frozen_time")?),
        pages: number("pages_written")?,
    })
}

/// The bytes of all images in a folder.
pub(crate) fn bytes(images: &Path) -> Result<u64> {
    let sizes = fs::read_dir(images)?.map(|entry| Ok(entry?.metadata()?.len()));
    sizes.sum()
}
