//! Core-scheduling cookies (`PR_SCHED_CORE`): noted in the log, as a restore gives none.

use std::collections::BTreeMap;

use gelid_sys::Pid;
use gelid_sys::prctl::core_cookie;

use crate::survey::Task;

/// Warns of threads that have cookies, where the kernel knows of any.
pub(super) fn note(tasks: &[Task]) {
    if core_cookie(None).is_err() {
        return;
    }
    let alive = tasks.iter().filter(|task| task.live.is_some());
    let threads = alive.flat_map(|task| task.tids.iter().copied());
    // A leader that has ended is not asked any more.
    let cookies = threads.filter_map(|tid| Some((tid, core_cookie(Some(tid)).ok()?)));
    for threads in groups(cookies) {
        let threads: Vec<String> = threads.iter().map(Pid::to_string).collect();
        tracing::warn!(
            "a core-scheduling cookie of {} is not recorded",
            threads.join(", ")
        );
    }
}

/// Threads that have a cookie, those with the same one together.
fn groups(cookies: impl IntoIterator<Item = (Pid, u64)>) -> Vec<Vec<Pid>> {
    let mut groups: BTreeMap<u64, Vec<Pid>> = BTreeMap::new();
    for (tid, cookie) in cookies.into_iter().filter(|(_, cookie)| *cookie != 0) {
        groups.entry(cookie).or_default().push(tid);
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_with_one_cookie_are_together() {
        let tid = |number| Pid::from_raw(number).unwrap();
        let cookies = [(7, 0), (8, 90), (9, 70), (10, 90)];
        let found = groups(cookies.map(|(number, cookie)| (tid(number), cookie)));
        assert_eq!(found, [vec![tid(9)], vec![tid(8), tid(10)]]);
    }
}
