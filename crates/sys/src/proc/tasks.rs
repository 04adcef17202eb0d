//! `/proc/PID/task`: the threads of a process and their children.

use rustix::process::Pid;

use super::text::{Fields, Malformed, Result, decimal};
use super::{Error, TaskDir};

/// Ids of the threads, ascending. The list of a process that runs may be out of date when it is
/// returned.
pub fn threads(task: &TaskDir) -> std::result::Result<Vec<Pid>, Error> {
    super::fd::threads(task)
}

/// Ids of the children that the thread `tid` of this process has, in order of birth, zombies included.
/// Complete only while the children are frozen (`proc_tid_children(5)`).
///
/// # Errors
///
/// `ENOENT` too on a kernel without `CONFIG_PROC_CHILDREN`.
pub fn children_of(task: &TaskDir, tid: Pid) -> std::result::Result<Vec<Pid>, Error> {
    task.parsed(&format!("task/{tid}/children"), 512, parse)
}

/// Ids of the children of all threads of this process.
pub fn children(task: &TaskDir) -> std::result::Result<Vec<Pid>, Error> {
    let mut all = Vec::new();
    for tid in threads(task)? {
        match children_of(task, tid) {
            Ok(mut children) => all.append(&mut children),
            // The thread has ended since, and another has inherited its children.
            Err(error) if error.is_gone() && task.thread(tid).is_err() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Parses the text of `children`.
pub fn parse(text: &[u8]) -> Result<Vec<Pid>> {
    Fields(text)
        .map(|pid| {
            let raw = i32::try_from(decimal::<u32>(pid, "pid")?).ok();
            raw.and_then(Pid::from_raw).ok_or(Malformed("pid"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_understood() {
        let pids = parse(b"12 7 99 ").unwrap();
        assert_eq!(
            pids.iter().map(|pid| pid.as_raw_pid()).collect::<Vec<_>>(),
            [12, 7, 99]
        );
        assert_eq!(parse(b""), Ok(vec![]));
        assert_eq!(parse(b"0"), Err(Malformed("pid")));
        assert_eq!(parse(b"4294967295"), Err(Malformed("pid")));
    }
}
