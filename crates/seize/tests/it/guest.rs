//! Programs to freeze, killed with their whole process group at the end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use gelid_seize::{Options, Tree, freeze};
use rustix::process::{Pid, Signal, kill_process_group};

/// A running program with a pipe each way.
pub(crate) struct Guest {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Guest {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let command = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
        }
    }

    /// A Python program, ready when it has printed a line.
    pub(crate) fn python(text: &str) -> Self {
        let mut guest = Self::spawn(Command::new("python3").args(["-u", "-c", text]));
        guest.line();
        guest
    }

    /// A Perl program, ready when it has printed a line.
    pub(crate) fn perl(text: &str) -> Self {
        let mut guest = Self::spawn(Command::new("perl").args(["-e", &format!("$| = 1; {text}")]));
        guest.line();
        guest
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn freeze(&self) -> Tree {
        freeze(&Options::new(self.pid())).unwrap()
    }

    /// The next line the program prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Sends a line.
    pub(crate) fn say(&mut self, line: &str) {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    /// Sends a line and waits for the answer.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.line()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // A fork in the middle does not escape: it fails or its child is in the group already.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// State letter of a process, `-` if it is gone.
pub(crate) fn state(pid: Pid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next())
        .unwrap_or('-')
}

/// Who traces a task, 0 for nobody.
pub(crate) fn tracer(pid: Pid) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"))
        .unwrap();
    line.trim().parse().unwrap()
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
