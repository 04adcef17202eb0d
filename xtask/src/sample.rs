//! The sample program of `cargo xtask dump`: started, asked, and ended.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::{as_root, is_installed, output, run};
use crate::workspace;

/// How long the sample may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the sample tells about itself.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Account {
    pub(crate) pid: u32,
    pub(crate) threads: u32,
    /// The secret that it was told, and that no file holds.
    pub(crate) nonce: Option<String>,
    /// Entries of the dictionary.
    pub(crate) records: u64,
    /// Rows of the sqlite databases, on disk and in memory.
    pub(crate) rows: u64,
    /// Lines of the log.
    pub(crate) logged: u64,
    /// Messages that went through the pipe.
    pub(crate) piped: u64,
    /// Messages that went through the queue between two threads.
    pub(crate) queued: u64,
    /// What does not fit together.
    pub(crate) wrong: Vec<String>,
}

/// A running sample.
#[derive(Debug)]
pub(crate) struct Sample {
    folder: PathBuf,
    child: Child,
}

impl Sample {
    /// Starts the sample in a session of its own, with its files in `folder`, and waits until it works.
    pub(crate) fn start(python: &Path, folder: &Path) -> Result<Self> {
        let output = File::create(folder.join("output")).context("creating the sample's output")?;
        let child = Command::new("setsid")
            .arg(python)
            .arg(workspace::root().join("xtask/sample/ledger.py"))
            .arg(folder)
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("the sample does not start")?;
        let sample = Self {
            folder: folder.to_owned(),
            child,
        };
        sample.answer()?;
        Ok(sample)
    }

    /// The pid of the sample.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line through the FIFO and returns the answer.
    pub(crate) fn ask(&self, question: &str) -> Result<Account> {
        self.send(question)?;
        self.answer()
    }

    /// Waits for the end of the process that was started, not of the one that was restored.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("waiting for the sample")
    }

    /// Asks the restored sample to end, and waits until its pid is gone.
    pub(crate) fn end(&self) -> Result<()> {
        self.send("end")?;
        let process = PathBuf::from(format!("/proc/{}/exe", self.pid()));
        wait_until("the end of the sample", || {
            Ok((!process.exists()).then_some(()))
        })
    }

    fn send(&self, line: &str) -> Result<()> {
        // Without a reader this open fails at once, instead of waiting for one.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        OpenOptions::new()
            .write(true)
            .custom_flags(nonblocking)
            .open(self.folder.join("question"))
            .and_then(|mut fifo| fifo.write_all(format!("{line}\n").as_bytes()))
            .context("the sample does not listen")
    }

    fn answer(&self) -> Result<Account> {
        let path = self.folder.join("answer");
        let text = wait_until("an answer of the sample", || match fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        })
        .with_context(|| format!("it said: {:?}", self.said()))?;
        fs::remove_file(&path)?;
        serde_json::from_slice(&text).context("the sample answered something else")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("output")).unwrap_or_default()
    }
}

/// Tries again every few milliseconds until something is there.
fn wait_until<T>(what: &str, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("{what} did not come within {} s", PATIENCE.as_secs())
}

/// The path of a Python interpreter, installed if there is none.
pub(crate) fn python() -> Result<PathBuf> {
    if !is_installed("python3") {
        run(as_root("apt-get").args(["update", "-qq"]))?;
        run(as_root("env").args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "-qq",
            "python3",
        ]))?;
    }
    // What is called python3 may be a script that looks for the interpreter.
    let path =
        output(Command::new("python3").args(["-c", "import sqlite3, sys; print(sys.executable)"]))?;
    Ok(PathBuf::from(path.trim()))
}
