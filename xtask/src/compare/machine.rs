//! A raw dump and restore beside what the machine needs for as many bytes at best, and the page pipeline with one worker
//! and with as many as there are processors.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::engine::Engine;
use super::table::{median, milliseconds};
use super::target::{Program, Running};
use crate::process::{output, run};
use crate::workspace;

/// MiB of the heap, which cannot be compressed.
const MIB: &str = "4096";
/// MiB that go through the pipeline alone.
const PIPELINE: &str = "1024";

/// Milliseconds of one round, by what took them.
type Round = BTreeMap<String, f64>;

/// All rounds.
#[derive(Default)]
pub(super) struct Table(Vec<Round>);

/// What takes how long, as `play` calls it.
const DUMP: &str = "gelid dump";
const RESTORE: &str = "gelid restore";

/// Something beside its limit.
type Share = (&'static str, fn(&Round) -> f64, &'static str);

const SHARES: [Share; 4] = [
    (
        "raw dump of 4 GiB, beside the slower of `process_vm_readv` and `write`",
        |round| of(round, "read").max(of(round, "write")),
        DUMP,
    ),
    (
        "raw dump of 4 GiB, beside `process_vm_readv` and `write` of each byte by as many workers",
        |round| of(round, "copy"),
        DUMP,
    ),
    (
        "raw restore of 4 GiB, beside `process_vm_writev` into pages that are collapsed for it",
        |round| of(round, "fill"),
        RESTORE,
    ),
    (
        "raw restore of 4 GiB, beside `process_vm_writev` into huge pages that are there",
        |round| of(round, "fill_again"),
        RESTORE,
    ),
];

/// Goes through the pipeline, or through bare calls that do the same without checksums.
const PIPELINES: [&str; 6] = [
    "dump raw",
    "dump bare",
    "dump zstd",
    "restore raw",
    "restore bare",
    "restore zstd",
];

/// Builds a program that measures the machine; its path.
pub(super) fn build(name: &str) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "--locked"]);
    run(cargo.args(["--package", "gelid-benches", "--bin", name]))?;
    let target = workspace::members(&workspace::root().join("Cargo.toml"))?.target_directory;
    Ok(target.join("release").join(name))
}

/// The limits, a dump, a restore and the pipelines.
pub(super) fn play(engine: &Engine, guests: &Path, machine: &Path, folder: &Path) -> Result<Round> {
    let mut round = measured(machine, "limits", MIB, folder)?;
    let images = folder.join("images");
    fs::create_dir(&images)?;
    let heap = Program::Guest("idle-heap", &[MIB, "noise"]);
    let mut running = Running::start(&heap, guests, &folder.join("work"))?;
    // The host finds memory for the images, which the dump would wait for otherwise.
    output(Command::new(machine).args(["warm", MIB]).arg(folder))?;
    let dump = engine.dump(running.pid(), &images, false)?;
    running.await_death()?;
    let restore = engine.restore(&images)?;
    running.finish().context("the restored program")?;
    round.insert(DUMP.to_owned(), milliseconds(dump.wall));
    round.insert(RESTORE.to_owned(), milliseconds(restore.wall));
    round.extend(measured(machine, "scaling", PIPELINE, folder)?);
    Ok(round)
}

fn measured(machine: &Path, what: &str, mib: &str, folder: &Path) -> Result<Round> {
    let workers = workers()?.to_string();
    let text = output(
        Command::new(machine)
            .args([what, mib, &workers])
            .arg(folder),
    )?;
    serde_json::from_str(&text).with_context(|| format!("{what}: {text}"))
}

/// As many as gelid has.
fn workers() -> Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

fn of(round: &Round, name: &str) -> f64 {
    round.get(name).copied().unwrap_or(f64::NAN)
}

impl Table {
    pub(super) fn add(&mut self, round: Round) {
        self.0.push(round);
    }

    /// Every single figure.
    pub(super) fn figures(&self) -> Value {
        serde_json::json!(self.0)
    }

    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(&self.0, figure)
    }
}

impl Display for Table {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "Medians of {}.\n", self.0.len())?;
        writeln!(out, "| what | limit ms | gelid ms | share of the limit |")?;
        writeln!(out, "| --- | ---: | ---: | ---: |")?;
        for (name, limit, own) in SHARES {
            let share = self.median(|round| limit(round) / of(round, own));
            let (limit, own) = (self.median(limit), self.median(|round| of(round, own)));
            writeln!(
                out,
                "| {name} | {limit:.0} | {own:.0} | {:.0} % |",
                share * 100.0
            )?;
        }
        let workers = workers().map_err(|_| fmt::Error)?;
        writeln!(
            out,
            "\n| pages of 1 GiB of objects | 1 worker ms | {workers} workers ms | times as fast |"
        )?;
        writeln!(out, "| --- | ---: | ---: | ---: |")?;
        for name in PIPELINES {
            let one = |round: &Round| of(round, &format!("{name} 1"));
            let all = |round: &Round| of(round, &format!("{name} {workers}"));
            let faster = self.median(|round| one(round) / all(round));
            let (one, all) = (self.median(one), self.median(all));
            writeln!(out, "| {name} | {one:.0} | {all:.0} | {faster:.2} |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_slower_limit() {
        let names = [
            ("read", 300.0),
            ("write", 700.0),
            ("fill", 450.0),
            (DUMP, 1000.0),
            (RESTORE, 500.0),
        ];
        let round = names.map(|(name, value)| (name.to_owned(), value));
        let mut table = Table::default();
        table.add(round.into());
        let text = table.to_string();
        assert!(text.contains("| 700 | 1000 | 70 % |"), "{text}");
        assert!(text.contains("| 450 | 500 | 90 % |"), "{text}");
    }
}
