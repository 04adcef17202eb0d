//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, one per decoder.
//!
//! The targets are built with the coverage counters that libFuzzer reads, by the stable compiler: no
//! sanitizer, since only crates without `unsafe` are fuzzed, and what is sought is panics, endless
//! loops and memory.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process::run;
use crate::workspace;

/// Counters and comparisons as libFuzzer wants them.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions --cfg fuzzing";

/// Folder for temporary files, beside the targets.
const SCRATCH: &str = "scratch";

/// No input may make a decoder hold more than this, in MiB.
const MEMORY_LIMIT: u32 = 512;

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only targets whose name contains this
    filter: Option<String>,
}

impl Args {
    /// Runs the targets one after the other.
    pub(crate) fn run(self) -> Result<()> {
        targets(
            self.seconds,
            self.filter.as_deref().unwrap_or(""),
            Build::Fast,
        )
    }
}

/// How the targets are built.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Build {
    /// To try many inputs.
    Fast,
    /// To be there soon.
    Soon,
}

impl Build {
    fn opt_level(self) -> &'static str {
        match self {
            Self::Fast => "1",
            Self::Soon => "0",
        }
    }
}

/// Runs every target whose name contains `filter` for some seconds.
pub(crate) fn targets(seconds: u32, filter: &str, how: Build) -> Result<()> {
    let folder = workspace::root().join("fuzz");
    let metadata = workspace::members(&folder.join("Cargo.toml"))?;
    let names: Vec<&str> = metadata
        .packages
        .iter()
        .flat_map(|package| &package.targets)
        .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
        .map(|target| target.name.as_str())
        .filter(|name| name.contains(filter))
        .collect();
    if names.is_empty() {
        bail!("no fuzz target is called {filter:?}");
    }
    let build = metadata.target_directory.join("instrumented");
    run(workspace::cargo()
        .current_dir(&folder)
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--bins",
            "--target",
            &workspace::platform(),
        ])
        .arg("--target-dir")
        .arg(&build)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", how.opt_level())
        .env("RUSTFLAGS", INSTRUMENTATION))?;
    let programs = build.join(workspace::platform()).join("release");
    for name in &names {
        fuzz(&folder, &programs.join(name), name, seconds)?;
    }
    fs::remove_dir_all(programs.join(SCRATCH)).context("removing what the targets wrote")?;
    println!(
        "fuzz: {} targets, {seconds} s each, nothing found",
        names.len()
    );
    Ok(())
}

/// Runs one target on its corpus and on the seeds that are part of the checkout.
fn fuzz(folder: &Path, program: &Path, name: &str, seconds: u32) -> Result<()> {
    let corpus = folder.join("corpus").join(name);
    let artifacts = folder.join("artifacts").join(name);
    let seeds = folder.join("seeds").join(name);
    // A target cannot remove its files itself, since libFuzzer ends it.
    let scratch = program.with_file_name(SCRATCH);
    fs::create_dir_all(&corpus).context("creating the corpus")?;
    fs::create_dir_all(&artifacts).context("creating the folder for findings")?;
    fs::create_dir_all(&scratch).context("creating a folder for temporary files")?;
    let mut command = std::process::Command::new(program);
    command
        .current_dir(folder)
        .env("TMPDIR", &scratch)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT}"))
        .arg("-timeout=5")
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    let output = command
        .output()
        .with_context(|| format!("{name} does not start"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "{said}\n{name}: {}; input kept in {}",
            output.status,
            artifacts.display()
        );
    }
    let inputs = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .map_or("no", str::trim);
    println!("{name:<16} {inputs} inputs");
    Ok(())
}
