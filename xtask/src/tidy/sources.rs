//! Rules for Rust sources: headers, length, names, `unsafe`, notes to self.

use std::path::Path;

use anyhow::Result;

use super::{Checkout, read};

/// A file that is longer is more than one thing.
const MAX_LINES: usize = 500;

/// Folders in which `unsafe` may be written.
const UNSAFE_HOMES: [&str; 3] = ["crates/sys", "crates/tape", "tests/guests"];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "misc", "helper", "helpers"];

/// What a finished change does not contain. In halves, since this file is checked as well.
const UNFINISHED: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("#[ig", "nore"),
];

/// Checks every source, and the roots of every crate.
pub(super) fn check(checkout: &mut Checkout) -> Result<()> {
    let sources: Vec<_> = checkout
        .files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .cloned()
        .collect();
    for file in sources {
        check_source(checkout, &file, &read(&file)?);
    }
    check_roots(checkout)
}

fn check_source(checkout: &mut Checkout, file: &Path, text: &str) {
    if !text.starts_with("//!") {
        checkout.problem(file, 1, "a source opens with `//!` and says what it is for");
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        checkout.problem(
            file,
            0,
            format_args!("{lines} lines; more than {MAX_LINES}"),
        );
    }
    let names = file.with_extension("");
    if names
        .iter()
        .any(|name| EMPTY_NAMES.iter().any(|empty| name == *empty))
    {
        checkout.problem(file, 0, "a module is named after what it is");
    }
    let unsafe_home = UNSAFE_HOMES.iter().any(|home| file.starts_with(home));
    for (number, line) in (1..).zip(text.lines()) {
        for word in UNFINISHED {
            if line.contains(word) {
                checkout.problem(
                    file,
                    number,
                    format_args!("{word}: build it, or refuse it by name"),
                );
            }
        }
        if !unsafe_home && uses_unsafe(line) {
            checkout.problem(file, number, "`unsafe` outside sys and tape");
        }
    }
}

/// Whether a line of code, not of a comment, opens something unsafe.
fn uses_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    code.match_indices("unsafe").any(|(at, word)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].trim_start();
        let alone =
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"' || c == '`');
        alone
            && ["{", "(", "fn ", "impl ", "impl<", "extern ", "trait "]
                .iter()
                .any(|next| after.starts_with(next))
    })
}

/// The roots of crates: what a crate is, and that it forbids `unsafe` where it has no home.
fn check_roots(checkout: &mut Checkout) -> Result<()> {
    let mut roots = Vec::new();
    for package in &checkout.members.packages {
        let folder = package.folder().to_owned();
        for target in &package.targets {
            let library = target.kind.iter().any(|kind| kind == "lib");
            if library || target.kind.iter().any(|kind| kind == "bin") {
                let path = target
                    .src_path
                    .strip_prefix(crate::workspace::root())
                    .unwrap_or(&target.src_path);
                roots.push((folder.clone(), path.to_owned(), library));
            }
        }
    }
    for (folder, root, library) in roots {
        let text = read(&root)?;
        let unsafe_home = UNSAFE_HOMES.iter().any(|home| folder.starts_with(home));
        if !unsafe_home && !text.contains("#![forbid(unsafe_code)]") {
            checkout.problem(
                &root,
                0,
                "a crate outside sys and tape says #![forbid(unsafe_code)]",
            );
        }
        if library && folder.starts_with("crates") {
            let header: Vec<_> = text
                .lines()
                .take_while(|line| line.starts_with("//!"))
                .collect();
            let says = |word: &str| header.iter().any(|line| line.to_lowercase().contains(word));
            if !says("limitation") || !says("```") {
                checkout.problem(
                    &root,
                    0,
                    "the header of a library states model, limitations, and an example",
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::uses_unsafe;

    #[test]
    fn tells_unsafe_code_from_words() {
        assert!(uses_unsafe(concat!("    uns", "afe { call() }")));
        assert!(uses_unsafe(concat!("pub uns", "afe fn call();")));
        assert!(uses_unsafe(concat!("#[uns", "afe(no_mangle)]")));
        assert!(!uses_unsafe("#![forbid(unsafe_code)]"));
        assert!(!uses_unsafe("// unsafe { is a comment }"));
        assert!(!uses_unsafe("let text = \"unsafe { }\";"));
    }
}
