//! What semaphores get back when a process ends.

use gelid_image::messages::{CoreEntry, GelidUndoEntry};
use gelid_sys::ipc::sem;

use super::super::PlanError;

/// What a semaphore gets back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undo {
    /// Id of the set.
    pub(crate) set: i32,
    /// Number of the semaphore in it.
    pub(crate) number: u16,
    /// What is added to it.
    pub(crate) change: i32,
}

/// Reads it from the record of a process.
pub(crate) fn read(pid: i32, core: &CoreEntry) -> Result<Vec<Undo>, PlanError> {
    let process = core.tc.as_ref().and_then(|process| process.gelid.as_ref());
    let entries = process.map_or(&[][..], |gelid| &gelid.undo);
    let checked = entries.iter().map(|entry| {
        check(entry).ok_or(PlanError::Core {
            pid,
            what: "what a semaphore gets back is impossible",
        })
    });
    checked.collect()
}

fn check(entry: &GelidUndoEntry) -> Option<Undo> {
    let most = i32::from(sem::MOST);
    let possible = entry.change != 0 && (-most - 1..=most).contains(&entry.change);
    (possible && entry.set >= 0).then_some(Undo {
        set: entry.set,
        number: u16::try_from(entry.semaphore).ok()?,
        change: entry.change,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_numbers_are_refused() {
        let entry = |set, semaphore, change| GelidUndoEntry {
            set,
            semaphore,
            change,
        };
        assert!(check(&entry(0, 65535, -32768)).is_some());
        for wrong in [
            entry(-1, 0, 1),
            entry(0, 65536, 1),
            entry(0, 0, 0),
            entry(0, 0, 32768),
        ] {
            assert_eq!(check(&wrong), None);
        }
    }
}
