//! PostgreSQL in the middle of a transaction: System V shared memory of the host that all of its processes are attached
//! to, locks, and a connection that stays.

use super::{LIMIT, free_port, until};
use anyhow::{Context, Result, bail, ensure};
use gelid_tests::{Engine, Tree, Verdict, output, rounds, run_to_end, succeeds};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What it needs on both ways.
const OPTIONS: &[&str] = &["--tcp-established", "--file-locks"];

/// Goes round within one transaction.
pub(super) fn run() -> Result<Verdict> {
    if !succeeds(Command::new("iptables-restore").arg("--version")) {
        return Ok(Verdict::Skipped("iptables is not installed".into()));
    }
    let Some(programs) = programs() else {
        return Ok(Verdict::Skipped("PostgreSQL is not installed".into()));
    };
    let Ok(user) = output(Command::new("id").args(["-u", "postgres"])) else {
        return Ok(Verdict::Skipped("there is no user postgres".into()));
    };
    let dir = tempfile::Builder::new().prefix("gelid-server.").tempdir()?;
    chown(dir.path(), Some(user.trim().parse()?), None)?;
    let port = free_port()?;
    let mut tree = start(&programs, dir.path(), port)?;
    let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let mut session = None;
    until(|| {
        session = Session::new(port).ok();
        session.is_some()
    })
    .with_context(log)?;
    let mut session = session.context("no session")?;
    session.ask("begin; create temp table counted (n int)")?;
    session.hear()?;
    let engine = Engine::find()?;
    for round in 1..=rounds() as u64 {
        let images = dir.path().join(format!("images-{round}"));
        let before = tree.look();
        engine.dump(tree.root(), &images, OPTIONS)?.expect("dump")?;
        tree.await_death(LIMIT)?;
        session.ask(&format!(
            "insert into counted values ({round}); select sum(n) from counted"
        ))?;
        engine.restore(&images, OPTIONS)?.expect("restore")?;
        let sum = session.hear().with_context(|| format!("round {round}"))?;
        ensure!(sum == (round * (round + 1) / 2).to_string(), "sum {sum}");
        ensure!(tree.look() == before, "other processes than before");
        fs::remove_dir_all(&images)?;
    }
    session.ask("commit; select count(*) from counted")?;
    let count = session.hear()?;
    ensure!(count == rounds().to_string(), "count {count}");
    // It removes its segment when it is asked to end.
    let mut stop = user_command(&programs.join("pg_ctl"), &["-D"]);
    stop.arg(dir.path().join("data"));
    let stopped = run_to_end(stop.args(["stop", "-m", "immediate"]))?;
    ensure!(stopped.status.success(), "pg_ctl stop: {stopped:?}");
    Ok(Verdict::Passed)
}

/// Where the programs of the newest version are.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let all = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    all.filter(|bin| bin.join("initdb").exists()).max()
}

/// A command that the user of the database runs.
fn user_command(program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(program).args(words).current_dir("/");
    command
}

fn start(programs: &Path, dir: &Path, port: u16) -> Result<Tree> {
    let data = dir.join("data");
    let words = ["--no-sync", "--no-instructions", "-A", "trust", "-D"];
    let made = run_to_end(user_command(&programs.join("initdb"), &words).arg(&data))?;
    ensure!(made.status.success(), "initdb: {made:?}");
    let log = File::create(dir.join("log"))?;
    let mut command = Command::new("setsid");
    let server = user_command(&programs.join("postgres"), &["-h", "127.0.0.1"]);
    command.arg(server.get_program()).args(server.get_args());
    command.args(["-c", "fsync=off", "-c", "shared_buffers=8MB"]);
    command.arg("-p").arg(port.to_string());
    command.arg("-k").arg(dir).arg("-D").arg(&data);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = command.current_dir("/").spawn()?;
    Ok(Tree::new(child.id().cast_signed()))
}

/// A client that stays connected, by the protocol of the database.
struct Session(TcpStream);

impl Session {
    fn new(port: u16) -> Result<Self> {
        const VERSION: u32 = 3 << 16;
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut session = Self(stream);
        let text = b"user\0postgres\0database\0postgres\0\0";
        let mut message = (text.len() as u32 + 8).to_be_bytes().to_vec();
        message.extend(VERSION.to_be_bytes());
        message.extend(text);
        session.0.write_all(&message)?;
        session.hear()?;
        Ok(session)
    }

    fn ask(&mut self, query: &str) -> Result<()> {
        let mut message = vec![b'Q'];
        message.extend((query.len() as u32 + 5).to_be_bytes());
        message.extend(query.as_bytes());
        message.push(0);
        Ok(self.0.write_all(&message)?)
    }

    /// Reads until it is our turn; the only column of the last row.
    fn hear(&mut self) -> Result<String> {
        let mut row = String::new();
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            let [kind, len @ ..] = head;
            let mut body = vec![0; u32::from_be_bytes(len).saturating_sub(4) as usize];
            self.0.read_exact(&mut body)?;
            match kind {
                b'D' => row = String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into(),
                b'E' => bail!("{}", String::from_utf8_lossy(&body).replace('\0', " ")),
                b'Z' => return Ok(row),
                _ => {}
            }
        }
    }
}
