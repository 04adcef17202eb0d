//! `cargo xtask restore`: the engine on the images of any tree.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{as_root, run};
use crate::{dist, workspace};

/// Options of `cargo xtask restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the images
    #[arg(short = 'D', long, value_name = "DIR")]
    images_dir: PathBuf,
    /// More options for `gelid restore`, after `--`
    #[arg(last = true)]
    options: Vec<String>,
}

impl Args {
    /// Builds gelid and restores the images, detached.
    pub(crate) fn run(self) -> Result<()> {
        let gelid = dist::build()?;
        run(as_root(gelid)
            .current_dir(workspace::root())
            .args([
                "restore",
                "--restore-detached",
                "--display-stats",
                "--images-dir",
            ])
            .arg(std::path::absolute(self.images_dir)?)
            .args(self.options))
    }
}
