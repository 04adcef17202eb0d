//! `cargo xtask tidy`: the rules of `ARCHITECTURE.md` and `CONTRIBUTING.md` that a program can check.
//!
//! It reads text and `cargo metadata`, builds nothing, and tells everything it finds at once. It is also a
//! test of this package, so that `cargo test` alone is enough to hear of it.

mod documents;
mod manifests;
mod sources;

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace::{self, Metadata};

/// Options of `cargo xtask tidy`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

impl Args {
    /// Checks the checkout.
    pub(crate) fn run(self) -> Result<()> {
        check()
    }
}

/// Checks the checkout and prints every problem; an error if there is one.
pub(crate) fn check() -> Result<()> {
    let problems = problems()?;
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => {
            println!("tidy: nothing to say");
            Ok(())
        }
        count => bail!("tidy: {count} problems"),
    }
}

/// What the checks look at.
struct Checkout {
    files: Vec<PathBuf>,
    members: Metadata,
    problems: Vec<String>,
}

impl Checkout {
    /// Notes a problem at a line (from 1), or of the file as a whole (0).
    fn problem(&mut self, file: &Path, line: usize, what: impl Display) {
        let file = file.display();
        self.problems.push(match line {
            0 => format!("{file}: {what}"),
            line => format!("{file}:{line}: {what}"),
        });
    }

    /// The text of a file that has to be there; noted as a problem, and empty, where it is not.
    fn text(&mut self, file: &str) -> String {
        match read(Path::new(file)) {
            Ok(text) => text,
            Err(error) => {
                self.problems.push(format!("{error:#}"));
                String::new()
            }
        }
    }
}

fn problems() -> Result<Vec<String>> {
    let mut checkout = Checkout {
        files: workspace::files()?,
        members: workspace::members(&workspace::root().join("Cargo.toml"))?,
        problems: Vec::new(),
    };
    sources::check(&mut checkout)?;
    manifests::check(&mut checkout)?;
    documents::check(&mut checkout);
    Ok(checkout.problems)
}

/// The text of a file of the checkout.
fn read(file: &Path) -> Result<String> {
    fs::read_to_string(workspace::root().join(file)).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checkout_is_tidy() {
        let problems = super::problems().unwrap();
        assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    }
}
