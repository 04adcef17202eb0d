//! Developer commands of the workspace: `cargo xtask COMMAND`.
//!
//! Each command is a file. What they share is [`workspace`] (where things are) and [`process`] (running
//! other programs and telling what was run).

#![forbid(unsafe_code)]

mod bench;
mod ci;
mod compare;
mod deny;
mod dist;
mod dump;
mod fuzz;
mod gate;
mod process;
mod restore;
mod sample;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Developer commands of the gelid workspace.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Dump a real program, kill it, restore it and prove that it went on; or dump any tree
    Dump(dump::Args),
    /// Restore a tree that was dumped with `cargo xtask dump --tree`
    Restore(restore::Args),
    /// Run every check: format, tidy, deny, clippy, tests, fuzz smoke, bench smoke
    Test(test::Args),
    /// Run the criterion benches
    Bench(bench::Args),
    /// Count instructions and measure ratios, and compare them with what they were
    Gate(gate::Args),
    /// Run the fuzz targets
    Fuzz(fuzz::Args),
    /// Do what continuous integration does: `.ci/run` in a fresh clone of the last commit
    Ci(ci::Args),
    /// Check the rules of ARCHITECTURE.md that a program can check
    Tidy(tidy::Args),
    /// Check the licences and sources of all dependencies
    Deny(deny::Args),
    /// Build the release executable, with the link `criu` and the licences, into target/dist
    Dist(dist::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Dump(args) => args.run(),
        Command::Restore(args) => args.run(),
        Command::Test(args) => args.run(),
        Command::Bench(args) => args.run(),
        Command::Gate(args) => args.run(),
        Command::Fuzz(args) => args.run(),
        Command::Ci(args) => args.run(),
        Command::Tidy(args) => args.run(),
        Command::Deny(args) => args.run(),
        Command::Dist(args) => args.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
