//! `cargo xtask bench`: the criterion benches, and with `--peer` or `--machine` the comparison.

use anyhow::Result;

use crate::process::{as_root, is_root, run};
use crate::{compare, workspace};

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run every bench once, without measuring
    #[arg(long, conflicts_with = "whole")]
    smoke: bool,
    #[command(flatten)]
    compare: compare::Comparison,
    /// Only benches, or rows of the comparison, whose name contains this
    filter: Option<String>,
}

impl Args {
    /// Runs them.
    pub(crate) fn run(self) -> Result<()> {
        if self.smoke {
            return smoke();
        }
        if self.compare.wanted() {
            return self.compare.run(self.filter.as_deref().unwrap_or_default());
        }
        let mut cargo = workspace::cargo();
        cargo.args([
            "bench",
            "--locked",
            "--package",
            "gelid-benches",
            "--benches",
            "--",
        ]);
        cargo.args(self.filter);
        run(run_as_root(&mut cargo))
    }
}

/// Runs every bench once, in the profile of the tests, so that none of them rots.
pub(crate) fn smoke() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--quiet", "--locked", "--workspace", "--bench", "*"]);
    run(run_as_root(&mut cargo))
}

/// Lets cargo start what it builds as root, while it builds as the user.
pub(crate) fn run_as_root(cargo: &mut std::process::Command) -> &mut std::process::Command {
    if !is_root() {
        let platform = workspace::platform().replace('-', "_").to_uppercase();
        let sudo = as_root("env");
        let words: Vec<_> = std::iter::once(sudo.get_program())
            .chain(sudo.get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        cargo.env(format!("CARGO_TARGET_{platform}_RUNNER"), words.join(" "));
    }
    cargo
}
