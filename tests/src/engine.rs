//! The executable under test.

use crate::process::{build, claims, descendants, spawn};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// No single command may take longer.
const LIMIT: Duration = Duration::from_secs(120);

/// `gelid`, or what `GELID_BIN` names.
#[derive(Debug, Clone)]
pub struct Engine {
    program: PathBuf,
    /// Called by CRIU's name, and so only with CRIU's options.
    criu: bool,
    /// The phase in which its commands are to fail.
    fault: Option<String>,
    /// The root directory of what it restores.
    root: Option<PathBuf>,
    /// How many descriptors it may have.
    descriptors: Option<u64>,
}

/// A command under way; killed with all it has started if it is dropped before it has ended.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a command.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(spawn(command)?))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// How it ended, once it has.
    ///
    /// # Errors
    ///
    /// It cannot be waited for.
    pub fn poll(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Ends it by SIGKILL, and it alone, at once.
    ///
    /// # Errors
    ///
    /// It cannot be killed or waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.0.id().cast_signed();
        if matches!(self.0.try_wait(), Ok(None)) {
            for pid in descendants(pid).into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = self.0.wait();
        }
        claims().remove(&pid);
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; none if it was killed by a signal.
    pub code: Option<i32>,
    /// What it wrote to its standard output and error.
    pub output: String,
    /// Lines of the log that matter: errors and warnings, or the last ones.
    pub log: String,
    /// Wall time.
    pub time: Duration,
}

impl Outcome {
    /// Whether it exited with 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// An error with all that is known, unless it succeeded.
    ///
    /// # Errors
    ///
    /// The command failed.
    pub fn expect(&self, what: &str) -> Result<()> {
        if self.ok() {
            return Ok(());
        }
        bail!(
            "{what} failed: code {:?}\n{}{}",
            self.code,
            self.output,
            self.log
        )
    }
}

impl Engine {
    /// Finds the executable, building it if needed.
    ///
    /// # Errors
    ///
    /// A build that fails, or `GELID_BIN` naming nothing.
    pub fn find() -> Result<Self> {
        match std::env::var_os("GELID_BIN") {
            Some(path) => Self::at(Path::new(&path)),
            None => Self::at(&build()?.join("gelid")),
        }
    }

    /// CRIU, if `GELID_CRIU` names its executable.
    #[must_use]
    pub fn criu() -> Option<Self> {
        let path = std::env::var_os("GELID_CRIU")?;
        let engine = Self::at(Path::new(&path)).ok()?;
        Some(Self {
            criu: true,
            ..engine
        })
    }

    fn at(path: &Path) -> Result<Self> {
        let program = fs::canonicalize(path).with_context(|| path.display().to_string())?;
        let criu = program.file_name().is_some_and(|name| name == "criu");
        Ok(Self {
            program,
            criu,
            fault: None,
            root: None,
            descriptors: None,
        })
    }

    /// The executable.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it is called as `criu`, and so cannot do what CRIU cannot.
    #[must_use]
    pub fn is_criu(&self) -> bool {
        self.criu
    }

    /// The same executable, whose commands fail in a phase.
    #[must_use]
    pub fn failing_in(&self, phase: &str) -> Self {
        Self {
            fault: Some(phase.to_owned()),
            ..self.clone()
        }
    }

    /// The same executable, whose restores are of trees in a container with this root directory.
    #[must_use]
    pub fn rooted(&self, root: Option<PathBuf>) -> Self {
        Self {
            root,
            ..self.clone()
        }
    }

    /// The same executable, which may not have more descriptors, nor raise that limit.
    #[must_use]
    pub fn with_descriptors(&self, count: u64) -> Self {
        Self {
            descriptors: Some(count),
            ..self.clone()
        }
    }

    /// Dumps a tree into a new folder.
    ///
    /// # Errors
    ///
    /// The command could not be started or did not end in time; its own failure is in the outcome.
    pub fn dump(&self, pid: i32, images: &Path, options: &[&str]) -> Result<Outcome> {
        fs::create_dir_all(images)?;
        let pid = pid.to_string();
        self.run("dump", images, &[&["-t", &pid][..], options].concat())
    }

    /// Restores a tree from a folder, detached.
    ///
    /// # Errors
    ///
    /// As for [`dump`](Self::dump).
    pub fn restore(&self, images: &Path, options: &[&str]) -> Result<Outcome> {
        self.run("restore", images, &[&["-d"][..], options].concat())
    }

    /// Starts a command on a folder of images, and leaves it running.
    ///
    /// # Errors
    ///
    /// The command could not be started.
    pub fn start(&self, command: &str, images: &Path, options: &[&str]) -> Result<Running> {
        let output = File::create(images.join(format!("{command}.out")))?;
        let mut words = match &self.root {
            Some(root) if command == "restore" => self.below(root),
            _ => self.limited(),
        };
        words
            .arg(command)
            .arg("-D")
            .arg(images)
            .args(["-o", &format!("{command}.log"), "-v4"])
            .args(options);
        if let (Some(root), "restore") = (&self.root, command) {
            words.arg("--root").arg(root);
        }
        if let Some(phase) = &self.fault {
            words.env("GELID_FAULT", phase);
        }
        words
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        Running::start(&mut words).with_context(|| format!("start {}", self.program.display()))
    }

    /// The executable under the limit that it is to have.
    fn limited(&self) -> Command {
        let Some(count) = self.descriptors else {
            return Command::new(&self.program);
        };
        let mut words = Command::new("sh");
        // Without the right to raise it again.
        words.args(["-c", "ulimit -n $0 && exec \"$@\""]);
        words
            .arg(count.to_string())
            .args(["setpriv", "--bounding-set", "-sys_resource"]);
        words
            .args(["--inh-caps", "-sys_resource"])
            .arg(&self.program);
        words
    }

    /// CRIU wants a mount for a root directory: there is one for it alone, as a runtime would make it.
    fn below(&self, root: &Path) -> Command {
        const MOUNT: &str = r#"mount --bind "$0" "$0" && exec "$@""#;
        let mut words = Command::new("unshare");
        words
            .args(["-m", "sh", "-c", MOUNT])
            .arg(root)
            .arg(&self.program);
        words
    }

    fn run(&self, command: &str, images: &Path, options: &[&str]) -> Result<Outcome> {
        let start = Instant::now();
        let mut child = self.start(command, images, options)?;
        let status = loop {
            if let Some(status) = child.poll()? {
                break status;
            }
            if start.elapsed() > LIMIT {
                bail!(
                    "{command} did not end within {LIMIT:?}\n{}",
                    excerpt(&images.join(format!("{command}.log")))
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let output = fs::read(images.join(format!("{command}.out"))).unwrap_or_default();
        Ok(Outcome {
            code: status.code(),
            output: String::from_utf8_lossy(&output).into_owned(),
            log: excerpt(&images.join(format!("{command}.log"))),
            time: start.elapsed(),
        })
    }
}

/// The lines of a log that tell why: errors and warnings, else the last few.
fn excerpt(log: &Path) -> String {
    let text = fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let telling: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("Error") || line.contains("Warn"))
        .collect();
    let lines = if telling.is_empty() {
        text.lines().collect()
    } else {
        telling
    };
    let from = lines.len().saturating_sub(12);
    lines[from..]
        .iter()
        .map(|line| format!("  {line}\n"))
        .collect()
}
