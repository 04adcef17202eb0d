//! The console of a container: a terminal whose master is the client's, before and after.

use super::Test;
use anyhow::{Context, Result, bail, ensure};
use gelid_rpc::messages::{Options, Request, RequestKind};
use gelid_tests::{Client, Engine, Reply, Tree, Verdict, consent, request, spawn, terminals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{grantpt, ioctl_tiocgptpeer, unlockpt};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

pub(super) const TESTS: &[Test] = &[
    ("console", console),
    ("console-that-nobody-takes", console_that_nobody_takes),
];

/// A shell on a terminal that answers to each line.
struct Shell {
    tree: Tree,
    master: OwnedFd,
    engine: Engine,
    folder: TempDir,
    images: File,
}

impl Shell {
    fn start() -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty())?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(
            &master,
            rustix::pty::OpenptFlags::from_bits_retain(flags.bits()),
        )?;
        let mut command = Command::new("setsid");
        command.args(["-c", "sh", "-c", "while read word; do echo got $word; done"]);
        command.current_dir("/");
        command.stdin(Stdio::from(slave.try_clone()?));
        command.stdout(Stdio::from(slave.try_clone()?));
        command.stderr(Stdio::from(slave));
        let pid = spawn(&mut command)?.id().cast_signed();
        let folder = tempfile::Builder::new()
            .prefix("gelid-console.")
            .tempdir()?;
        let shell = Self {
            tree: Tree::new(pid),
            master,
            engine: Engine::find()?,
            images: File::open(folder.path())?,
            folder,
        };
        talk(&shell.master, "before")?;
        Ok(shell)
    }

    fn options(&self) -> Options {
        Options {
            images_dir_fd: self.images.as_raw_fd(),
            log_level: Some(4),
            orphan_pts_master: Some(true),
            ..Options::default()
        }
    }

    fn dump(&mut self) -> Result<()> {
        let options = Options {
            pid: Some(self.tree.root()),
            ..self.options()
        };
        self.tree.look();
        let client = Client::swrk(&self.engine, |_| {})?;
        let dump = request(RequestKind::Dump, Some(options));
        client.ask(&dump)?.expect("dump")?;
        ensure!(client.end()? == Some(0));
        self.tree.await_death(Duration::from_secs(20))
    }

    fn restore(&self, takes: bool) -> Result<Reply> {
        let options = Options {
            notify_scripts: Some(true),
            rst_sibling: Some(true),
            ..self.options()
        };
        let client = Client::swrk(&self.engine, |_| {})?;
        let restore = request(RequestKind::Restore, Some(options));
        client.ask_with(&restore, |told| {
            let console = told.script.as_deref() == Some("orphan-pts-master");
            Some(Request {
                notify_success: Some(takes || !console),
                ..consent()
            })
        })
    }
}

/// Says a word and waits for the answer.
pub(crate) fn talk(master: &OwnedFd, word: &str) -> Result<()> {
    rustix::io::write(master, format!("{word}\n").as_bytes())?;
    let (mut said, expected) = (String::new(), format!("got {word}\r\n"));
    while !said.ends_with(&expected) {
        let mut polled = [PollFd::new(master, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        ensure!(poll(&mut polled, Some(&patience))? == 1, "only {said:?}");
        let mut bytes = [0; 256];
        let length = rustix::io::read(master, &mut bytes).with_context(|| said.clone())?;
        said.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    Ok(())
}

fn console() -> Result<Verdict> {
    let _alone = terminals();
    let mut shell = Shell::start()?;
    shell.dump()?;
    // The number is free for the restore.
    shell.master = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mut reply = shell.restore(true)?.expect("restore")?;
    let names = [
        "pre-restore",
        "orphan-pts-master",
        "post-restore",
        "pre-resume",
        "post-resume",
    ];
    ensure!(reply.names() == names, "{:?}", reply.told);
    let Some(master) = reply.descriptors.pop() else {
        bail!("no descriptor came");
    };
    ensure!(reply.descriptors.is_empty());
    talk(&master, "after")?;
    // It is the controlling terminal again: without it the shell is hung up.
    drop(master);
    shell.tree.await_death(Duration::from_secs(20))?;
    drop(shell.folder);
    Ok(Verdict::Passed)
}

fn console_that_nobody_takes() -> Result<Verdict> {
    let _alone = terminals();
    let mut shell = Shell::start()?;
    shell.dump()?;
    shell.master = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let reply = shell.restore(false)?;
    ensure!(!reply.response.success, "there is no terminal");
    ensure!(reply.names().last() == Some(&"orphan-pts-master"));
    shell.tree.await_death(Duration::from_secs(1))?;
    Ok(Verdict::Passed)
}
