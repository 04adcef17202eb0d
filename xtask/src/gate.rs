//! `cargo xtask gate`: speed that must not slip.
//!
//! Pure work is counted in instructions, by callgrind: the same on any machine, so that a few percent tell. Work of
//! the kernel is measured beside what limits it, in the same run, as a ratio of medians with a wide bound. What was
//! counted once stands in `ci/baselines.json`, which `--renew REASON` writes anew, reason included.

mod counted;
mod limits;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process::is_installed;
use crate::workspace;

/// Instructions may grow by this much, percent.
const SLACK: u64 = 15;

/// Options of `cargo xtask gate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Take what is counted now for what is to be kept, for this reason
    #[arg(long, value_name = "REASON")]
    renew: Option<String>,
}

/// What is to be kept.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baselines {
    /// Why they are what they are.
    reason: String,
    /// Instructions, by the name of the work.
    instructions: BTreeMap<String, u64>,
}

impl Args {
    /// Counts and measures, and compares.
    pub(crate) fn run(self) -> Result<()> {
        check(self.renew)
    }
}

/// Counts and measures everything; an error names what has become slower.
pub(crate) fn check(renew: Option<String>) -> Result<()> {
    let path = workspace::root().join("ci/baselines.json");
    let built = counted::Built::new()?;
    let mut slower = Vec::new();
    if is_installed("valgrind") {
        let instructions = counted::all(&built)?;
        if let Some(reason) = renew {
            return write(&path, reason, instructions);
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let kept: Baselines = serde_json::from_str(&text).context("ci/baselines.json")?;
        slower.extend(compare(&kept.instructions, &instructions)?);
    } else {
        println!("instructions: not counted, there is no valgrind");
    }
    slower.extend(limits::exceeded(&built)?);
    match slower.is_empty() {
        true => Ok(()),
        false => bail!("slower than it was: {}", slower.join(", ")),
    }
}

fn write(path: &PathBuf, reason: String, instructions: BTreeMap<String, u64>) -> Result<()> {
    let baselines = Baselines {
        reason,
        instructions,
    };
    let text = serde_json::to_string_pretty(&baselines)?;
    fs::write(path, text + "\n").with_context(|| path.display().to_string())
}

/// Prints a line for each work; names of those that take more.
fn compare(kept: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Result<Vec<String>> {
    let mut slower = Vec::new();
    for (name, count) in now {
        let before = kept.get(name).with_context(|| {
            format!("{name} is not in ci/baselines.json: cargo xtask gate --renew")
        })?;
        let percent = *count as f64 / *before as f64 * 100.0;
        println!("instructions of {name:<10} {count:>12} ({percent:.1} % of what they were)");
        if count * 100 > before * (100 + SLACK) {
            slower.push(name.clone());
        }
    }
    Ok(slower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_by_much_is_told() {
        let of = |decode, plan| {
            BTreeMap::from([("decode".to_owned(), decode), ("plan".to_owned(), plan)])
        };
        let slower = compare(&of(1000, 1000), &of(1140, 1160)).unwrap();
        assert_eq!(slower, ["plan"]);
        assert!(compare(&BTreeMap::new(), &of(1, 1)).is_err());
    }
}
