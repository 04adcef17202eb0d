//! Programs that carry tapes: Python ones, and those of `gelid-guests`, which check themselves.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use gelid_seize::{Options, Tree, freeze};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A process that is killed at the end, with all its descendants.
pub(crate) struct Root(pub(crate) Child);

impl Root {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    pub(crate) fn freeze(&self) -> Tree {
        freeze(&Options::new(self.pid())).unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None))
            && let Ok(tree) = freeze(&Options::new(self.pid()))
        {
            let _ = tree.kill();
        }
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// A Python program that answers lines.
pub(crate) struct Python {
    pub(crate) root: Root,
    input: std::process::ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Python {
    /// Starts it; it is ready when it has printed a line.
    pub(crate) fn start(text: &str) -> Self {
        let mut command = Command::new("python3");
        let command = command.args(["-u", "-c", text]).process_group(0);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut python = Self {
            root: Root(child),
            input,
            output,
        };
        python.line();
        python
    }

    pub(crate) fn pid(&self) -> Pid {
        self.root.pid()
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.line()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }
}

/// A program of `gelid-guests`.
pub(crate) struct Guest {
    pub(crate) root: Root,
    dir: tempfile::TempDir,
}

impl Guest {
    /// Starts it and waits until it is ready; none if it cannot run on this machine.
    pub(crate) fn start(name: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(program());
        let command = command.arg(name).arg(dir.path()).current_dir("/");
        let command = command.stdin(Stdio::null()).stderr(log);
        let mut guest = Self {
            root: Root(command.spawn().unwrap()),
            dir,
        };
        let ready = guest.hear("ready");
        if ready.starts_with("skip") {
            guest.root.0.wait().unwrap();
            return None;
        }
        Some(guest)
    }

    /// Lets the guest check itself; `ok` if it finds nothing wrong.
    pub(crate) fn verdict(mut self) -> String {
        std::fs::write(self.dir.path().join("go"), "").unwrap();
        let text = self.hear("result");
        self.root.0.wait().unwrap();
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// What the guest has written to one of the files it talks by.
    fn hear(&mut self, file: &str) -> String {
        let start = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(self.dir.path().join(file)) {
                return text;
            }
            let ended = self.root.0.try_wait().unwrap();
            if ended.is_some() && !self.dir.path().join(file).exists() {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
                return format!("no {file}: {ended:?} {log}");
            }
            if start.elapsed() > Duration::from_secs(60) {
                return format!("no {file} after a minute");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Names of all guests.
pub(crate) fn names() -> Vec<String> {
    let list = Command::new(program()).arg("--list").output().unwrap();
    let text = String::from_utf8(list.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The guests' program, built beside this one.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let folder = own.parent().unwrap().parent().unwrap();
        if std::env::var_os("GELID_BUILT").is_some() {
            return folder.join("gelid-guest");
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        build.args(["build", "--quiet", "-p", "gelid-guests"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        build.env("CARGO_TARGET_DIR", folder.parent().unwrap());
        assert!(build.status().unwrap().success());
        folder.join("gelid-guest")
    })
}

/// State letter of a process, `-` if it is gone.
pub(crate) fn state(pid: Pid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next())
        .unwrap_or('-')
}

/// Waits for what comes soon.
#[track_caller]
pub(crate) fn eventually(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "has not come true");
        std::thread::sleep(Duration::from_millis(1));
    }
}
