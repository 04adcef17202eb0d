//! `cargo xtask deny`: licences, sources and bans of every dependency, as `deny.toml` says.
//!
//! The database of advisories is fetched from the network at every run, so it is not part of the
//! tests: `cargo deny check advisories` asks for it.

use anyhow::Result;

use crate::process::{is_installed, run};
use crate::workspace;

/// Options of `cargo xtask deny`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

impl Args {
    /// Checks them.
    pub(crate) fn run(self) -> Result<()> {
        check()
    }
}

/// Runs cargo-deny, and installs it first where it is missing.
pub(crate) fn check() -> Result<()> {
    if !is_installed("cargo-deny") {
        // Unoptimized: it runs for a second, and is built in half the time.
        run(workspace::cargo().args(["install", "--quiet", "--locked", "--debug", "cargo-deny"]))?;
    }
    // Everything that the graph needs is here once the workspace has been built or fetched.
    run(workspace::cargo().args(["fetch", "--quiet", "--locked"]))?;
    run(workspace::cargo().args([
        "deny",
        "--offline",
        "--log-level",
        "error",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))
}
