//! `gelid service`: a socket that clients connect to, and a process for each of them.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use gelid_rpc::Channel;
use gelid_sys::clone::fork_alone;
use gelid_sys::{Errno, inherit};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, setsid, waitpid};

use crate::action_scripts::Scripts;
use crate::args::{Invocation, Preset};
use crate::log::Log;
use crate::pidfile::Pidfile;
use crate::surroundings;

/// Where it is if nothing is said, relative to the work folder.
const ADDRESS: &str = "./criu_service.socket";

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Whoever may come to the folder may connect; what a client may ask for depends on who it is.
const MODE: u32 = 0o666;

/// Serves until it is killed.
pub(crate) fn run(invocation: &Invocation, log: &Log) -> anyhow::Result<ExitCode> {
    let surroundings = surroundings::enter(invocation, log)?;
    let options = &invocation.options;
    let address = options.memory.address.as_deref().unwrap_or(ADDRESS);
    let listener = open(Path::new(address))?;
    let pidfile = options.general.pidfile.clone();
    let pidfile = pidfile.map(Pidfile::create).transpose()?;
    if options.tasks.restore_detached && !go_to_background()? {
        if let Some(pidfile) = pidfile {
            pidfile.leave();
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(pidfile) = pidfile {
        pidfile.keep(rustix::process::getpid())?;
    }
    if let Some(scripts) = Scripts::new(&options.general.action_script, &surroundings)? {
        scripts.run("status-ready", None)?;
    }
    if let Some(fd) = options.general.status_fd {
        tell_ready(fd)?;
    }
    tracing::info!("The service socket is bound to {address}");
    let client = accept_all(&listener)?;
    drop((listener, surroundings));
    log.close(0);
    super::serve(Channel::new(client)?, Preset::default(), true, log)
}

/// A socket in the place of one that may be left over.
fn open(address: &Path) -> anyhow::Result<OwnedFd> {
    let cannot = || format!("cannot listen at {}", address.display());
    match fs::symlink_metadata(address) {
        Ok(found) if !found.file_type().is_socket() => {
            bail!("{}: there is a file that is no socket", address.display());
        }
        Ok(_) => fs::remove_file(address).with_context(cannot)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(cannot),
    }
    let listener = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let name = SocketAddrUnix::new(PathBuf::from(address)).with_context(cannot)?;
    bind(&listener, &name).with_context(cannot)?;
    fs::set_permissions(address, fs::Permissions::from_mode(MODE)).with_context(cannot)?;
    listen(&listener, BACKLOG).with_context(cannot)?;
    Ok(listener)
}

/// Forks; whether this is the process in the background.
fn go_to_background() -> anyhow::Result<bool> {
    if fork_alone()
        .context("cannot go to the background")?
        .is_some()
    {
        return Ok(false);
    }
    setsid()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(true)
}

/// Writes a NUL byte to a descriptor of the caller's.
fn tell_ready(fd: i32) -> anyhow::Result<()> {
    let status = || format!("--status-fd {fd}");
    let ours = inherit::duplicate(fd).with_context(status)?;
    rustix::io::write(&ours, &[0]).with_context(status)?;
    Ok(())
}

/// Accepts clients for ever; returns a connection in each process that is to serve one.
fn accept_all(listener: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let mut workers: Vec<(Pid, OwnedFd)> = Vec::new();
    loop {
        wait(listener, &mut workers)?;
        let connection = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(connection) => connection,
            Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => continue,
            // It comes again as soon as some have gone.
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                tracing::error!("cannot accept a client: {error}");
                std::thread::sleep(std::time::Duration::from_millis(100));
                continue;
            }
            Err(error) => return Err(error).context("cannot accept a client"),
        };
        match fork_alone() {
            Ok(None) => return Ok(connection),
            Ok(Some(pid)) => {
                tracing::debug!(worker = pid.as_raw_pid(), "a client has connected");
                workers.extend(hold(pid));
            }
            Err(error) => tracing::error!("cannot start a process for a client: {error}"),
        }
    }
}

/// A worker whose end can be waited for beside clients.
fn hold(pid: Pid) -> Option<(Pid, OwnedFd)> {
    let held = pidfd_open(pid, PidfdFlags::empty());
    if let Err(error) = held {
        tracing::warn!("worker {} is not reaped: {error}", pid.as_raw_pid());
    }
    held.ok().map(|pidfd| (pid, pidfd))
}

/// Waits for a client, and reaps workers meanwhile.
fn wait(listener: &OwnedFd, workers: &mut Vec<(Pid, OwnedFd)>) -> io::Result<()> {
    loop {
        let descriptors = workers.iter().map(|(_, pidfd)| pidfd.as_fd());
        let descriptors = std::iter::once(listener.as_fd()).chain(descriptors);
        let mut polled: Vec<PollFd<'_>> = descriptors
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ended = ready.iter().skip(1);
        workers.retain(|(pid, _)| match ended.next() {
            Some(true) => {
                let _ = waitpid(Some(*pid), WaitOptions::NOHANG);
                false
            }
            _ => true,
        });
        if ready.first() == Some(&true) {
            return Ok(());
        }
    }
}
