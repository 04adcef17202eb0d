//! `/proc/PID/cgroup`: where a task stands in each cgroup hierarchy, `cgroups(7)`.

use super::text::{Malformed, Result, decimal, lines, split_once};
use super::{Error, TaskDir};
use crate::Pid;

/// Membership in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Number of the hierarchy, 0 for version 2.
    pub hierarchy: u32,
    /// Controllers with commas between them, or `name=NAME`; nothing for version 2.
    pub controllers: Vec<u8>,
    /// Path below the root of the reader's cgroup namespace, where it lies outside with `/..` in front.
    /// Ends in ` (deleted)` if the group has been removed.
    pub path: Vec<u8>,
}

/// Reads and parses `cgroup`.
pub fn read(task: &TaskDir) -> std::result::Result<Vec<Membership>, Error> {
    task.parsed_record("cgroup", 1024, parse)
}

/// The text of `cgroup` of a thread of `process`: the same for threads that stand together.
pub fn text(process: &TaskDir, tid: Pid) -> std::result::Result<Vec<u8>, Error> {
    match tid == process.pid() {
        true => process.read_record("cgroup", 1024),
        false => process.read_record(&format!("task/{tid}/cgroup"), 1024),
    }
}

/// Parses the text of `cgroup`.
pub fn parse(text: &[u8]) -> Result<Vec<Membership>> {
    lines(text).map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Result<Membership> {
    let (hierarchy, rest) = split_once(line, b':').ok_or(Malformed("hierarchy"))?;
    // The name of a named hierarchy may hold a colon, and a path always begins with a slash.
    let cut = rest
        .windows(2)
        .position(|pair| pair == b":/")
        .ok_or(Malformed("path"))?;
    Ok(Membership {
        hierarchy: decimal(hierarchy, "hierarchy")?,
        controllers: rest[..cut].to_vec(),
        path: rest[cut + 1..].to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_understood() {
        let text = b"9:name=systemd:/\n4:cpu,cpuacct:/a:b/c (deleted)\n0::/../x\n";
        let [named, pair, second] = &parse(text).unwrap()[..] else {
            panic!()
        };
        assert_eq!(
            (named.hierarchy, &named.controllers[..]),
            (9, &b"name=systemd"[..])
        );
        assert_eq!(
            (&pair.controllers[..], &pair.path[..]),
            (&b"cpu,cpuacct"[..], &b"/a:b/c (deleted)"[..])
        );
        assert_eq!((second.hierarchy, &second.path[..]), (0, &b"/../x"[..]));
        assert!(second.controllers.is_empty());
    }

    #[test]
    fn wrong_lines_are_refused() {
        assert_eq!(parse(b"9\n"), Err(Malformed("hierarchy")));
        assert_eq!(parse(b"9:x\n"), Err(Malformed("path")));
        assert_eq!(parse(b"x:y:/\n"), Err(Malformed("hierarchy")));
    }
}
