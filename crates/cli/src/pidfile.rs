//! `--pidfile`: a file for the pid of what goes on when this process has ended.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use rustix::process::Pid;

/// A pidfile that is new, and goes away again unless it is [kept](Self::keep).
pub(crate) struct Pidfile {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Pidfile {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// It is there already.
    pub(crate) fn create(path: PathBuf) -> anyhow::Result<Self> {
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

    /// Leaves it to another process, which has it too.
    pub(crate) fn leave(mut self) {
        self.kept = true;
    }

    /// Writes the pid: decimal, without a newline.
    pub(crate) fn keep(mut self, pid: Pid) -> anyhow::Result<()> {
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
