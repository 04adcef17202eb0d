//! `gelid restore`: from options to a restore, and what follows it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use gelid_image::messages::RestoreStatsEntry;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};

use crate::args::{InheritFd, Invocation};
use crate::surroundings::Surroundings;
use crate::{log, statistics};

/// Restores the tree and says how it went; waits for its end unless it is detached.
pub(crate) fn run(
    invocation: &Invocation,
    surroundings: &Surroundings,
) -> anyhow::Result<ExitCode> {
    let options = &invocation.options;
    let pidfile = options
        .general
        .pidfile
        .clone()
        .map(Pidfile::create)
        .transpose()?;
    match restore(invocation, surroundings).and_then(|(root, stats)| {
        pidfile.map(|pidfile| pidfile.keep(root)).transpose()?;
        Ok(stats)
    }) {
        Ok(stats) => {
            if options.general.display_stats {
                print!("{}", statistics::Restore(&stats));
            }
            tracing::info!("Restore finished successfully. Tasks resumed.");
        }
        Err(error) => {
            tracing::error!("{}", log::one_line(&error));
            tracing::error!("Restoring FAILED.");
            return Ok(ExitCode::FAILURE);
        }
    }
    if let (true, [program, words @ ..]) = (options.tasks.exec_cmd, invocation.words.as_slice()) {
        let error = Command::new(program).args(words).exec();
        return Err(error).with_context(|| format!("cannot execute {}", program.display()));
    }
    if !options.tasks.restore_detached {
        wait_for_children()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The root of the restored tree, as the caller sees it, and statistics.
fn restore(
    invocation: &Invocation,
    surroundings: &Surroundings,
) -> anyhow::Result<(Pid, RestoreStatsEntry)> {
    let options = &invocation.options;
    for inherited in &options.files.inherit_fd {
        if let InheritFd::Debug { fd, text } = inherited {
            fs::write(format!("/proc/self/fd/{fd}"), text)?;
        }
    }
    tracing::debug!(
        images = %surroundings.images.display(),
        work = %surroundings.work.display(),
        validation = ?options.files.file_validation,
        "options"
    );
    anyhow::bail!("restore is not built yet")
}

/// Until every restored task that is a child of this process is gone.
fn wait_for_children() -> anyhow::Result<()> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(errno) => return Err(errno).context("waiting for the restored tasks"),
        }
    }
}

/// A pidfile that is new, and goes away again unless it is [kept](Self::keep).
struct Pidfile {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Pidfile {
    fn create(path: PathBuf) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let file = file.with_context(|| format!("cannot create the pidfile {}", path.display()))?;
        Ok(Self {
            path,
            file,
            kept: false,
        })
    }

    /// Writes the pid: decimal, without a newline.
    fn keep(mut self, pid: Pid) -> anyhow::Result<()> {
        self.file
            .write_all(pid.to_string().as_bytes())
            .with_context(|| format!("cannot write the pidfile {}", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing is lost if it stays: it is empty.
            let _ = fs::remove_file(&self.path);
        }
    }
}
