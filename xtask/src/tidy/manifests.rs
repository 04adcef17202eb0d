//! Rules for `Cargo.toml`: everything shared is inherited, dependencies point down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Checkout, read};

/// What a member takes from `[workspace.package]`.
const INHERITED: [&str; 6] = [
    "version",
    "edition",
    "rust-version",
    "license",
    "authors",
    "publish",
];

/// Checks every manifest, and the imports of every member against the code map.
pub(super) fn check(checkout: &mut Checkout) -> Result<()> {
    let manifests: Vec<PathBuf> = checkout
        .members
        .packages
        .iter()
        .map(|package| package.folder().join("Cargo.toml"))
        .collect();
    for manifest in manifests {
        check_manifest(checkout, &manifest, &read(&manifest)?);
    }
    check_code_map(checkout);
    Ok(())
}

fn check_manifest(checkout: &mut Checkout, file: &Path, text: &str) {
    let mut section = "";
    let mut seen = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        let inherits = key.ends_with(".workspace") || value.contains("workspace = true");
        let name = key.strip_suffix(".workspace").unwrap_or(key);
        match section {
            "package" if INHERITED.contains(&name) => {
                if inherits {
                    seen.insert(name);
                } else {
                    checkout.problem(
                        file,
                        number,
                        format_args!("{name} is inherited from the workspace"),
                    );
                }
            }
            "lints" if key == "workspace" && value == "true" => {
                seen.insert("lints");
            }
            "dependencies" | "dev-dependencies" | "build-dependencies" if !inherits => {
                checkout.problem(
                    file,
                    number,
                    format_args!("{name} is a [workspace.dependencies] entry"),
                );
            }
            _ => {}
        }
    }
    for name in INHERITED.iter().chain(&["lints"]) {
        if !seen.contains(name) {
            checkout.problem(
                file,
                0,
                format_args!("{name} is not inherited from the workspace"),
            );
        }
    }
}

/// One row of the code map: the package and the crates that it may import, without `gelid-`.
type Row = (String, BTreeSet<String>);

/// Compares the table in `ARCHITECTURE.md` with the members and their dependencies.
fn check_code_map(checkout: &mut Checkout) {
    let file = Path::new("ARCHITECTURE.md");
    let text = checkout.text("ARCHITECTURE.md");
    let map = code_map(&text);
    let members: BTreeMap<String, Row> = checkout
        .members
        .packages
        .iter()
        .map(|package| {
            let imports = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind.is_none())
                .filter_map(|dependency| dependency.name.strip_prefix("gelid-"))
                .map(str::to_owned)
                .collect();
            (
                package.folder().display().to_string(),
                (package.name.clone(), imports),
            )
        })
        .collect();
    for (folder, (package, imports)) in &members {
        match map.get(folder) {
            None => checkout.problem(file, 0, format_args!("the code map lacks `{folder}`")),
            Some((name, _)) if name != package => {
                checkout.problem(
                    file,
                    0,
                    format_args!("`{folder}` is the package {package}, not {name}"),
                );
            }
            Some((_, allowed)) if allowed != imports => {
                checkout.problem(
                    file,
                    0,
                    format_args!("`{folder}` imports {imports:?}, the code map says {allowed:?}"),
                );
            }
            Some(_) => {}
        }
    }
    for folder in map.keys().filter(|folder| !members.contains_key(*folder)) {
        checkout.problem(
            file,
            0,
            format_args!("`{folder}` is in the code map but no member"),
        );
    }
}

/// The rows `| folder | package | holds | imports |` under the heading "Code map".
fn code_map(text: &str) -> BTreeMap<String, Row> {
    text.lines()
        .skip_while(|line| *line != "## Code map")
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
            let [folder, package, _holds, imports, ..] = cells.as_slice() else {
                return None;
            };
            let folder = folder.strip_prefix('`')?.strip_suffix('`')?;
            let imports = imports
                .split(", ")
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            Some((
                folder.to_owned(),
                (package.trim_matches('`').to_owned(), imports),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::code_map;

    #[test]
    fn reads_the_rows_of_the_map() {
        let text = "## Code map\n| path | package | holds | imports |\n| --- | --- | --- | --- |\n\
                    | `crates/a` | `gelid-a` | things | sys, tape |\n| `b` | `b` | none | |\n## Next\n| `c` | | | |\n";
        let map = code_map(text);
        assert_eq!(map.len(), 2);
        assert_eq!(map["crates/a"].0, "gelid-a");
        assert_eq!(
            map["crates/a"].1.iter().collect::<Vec<_>>(),
            ["sys", "tape"]
        );
        assert!(map["b"].1.is_empty());
    }
}
