//! Running other programs: what is run is printed, what fails is named.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// `program`, run by root: directly if this process is root, through `sudo` otherwise.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--preserve-env").arg(program);
    sudo
}

/// Whether this process may freeze the processes of others.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs `command` to its end with its output passed through; anything but exit code 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| does_not_start(command))?;
    if !status.success() {
        bail!("{} failed: {status}", words(command));
    }
    Ok(())
}

/// As [`run`], and hands every line of the standard output to `line` after it was printed. A process that the
/// command has left behind, with its output open, is not waited for.
pub(crate) fn run_lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    announce(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| does_not_start(command))?;
    let stdout = child.stdout.take().context("the child has no output")?;
    let (sender, lines) = mpsc::channel();
    // It ends with the output, or with this program.
    std::thread::spawn(move || {
        for text in BufReader::new(stdout).split(b'\n') {
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    let mut ended = None;
    loop {
        match lines.recv_timeout(Duration::from_secs(2)) {
            Ok(text) => {
                let text = text.context("reading the output of a command")?;
                let text = String::from_utf8_lossy(&text);
                println!("{text}");
                line(&text);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            // The second time, whatever it has written has been read.
            Err(RecvTimeoutError::Timeout) if ended.is_some() => {
                eprintln!("something that the command started still has its output open");
                break;
            }
            Err(RecvTimeoutError::Timeout) => ended = child.try_wait()?,
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed: {status}", words(command));
    }
    Ok(())
}

/// Runs `command` quietly and returns its standard output; its standard error becomes the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| does_not_start(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed: {}: {}",
            words(command),
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `program` is an executable in one of the folders of `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn announce(command: &Command) {
    eprintln!("$ {}", words(command));
}

fn does_not_start(command: &Command) -> String {
    format!("{} does not start", command.get_program().to_string_lossy())
}

/// The command as somebody would type it; `cargo` without the folder of its toolchain.
fn words(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut text = name.to_string_lossy().into_owned();
    for word in command.get_args() {
        text.push(' ');
        text.push_str(&word.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_a_command_leaves_behind_is_not_waited_for() {
        let start = Instant::now();
        let mut lines = Vec::new();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 60 & echo $!; echo done"]);
        run_lines(&mut shell, |line| lines.push(line.to_owned())).unwrap();
        assert!(start.elapsed() < Duration::from_secs(30));
        assert_eq!(lines[1], "done");
        run(Command::new("kill").arg(&lines[0])).unwrap();
        run_lines(Command::new("sh").args(["-c", "exit 3"]), |_| ()).unwrap_err();
    }
}
