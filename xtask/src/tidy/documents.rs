//! Rules for documents: licences are whole, commands that are told exist, links lead somewhere.

use std::path::Path;

use clap::Parser;

use super::Checkout;
use crate::{Cli, workspace};

/// Documents whose commands and links are checked.
const DOCUMENTS: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SHORTCOMINGS.md",
    "CHANGELOG.md",
];

/// What each licence file has to contain.
const LICENCES: [(&str, &str); 4] = [
    ("LICENSE-MIT", "The gelid developers"),
    ("LICENSE-MIT", "WITHOUT WARRANTY OF ANY KIND"),
    ("LICENSE-APACHE", "Copyright 2026 The gelid developers"),
    ("LICENSE-APACHE", "END OF TERMS AND CONDITIONS"),
];

/// Checks licences, documents and `.ci/run`.
pub(super) fn check(checkout: &mut Checkout) {
    for (file, words) in LICENCES {
        if !checkout.text(file).contains(words) {
            checkout.problem(Path::new(file), 0, format_args!("{words:?} is missing"));
        }
    }
    for file in DOCUMENTS {
        let text = checkout.text(file);
        check_commands(checkout, file, &text);
        check_links(checkout, file, &text);
    }
    let ci = checkout.text(".ci/run");
    check_commands(checkout, ".ci/run", &format!("```sh\n{ci}"));
}

/// Every `cargo xtask` line of a shell block is parsed by the commands themselves; every `gelid` command
/// has its file.
fn check_commands(checkout: &mut Checkout, file: &str, text: &str) {
    let mut shell = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(language) = line.trim().strip_prefix("```") {
            shell = language == "sh";
            continue;
        }
        let code = line.split('#').next().unwrap_or("").trim();
        let code = code.strip_prefix("exec ").unwrap_or(code);
        let words: Vec<&str> = code.split_whitespace().collect();
        match words.as_slice() {
            ["cargo", "xtask", options @ ..] if shell => {
                // Numbers stand for what a reader fills in.
                let options = options
                    .iter()
                    .map(|word| if *word == "PID" { "1" } else { word });
                if let Err(error) = Cli::try_parse_from(std::iter::once("xtask").chain(options)) {
                    let error = error.to_string();
                    let first = error.lines().next().unwrap_or_default();
                    checkout.problem(Path::new(file), number, format_args!("`{code}`: {first}"));
                }
            }
            ["gelid", command, ..] if shell => {
                let source = format!("crates/cli/src/{command}.rs");
                if !workspace::root().join(source).is_file() {
                    checkout.problem(
                        Path::new(file),
                        number,
                        format_args!("there is no `gelid {command}`"),
                    );
                }
            }
            _ => {}
        }
    }
}

/// Links to files of the checkout lead to files.
fn check_links(checkout: &mut Checkout, file: &str, text: &str) {
    for (number, line) in (1..).zip(text.lines()) {
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            let outside = target.is_empty() || target.contains("://");
            if !outside && !workspace::root().join(target).exists() {
                checkout.problem(
                    Path::new(file),
                    number,
                    format_args!("the link to {target} leads nowhere"),
                );
            }
        }
    }
}
