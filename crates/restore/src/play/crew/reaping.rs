//! The ends of tasks that a failed restore leaves.

use std::time::{Duration, Instant};

use gelid_sys::wait::{self, Whom};
use gelid_sys::{Pid, proc};

/// The thread that traces a task.
pub(super) fn tracer(pid: Pid) -> Option<i32> {
    let dir = proc::TaskDir::open(pid).ok()?;
    Some(proc::status::read(&dir).ok()?.tracer_pid)
}

/// Children of these, and theirs, that a thread traces and has not seen yet.
pub(super) fn unseen(known: &[Pid], tracing: i32) -> Vec<Pid> {
    let mut all = known.to_vec();
    let mut at = 0;
    while let Some(pid) = all.get(at).copied() {
        at += 1;
        let file = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let children = text.split_whitespace().filter_map(|word| word.parse().ok());
        for child in children.filter_map(Pid::from_raw) {
            if !all.contains(&child) && tracer(child) == Some(tracing) {
                all.push(child);
            }
        }
    }
    all.split_off(known.len())
}

/// Waits for the end of tracees of this thread until the `last` have ended.
pub(super) fn reap_all(mut last: Vec<Pid>, deadline: Instant) {
    while !last.is_empty() {
        match wait::wait(Whom::OfThread, false) {
            Ok(Some((pid, status))) if status.is_dead() => last.retain(|other| *other != pid),
            Ok(None) if Instant::now() > deadline => return,
            Ok(None) => std::thread::sleep(Duration::from_micros(100)),
            Ok(Some(_)) => {}
            Err(_) => return,
        }
    }
}

/// Waits for the end of all, in any order, but not for ever.
pub(super) fn reap_in_turns(mut all: Vec<Pid>, deadline: Instant) {
    loop {
        all.retain(|pid| match wait::wait(Whom::Task(*pid), false) {
            Ok(Some((_, status))) => !status.is_dead(),
            Ok(None) => true,
            Err(_) => false,
        });
        if all.is_empty() || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Waits for the end of a task, but not for ever: the kernel may be busy with it.
pub(super) fn reap(pid: Pid, deadline: Instant) {
    loop {
        match wait::wait(Whom::Task(pid), false) {
            Ok(Some((_, status))) if status.is_dead() => return,
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() > deadline => return,
            Ok(None) => std::thread::sleep(Duration::from_micros(100)),
            Err(_) => return,
        }
    }
}
