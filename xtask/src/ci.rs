//! `cargo xtask ci`: what continuous integration does, here and now.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::process::{self, run};
use crate::workspace;

/// Options of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep the clone for a look around
    #[arg(long)]
    keep: bool,
}

impl Args {
    /// Clones the last commit and runs `.ci/run` in it, with nothing built before.
    pub(crate) fn run(self) -> Result<()> {
        let clone = workspace::members(&workspace::root().join("Cargo.toml"))?
            .target_directory
            .join("ci-clone");
        if clone.exists() {
            remove(&clone)?;
        }
        run(Command::new("git")
            .args(["clone", "--quiet", "--no-hardlinks"])
            .arg(workspace::root())
            .arg(&clone))?;
        let start = Instant::now();
        let done = run(Command::new(clone.join(".ci/run"))
            .current_dir(&clone)
            .env_remove("CARGO_TARGET_DIR"));
        println!(
            "ci: {:.0} s from a fresh clone",
            start.elapsed().as_secs_f64()
        );
        if !self.keep {
            remove(&clone)?;
        }
        done
    }
}

/// The tests run as root, so what they built may be root's.
fn remove(clone: &std::path::Path) -> Result<()> {
    if process::is_root() {
        return fs::remove_dir_all(clone).context("removing the clone");
    }
    run(process::as_root("rm").args(["-rf", "--"]).arg(clone))
}
