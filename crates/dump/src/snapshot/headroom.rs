//! How much memory there is for what a tree may write while its pages are read from a copy.

use gelid_sys::proc::{self, cgroup as membership};
use gelid_sys::{Pid, cgroup};

/// Bytes that the machine can give.
pub(super) fn of_machine() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = available.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or_default() << 10
}

/// Bytes that the cgroups of a task may still take.
pub(super) fn of_group(pid: Pid) -> u64 {
    left(pid).unwrap_or(u64::MAX)
}

/// `None` without any limit.
fn left(pid: Pid) -> Option<u64> {
    let groups = membership::read(&proc::task_dir(pid).ok()?).ok()?;
    let mut least = None;
    for group in groups {
        let (limit, usage) = match group.controllers.as_slice() {
            b"" => ("memory.max", "memory.current"),
            b"memory" => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            _ => continue,
        };
        let Ok(root) = cgroup::open(std::str::from_utf8(&group.controllers).ok()?) else {
            continue;
        };
        // A group above may be the one with the limit.
        let mut path = group.path.as_slice();
        loop {
            let here = cgroup::group(&root, path).ok();
            let number = |file: &str| {
                let text = cgroup::read(here.as_ref()?, file).ok()?;
                std::str::from_utf8(&text).ok()?.trim().parse::<u64>().ok()
            };
            if let (Some(limit), Some(usage)) = (number(limit), number(usage)) {
                let free = limit.saturating_sub(usage);
                least = Some(least.map_or(free, |least: u64| least.min(free)));
            }
            match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) if path.len() > 1 => path = &path[..slash.max(1)],
                _ => break,
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_some_memory() {
        assert!(of_machine() > 1 << 20);
        assert!(of_group(rustix::process::getpid()) > 1 << 20);
    }
}
