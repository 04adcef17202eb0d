//! What differs between two looks at a tree, one readable line for each difference.

use crate::snapshot::{Facts, Snapshot, TaskFacts};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is not as it was; empty if all is.
#[must_use]
pub fn compare(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let pids: BTreeSet<i32> = before
        .tasks
        .keys()
        .chain(after.tasks.keys())
        .copied()
        .collect();
    let mut lines = Vec::new();
    for pid in pids {
        match (before.tasks.get(&pid), after.tasks.get(&pid)) {
            (Some(before), Some(after)) if ended(after) && !ended(before) => {
                lines.push(format!("process {pid} has ended"));
            }
            (Some(before), Some(after)) => {
                lines.extend(diff(
                    &format!("process {pid}"),
                    &before.process,
                    &after.process,
                ));
                lines.extend(threads(&before.threads, &after.threads));
            }
            (Some(_), None) => lines.push(format!("process {pid} is gone")),
            _ => lines.push(format!("process {pid} was not there before")),
        }
    }
    lines
}

/// Whether it is a zombie.
fn ended(task: &TaskFacts) -> bool {
    task.process
        .get("state")
        .is_some_and(|state| state == "zombie")
}

/// Differences between the threads of a process.
fn threads(before: &BTreeMap<i32, Facts>, after: &BTreeMap<i32, Facts>) -> Vec<String> {
    let tids: BTreeSet<i32> = before.keys().chain(after.keys()).copied().collect();
    tids.into_iter()
        .flat_map(|tid| match (before.get(&tid), after.get(&tid)) {
            (Some(before), Some(after)) => diff(&format!("thread {tid}"), before, after),
            (Some(_), None) => vec![format!("thread {tid} is gone")],
            _ => vec![format!("thread {tid} was not there before")],
        })
        .collect()
}

/// Differences between facts about one object.
#[must_use]
pub fn diff(object: &str, before: &Facts, after: &Facts) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .flat_map(|name| one(object, name, before.get(name), after.get(name)))
        .collect()
}

/// Differences in one fact; by lines where it has several.
fn one(object: &str, name: &str, before: Option<&String>, after: Option<&String>) -> Vec<String> {
    match (before, after) {
        (Some(before), Some(after)) if before == after => Vec::new(),
        (Some(before), Some(after)) if before.contains('\n') || after.contains('\n') => {
            let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
                (before.lines().collect(), after.lines().collect());
            let lost = old
                .difference(&new)
                .map(|line| format!("{object} {name}: - {line}"));
            let gained = new
                .difference(&old)
                .map(|line| format!("{object} {name}: + {line}"));
            lost.chain(gained).collect()
        }
        (Some(before), Some(after)) => vec![format!("{object} {name}: {before} became {after}")],
        (Some(before), None) => vec![format!("{object} {name}: {before} is gone")],
        (None, Some(after)) => vec![format!("{object} {name}: {after} is new")],
        (None, None) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> Facts {
        pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn long_facts_differ_by_line() {
        let lines = diff(
            "p",
            &facts(&[("maps", "a\nb\n")]),
            &facts(&[("maps", "a\nc\n")]),
        );
        assert_eq!(lines, ["p maps: - b", "p maps: + c"]);
    }

    #[test]
    fn lost_and_new_processes_are_named() {
        let tree = |pids: &[i32]| Snapshot {
            tasks: pids
                .iter()
                .map(|pid| (*pid, TaskFacts::default()))
                .collect(),
        };
        assert_eq!(
            compare(&tree(&[1, 2]), &tree(&[2, 3])),
            ["process 1 is gone", "process 3 was not there before"]
        );
        assert!(compare(&tree(&[1]), &tree(&[1])).is_empty());
    }

    #[test]
    fn a_fact_that_goes_is_reported() {
        assert_eq!(
            diff("p", &facts(&[("fd 3", "x")]), &facts(&[])),
            ["p fd 3: x is gone"]
        );
    }
}
