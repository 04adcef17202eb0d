//! Options about what is around a tree: its terminal, sockets of others, mounts that it does without.

use super::{LIMIT, Test, stat};
use crate::failures::{must_fail, start};
use crate::rpc::talk;
use anyhow::{Context, Result, ensure};
use gelid_tests::{Engine, Guest, Outcome, Running, Tree, Verdict, spawn, terminals};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, unlockpt};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

pub(super) const TESTS: &[Test] = &[
    ("shell-job", shell_job),
    ("ext-unix-sk", ext_unix_sk),
    ("skip-mnt", skip_mnt),
];

/// Both ends of a new terminal.
fn terminal() -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty())?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let peer = OpenptFlags::from_bits_retain(flags.bits());
    let slave = ioctl_tiocgptpeer(&master, peer)?;
    Ok((master, slave))
}

/// A command that begins a session on a terminal.
fn on_terminal(slave: OwnedFd) -> Result<Command> {
    let mut command = Command::new("setsid");
    command.arg("-c").current_dir("/");
    command.stdin(Stdio::from(slave.try_clone()?));
    command.stdout(Stdio::from(slave.try_clone()?));
    command.stderr(Stdio::from(slave));
    Ok(command)
}

/// The session of a process.
fn session(pid: i32) -> Result<i32> {
    let pid = rustix::process::Pid::from_raw(pid);
    Ok(rustix::process::getsid(pid)?.as_raw_pid())
}

/// What a shell has started on its terminal goes on on another one, in the session of the restore.
fn shell_job() -> Result<Verdict> {
    let _alone = terminals();
    let engine = Engine::find()?;
    let folder = tempfile::Builder::new().prefix("gelid-job.").tempdir()?;
    let images = folder.path().join("images");
    let (master, slave) = terminal()?;
    let job = "while read word; do echo got $word; done";
    let mut shell = on_terminal(slave)?;
    shell.args(["sh", "-c", "sh -c \"$0\"; exit 0", job]);
    let mut shell = Tree::new(spawn(&mut shell)?.id().cast_signed());
    talk(&master, "before")?;
    let all = shell.look();
    let job = all.iter().find(|pid| **pid != shell.root());
    let job = *job.context("the shell has started nothing")?;
    let refused = engine.dump(job, &images, &[])?;
    must_fail(&refused, "a job without its shell")?;
    ensure!(told(&refused).contains("--shell-job"), "{}", told(&refused));
    talk(&master, "still")?;
    engine
        .dump(job, &images, &["--shell-job"])?
        .expect("dump")?;
    shell.await_death(LIMIT)?;
    let (master, slave) = terminal()?;
    let mut restore = on_terminal(slave)?;
    restore
        .arg(engine.program())
        .args(["restore", "--shell-job", "-D"]);
    let restore = Running::start(restore.arg(&images).args(["-o", "restore.log"]))?;
    talk(&master, "after")?;
    let (_, parent) = stat(job).context("no job")?;
    ensure!(parent == restore.pid(), "child of {parent}");
    ensure!(
        session(job)? == restore.pid(),
        "in session {}",
        session(job)?
    );
    Ok(Verdict::Passed)
}

fn told(outcome: &Outcome) -> String {
    format!("{}{}", outcome.output, outcome.log)
}

/// A socket goes on sending to one of somebody else, who has stayed.
fn ext_unix_sk() -> Result<Verdict> {
    let engine = Engine::find()?;
    let folder = tempfile::Builder::new()
        .prefix("gelid-outside.")
        .tempdir()?;
    let path = folder.path().join("socket");
    let outside = UnixDatagram::bind(&path)?;
    outside.set_read_timeout(Some(LIMIT))?;
    let hear = || -> Result<String> {
        let mut bytes = [0; 64];
        let length = outside.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    };
    let mut guest = start("unix-abroad", &[&path.display().to_string()])?;
    ensure!(hear()? == "before");
    let (root, images) = (guest.tree.root(), guest.images("images"));
    let refused = engine.dump(root, &images, &[])?;
    must_fail(&refused, "a socket of somebody else")?;
    ensure!(
        told(&refused).contains("--ext-unix-sk"),
        "{}",
        told(&refused)
    );
    guest.tree.look();
    engine
        .dump(root, &images, &["--ext-unix-sk"])?
        .expect("dump")?;
    guest.tree.await_death(LIMIT)?;
    engine
        .restore(&images, &["--ext-unix-sk"])?
        .expect("restore")?;
    guest.check()?;
    ensure!(hear()? == "after");
    Ok(Verdict::Passed)
}

/// A mount that cannot be dumped is not there any more.
fn skip_mnt() -> Result<Verdict> {
    let engine = Engine::find()?;
    let mut guest = start("mounts-unknown", &[])?;
    let (root, images) = (guest.tree.root(), guest.images("images"));
    let place = guest.path().join("a").display().to_string();
    let is_there = |guest: &Guest| -> Result<bool> {
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", guest.tree.root()))?;
        Ok(mounts.contains(&format!(" {place} ")))
    };
    ensure!(is_there(&guest)?, "no mount to be skipped");
    guest.tree.look();
    let given = ["--external", "mnt[]"];
    let skipping = [&given[..], &["--skip-mnt", &place]].concat();
    must_fail(&engine.dump(root, &images, &given)?, "its file system")?;
    engine.dump(root, &images, &skipping)?.expect("dump")?;
    guest.tree.await_death(LIMIT)?;
    engine.restore(&images, &skipping)?.expect("restore")?;
    ensure!(!is_there(&guest)?, "the mount is there");
    guest.check()?;
    Ok(Verdict::Passed)
}
