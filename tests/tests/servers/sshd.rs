//! sshd with the shell of somebody who stays: a terminal, the session that it controls, and an encrypted connection whose
//! state is in memory alone.

use super::{LIMIT, free_port, until};
use anyhow::{Context, Result, ensure};
use gelid_tests::{Engine, Tree, Verdict, output, rounds, run_to_end, spawn, succeeds};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const SSHD: &str = "/usr/sbin/sshd";
/// Where sshd wants a directory, which its service makes.
const EMPTY: &str = "/run/sshd";

/// Goes round within one session.
pub(super) fn run() -> Result<Verdict> {
    if !succeeds(Command::new("iptables-restore").arg("--version")) {
        return Ok(Verdict::Skipped("iptables is not installed".into()));
    }
    if !Path::new(SSHD).exists() || !succeeds(Command::new("ssh").arg("-V")) {
        return Ok(Verdict::Skipped("sshd or ssh is not installed".into()));
    }
    let _empty = Empty::make()?;
    let dir = tempfile::Builder::new().prefix("gelid-server.").tempdir()?;
    let port = free_port()?;
    let mut tree = start(dir.path(), port)?;
    let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    until(|| log().contains("listening")).with_context(log)?;
    let mut session = Session::new(dir.path(), port)?;
    if let Err(error) = session.ask("stty -echo; PS1=; WORD=secret", "begun") {
        return Ok(Verdict::Skipped(format!(
            "sshd lets nobody in: {error:#} {}",
            log()
        )));
    }
    let engine = Engine::find()?;
    for round in 1..=rounds() {
        let images = dir.path().join(format!("images-{round}"));
        let format = match round % 2 {
            0 => "--compress=none",
            _ => "--compress=zstd",
        };
        let before = tree.look();
        let options = ["--tcp-established", format];
        engine
            .dump(tree.root(), &images, &options)?
            .expect("dump")?;
        tree.await_death(LIMIT)?;
        session.say(&format!("echo \"$WORD {round}\""))?;
        let options = ["--tcp-established"];
        engine.restore(&images, &options)?.expect("restore")?;
        session.hear(&format!("secret {round}"))?;
        let same = "[ \"$(tty | cut -c1-9)\" = /dev/pts/ ] || exit 1";
        session.ask(same, &format!("done-{round}"))?;
        ensure!(tree.look() == before, "other processes than before");
        fs::remove_dir_all(&images)?;
    }
    session.say("exit 7")?;
    let code = session.child.wait()?.code();
    ensure!(code == Some(7), "the session ended with {code:?}");
    Ok(Verdict::Passed)
}

/// The directory, which goes again if it was not there.
struct Empty(bool);

impl Empty {
    fn make() -> Result<Self> {
        let there = Path::new(EMPTY).exists();
        fs::create_dir_all(EMPTY)?;
        Ok(Self(!there))
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        if self.0 {
            let _ = fs::remove_dir(EMPTY);
        }
    }
}

fn start(dir: &Path, port: u16) -> Result<Tree> {
    for key in ["host", "user"] {
        let words = ["-q", "-t", "ed25519", "-N", "", "-f"];
        let made = run_to_end(Command::new("ssh-keygen").args(words).arg(dir.join(key)))?;
        ensure!(made.status.success(), "ssh-keygen: {made:?}");
    }
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/user.pub\nStrictModes no\n\
         UsePAM no\nPidFile none\nPermitRootLogin yes\nPrintMotd no\nPrintLastLog no\n",
        dir.display()
    );
    fs::write(dir.join("config"), config)?;
    let log = File::create(dir.join("log"))?;
    let mut command = Command::new("setsid");
    command
        .args([SSHD, "-D", "-e", "-f"])
        .arg(dir.join("config"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?);
    let child = command.stderr(log).current_dir("/").spawn()?;
    Ok(Tree::new(child.id().cast_signed()))
}

/// A client with a terminal on the other side.
struct Session {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Session {
    fn new(dir: &Path, port: u16) -> Result<Self> {
        let user = output(Command::new("id").arg("-un"))?;
        let options = [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
        ];
        let mut command = Command::new("ssh");
        command
            .args(["-tt", "-F", "none", "-p"])
            .arg(port.to_string());
        command.arg("-i").arg(dir.join("user"));
        command.args(options.iter().flat_map(|option| ["-o", option]));
        command.arg(format!("{}@127.0.0.1", user.trim())).arg("sh");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Nobody else is to collect it.
        let mut child = spawn(&mut command)?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line.trim_end().to_owned());
            }
        });
        Ok(Self {
            child,
            input,
            lines,
        })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.input, "{line}")?)
    }

    /// Waits for a line that ends like this.
    fn hear(&self, end: &str) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.with_context(|| format!("{end:?} is not heard"))?;
            if line.ends_with(end) {
                return Ok(());
            }
        }
    }

    /// Runs a command, and waits until it has ended, when the shell says a word.
    fn ask(&mut self, command: &str, word: &str) -> Result<()> {
        self.say(&format!("{command}; echo {}", split(word)))?;
        self.hear(word)
    }
}

/// A word that a shell puts together: its echo is another one.
fn split(word: &str) -> String {
    let (first, rest) = word.split_at(word.len() / 2);
    format!("{first}''{rest}")
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
