//! `cargo xtask test`: everything that must hold before a change goes in.
//!
//! All steps run, whatever fails before them, so that one run tells everything.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::{run, run_lines};
use crate::{bench, deny, fuzz, gate, tidy, workspace};

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what needs neither root nor a build: format, tidy, clippy
    #[arg(long)]
    quick: bool,
    /// Only unit and integration tests whose name contains this
    #[arg(conflicts_with = "quick")]
    filter: Option<String>,
}

/// More failures than these are no accident.
const MOST_REPEATED: usize = 8;

/// Seconds of fuzzing for each target.
const FUZZ_SECONDS: u32 = 1;

impl Args {
    /// Runs the steps and prints how each of them went.
    pub(crate) fn run(self) -> Result<()> {
        let mut report = Report::default();
        if let Some(filter) = &self.filter {
            report.step("tests", |tests| unit_and_integration(tests, Some(filter)));
            return report.close();
        }
        report.step("format", |_| format());
        report.step("tidy", |_| tidy::check());
        report.step("clippy", |_| clippy());
        if !self.quick {
            report.step("deny", |_| deny::check());
            report.step("documentation", |_| documentation());
            report.step("tests", |tests| unit_and_integration(tests, None));
            report.step("bench smoke", |_| bench::smoke());
            report.step("speed", |_| gate::check(None));
            report.step("fuzz smoke", |_| {
                fuzz::targets(FUZZ_SECONDS, "", fuzz::Build::Soon)
            });
        }
        report.close()
    }
}

fn format() -> Result<()> {
    run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    run(workspace::cargo().args(["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"]))
}

fn clippy() -> Result<()> {
    run(workspace::cargo().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))
}

/// Every link of the documentation leads somewhere.
fn documentation() -> Result<()> {
    run(workspace::cargo()
        .args([
            "doc",
            "--quiet",
            "--workspace",
            "--no-deps",
            "--locked",
            "--exclude",
            "gelid",
        ])
        .env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Unit tests, examples in the documentation, and the integration tests that freeze real programs.
fn unit_and_integration(tests: &mut Tests, filter: Option<&str>) -> Result<()> {
    // The tests start gelid and the guest programs. All is built in one go: what is built for a part of the
    // workspace has other features, and would be built again.
    run(workspace::cargo().args([
        "build",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--locked",
    ]))?;
    let mut cargo = cargo_test();
    cargo.args(filter);
    let all = run_lines(bench::run_as_root(&mut cargo), |line| tests.count(line));
    if all.is_err() && !tests.failures.is_empty() && tests.failures.len() <= MOST_REPEATED {
        return repeat(tests);
    }
    all
}

/// All tests, that need not build the programs which they start.
fn cargo_test() -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    cargo.env("GELID_BUILT", "1");
    cargo
}

/// Runs what has failed once more, each test alone: whether a deadline is met is not to depend on what else the
/// machine does. What fails again has failed; what does not is named.
fn repeat(tests: &mut Tests) -> Result<()> {
    let mut failed = Vec::new();
    for name in std::mem::take(&mut tests.failures) {
        let mut cargo = cargo_test();
        cargo.args(["--", "--exact", &name]);
        let mut again = Tests::default();
        let run = run_lines(bench::run_as_root(&mut cargo), |line| again.count(line));
        if run.is_ok() && again.passed > 0 {
            tests.failed -= 1;
            tests.passed += 1;
            tests.repeated.push(name);
        } else {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed twice: {}", failed.join(", "))
}

/// The sum of the lines `test result: ok. 12 passed; 0 failed; 0 ignored; ...` of many test programs.
#[derive(Debug, Default)]
struct Tests {
    programs: u32,
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Names of those that failed.
    failures: Vec<String>,
    /// Names of those that failed at first, and passed alone.
    repeated: Vec<String>,
}

impl Tests {
    fn count(&mut self, line: &str) {
        let failed = line.strip_prefix("test ").and_then(failed_name);
        self.failures.extend(failed.map(str::to_owned));
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        self.programs += 1;
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|number| number.parse::<u64>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                (Some(number), Some("ignored")) => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// The name in `NAME ... FAILED`.
fn failed_name(line: &str) -> Option<&str> {
    let (name, verdict) = line.split_once(" ... ")?;
    (verdict.trim() == "FAILED").then_some(name.trim())
}

/// How each step went.
#[derive(Default)]
struct Report {
    steps: Vec<(&'static str, Duration, Result<()>)>,
    tests: Tests,
}

impl Report {
    fn step(&mut self, name: &'static str, step: impl FnOnce(&mut Tests) -> Result<()>) {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let done = step(&mut self.tests);
        if let Err(error) = &done {
            eprintln!("error: {error:#}");
        }
        self.steps.push((name, start.elapsed(), done));
    }

    /// Prints one line for each step and the sum of all tests; an error if any step failed.
    fn close(self) -> Result<()> {
        println!();
        let mut failed = Vec::new();
        let mut seconds = 0.0;
        for (name, time, done) in &self.steps {
            let word = if done.is_ok() { "ok" } else { "FAILED" };
            println!("{name:<13} {word:<6} {:>7.1} s", time.as_secs_f64());
            seconds += time.as_secs_f64();
            if done.is_err() {
                failed.push(*name);
            }
        }
        let Tests {
            programs,
            passed,
            failed: broken,
            ignored,
            repeated,
            ..
        } = self.tests;
        if !repeated.is_empty() {
            println!("failed at first, passed alone: {}", repeated.join(", "));
        }
        let word = if failed.is_empty() { "ok" } else { "FAILED" };
        println!(
            "test result: {word}. {passed} passed; {broken} failed; {ignored} ignored; \
             {programs} test programs, {} steps; finished in {seconds:.0} s",
            self.steps.len()
        );
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Tests;

    #[test]
    fn sums_the_lines_of_the_runner() {
        let mut tests = Tests::default();
        tests.count("running 3 tests");
        tests.count("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        tests.count("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        assert_eq!(
            (tests.programs, tests.passed, tests.failed, tests.ignored),
            (2, 7, 2, 1)
        );
        tests.count("test stopped/raw            ... FAILED");
        tests.count("test stopped/zstd           ... ok");
        assert_eq!(tests.failures, ["stopped/raw"]);
    }
}
