//! This test binary started again: as a process to be dumped, or to run one test alone.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

const ROLE: &str = "GELID_PAGES_TEST_ROLE";

/// What the process was started for; nothing in an ordinary test run.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

fn command(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, role);
    command
}

/// Runs `test` in a fresh process; what it printed.
pub(crate) fn alone(test: &str, role: &str) -> String {
    let output = command(test, role)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

/// A process with so many bytes of memory, all of them `fill`, that waits to be dumped or filled.
pub(crate) struct Guest {
    child: Child,
    /// Where its memory begins: on a page boundary.
    pub(crate) start: u64,
}

impl Guest {
    /// `fill` 0 leaves the memory untouched.
    pub(crate) fn start(bytes: usize, fill: u8) -> Self {
        let mut command = command("guest::guest", &format!("{bytes} {fill}"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let start = output
            .lines()
            .find_map(|line| line.unwrap().strip_prefix("memory at ")?.parse().ok());
        let guest = Self {
            child,
            start: start.unwrap(),
        };
        guest.stop();
        guest
    }

    /// As a dump would find it: it must not change while it is looked at.
    fn stop(&self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::STOP).unwrap();
        let is_running = || {
            let path = format!("/proc/{}/task", self.child.id());
            let mut tasks = std::fs::read_dir(path).unwrap();
            tasks.any(|task| {
                let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
                !stat.contains(") T ")
            })
        };
        while is_running() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn maps(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The guest itself; in an ordinary test run it does nothing.
#[test]
fn guest() {
    let Some(role) = role() else {
        return;
    };
    let (bytes, fill) = role.split_once(' ').unwrap();
    let mut memory = vec![0_u8; bytes.parse::<usize>().unwrap() + 4096];
    let fill: u8 = fill.parse().unwrap();
    if fill != 0 {
        memory.fill(fill);
    }
    println!(
        "\nmemory at {}",
        (memory.as_ptr() as usize).next_multiple_of(4096)
    );
    std::io::stdout().flush().unwrap();
    // Until the parent ends it.
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(memory);
}
