//! Action scripts: programs of the caller's that are run at certain moments. `spec/cli.md`, section 8.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use gelid_sys::inherit;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use crate::log::Output;
use crate::surroundings::Surroundings;

/// The scripts of a command, with what they are told.
pub(crate) struct Scripts {
    /// In the order in which they are run.
    files: Vec<PathBuf>,
    /// The folder of the images, kept open: its name for scripts leads through this descriptor.
    images: OwnedFd,
    work: PathBuf,
    output: Output,
}

impl Scripts {
    /// The scripts given, unless there are none.
    pub(crate) fn new(
        files: &[PathBuf],
        surroundings: &Surroundings,
    ) -> anyhow::Result<Option<Self>> {
        if files.is_empty() {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Some(Self {
            // Callers of CRIU may count on its order.
            files: files.iter().rev().cloned().collect(),
            images: rustix::fs::open(&surroundings.images, flags, Mode::empty())?,
            work: surroundings.work.clone(),
            output: surroundings.log.try_clone()?,
        }))
    }

    /// Runs all of them, whatever becomes of each.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub(crate) fn run(&self, action: &str, root: Option<Pid>) -> io::Result<()> {
        let mut all = Ok(());
        for file in &self.files {
            let ran = self.run_one(file, action, root);
            all = all.and(ran.map_err(|error| {
                let kind = error.kind();
                io::Error::new(
                    kind,
                    format!("the action script {}: {error}", file.display()),
                )
            }));
        }
        all
    }

    fn run_one(&self, file: &PathBuf, action: &str, root: Option<Pid>) -> io::Result<()> {
        tracing::debug!(script = %file.display(), action, "running");
        let images = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.images.as_raw_fd()
        );
        let mut command = Command::new(file);
        command
            .env("CRTOOLS_SCRIPT_ACTION", action)
            .env("CRTOOLS_IMAGE_DIR", images)
            .env_remove("CRTOOLS_INIT_PID")
            .current_dir(&self.work)
            .stdin(Stdio::null())
            .stdout(self.output.stdio()?)
            .stderr(self.output.stdio()?);
        if let Some(root) = root {
            command.env("CRTOOLS_INIT_PID", root.to_string());
        }
        inherit::nothing_from(3)?;
        let status = command.status()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{status}"))),
        }
    }
}
