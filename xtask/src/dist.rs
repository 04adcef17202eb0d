//! `cargo xtask dist`: the executable as it is handed out.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result};

use crate::process::run;
use crate::workspace;

/// Files that go with the executable.
const DOCUMENTS: [&str; 5] = [
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "README.md",
    "SHORTCOMINGS.md",
    "CHANGELOG.md",
];

/// Options of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

impl Args {
    /// Builds and copies everything into `target/dist`.
    pub(crate) fn run(self) -> Result<()> {
        let gelid = build()?;
        let metadata = workspace::members(&workspace::root().join("Cargo.toml"))?;
        let dist = metadata.target_directory.join("dist");
        if dist.exists() {
            fs::remove_dir_all(&dist).context("removing the previous target/dist")?;
        }
        fs::create_dir_all(&dist).context("creating target/dist")?;
        fs::copy(&gelid, dist.join("gelid")).context("copying the executable")?;
        symlink("gelid", dist.join("criu")).context("linking criu to gelid")?;
        for name in DOCUMENTS {
            fs::copy(workspace::root().join(name), dist.join(name))
                .with_context(|| format!("copying {name}"))?;
        }
        let bytes = fs::metadata(&gelid)?.len();
        println!(
            "{}: gelid ({:.1} MiB), criu -> gelid, {}",
            dist.display(),
            bytes as f64 / 1048576.0,
            DOCUMENTS.join(", ")
        );
        Ok(())
    }
}

/// Builds the release executable and returns its path. `.cargo/link-static` has it linked statically.
pub(crate) fn build() -> Result<std::path::PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "--locked"]);
    cargo.args(["--package", "gelid"]);
    run(&mut cargo)?;
    let metadata = workspace::members(&workspace::root().join("Cargo.toml"))?;
    Ok(metadata.target_directory.join("release/gelid"))
}
