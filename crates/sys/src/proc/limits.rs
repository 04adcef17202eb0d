//! `/proc/PID/limits`: the resource limits of a task, `getrlimit(2)`.

use super::text::{Fields, Malformed, Result, decimal, lines};
use super::{Error, TaskDir};

/// Number of resources, `RLIM_NLIMITS`.
pub const COUNT: usize = 16;

/// No limit, `RLIM_INFINITY`.
pub const INFINITY: u64 = u64::MAX;

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    /// The soft limit, [`INFINITY`] if there is none.
    pub soft: u64,
    /// The hard limit, likewise.
    pub hard: u64,
}

/// Names at the start of the lines, in the order of `RLIMIT_*` numbers.
const NAMES: [&str; COUNT] = [
    "Max cpu time",
    "Max file size",
    "Max data size",
    "Max stack size",
    "Max core file size",
    "Max resident set",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max address space",
    "Max file locks",
    "Max pending signals",
    "Max msgqueue size",
    "Max nice priority",
    "Max realtime priority",
    "Max realtime timeout",
];

/// Reads and parses `limits`: the limits by `RLIMIT_*` number.
pub fn read(task: &TaskDir) -> std::result::Result<[Limit; COUNT], Error> {
    task.parsed_record("limits", 2048, parse)
}

/// Parses the text of `limits`.
pub fn parse(text: &[u8]) -> Result<[Limit; COUNT]> {
    let mut limits = [Limit {
        soft: INFINITY,
        hard: INFINITY,
    }; COUNT];
    let mut lines = lines(text).skip(1);
    for (limit, name) in limits.iter_mut().zip(NAMES) {
        let line = lines.next().ok_or(Malformed(name))?;
        let mut fields = Fields(line.strip_prefix(name.as_bytes()).ok_or(Malformed(name))?);
        limit.soft = value(fields.need(name)?, name)?;
        limit.hard = value(fields.need(name)?, name)?;
    }
    Ok(limits)
}

fn value(text: &[u8], name: &'static str) -> Result<u64> {
    if text == b"unlimited" {
        Ok(INFINITY)
    } else {
        decimal(text, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_text_agrees_with_getrlimit() {
        let limits = parse(&std::fs::read("/proc/self/limits").unwrap()).unwrap();
        let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let expected = open_files.current.unwrap_or(INFINITY);
        assert_eq!(limits[libc::RLIMIT_NOFILE as usize].soft, expected);
        let stack = rustix::process::getrlimit(rustix::process::Resource::Stack);
        assert_eq!(
            limits[libc::RLIMIT_STACK as usize].hard,
            stack.maximum.unwrap_or(INFINITY)
        );
    }

    #[test]
    fn wrong_texts_are_refused() {
        assert_eq!(parse(b""), Err(Malformed("Max cpu time")));
        assert_eq!(
            parse(b"Limit\nMax cpu time  1"),
            Err(Malformed("Max cpu time"))
        );
        assert_eq!(
            parse(b"Limit\nMax cpu time  1  2\nMax fun 1 2"),
            Err(Malformed("Max file size"))
        );
    }
}
