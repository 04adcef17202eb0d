//! The limit of open files of this process (`RLIMIT_NOFILE`, `getrlimit(2)`), and the table that holds them.

use std::os::fd::AsFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit, raised as far as is allowed; put back when dropped. A limit that is high enough is left alone.
#[derive(Debug)]
pub struct Raised(Option<Rlimit>);

impl Raised {
    /// Makes room for descriptors up to the number `need`. If it cannot be made, the first descriptor beyond the limit
    /// tells.
    #[must_use]
    pub fn to(need: u64) -> Self {
        let limit = getrlimit(Resource::Nofile);
        if limit.current.is_none_or(|current| current >= need) {
            return Self(None);
        }
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        Self(setrlimit(Resource::Nofile, raised).is_ok().then_some(limit))
    }

    /// Makes as much room as there may be.
    #[must_use]
    pub fn fully() -> Self {
        Self::to(u64::MAX)
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(limit) = self.0.take() {
            // It was allowed a moment ago.
            let _ = setrlimit(Resource::Nofile, limit);
        }
    }
}

/// Numbers that this process may still have below its limit, were `used` taken.
#[must_use]
pub fn left(used: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(u64::MAX, |limit| limit.saturating_sub(used))
}

/// Makes the table of descriptors large enough for the numbers below `need`, as far as the limit allows, with the help of
/// any descriptor. A table that grows when several threads share it waits for a grace period of RCU at 64, 128, 256 ...
/// descriptors, some milliseconds each (`expand_files` in `fs/file.c`); before the first thread it waits for none.
pub fn widen(any: impl AsFd, need: u64) {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let last = need.min(limit).saturating_sub(1);
    if let Ok(last) = i32::try_from(last) {
        // Without it all goes on, only later.
        drop(rustix::io::fcntl_dupfd_cloexec(any, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_grows() {
        let own = std::fs::File::open("/proc/self/status").unwrap();
        widen(&own, 1000);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        assert!(size.unwrap().trim().parse::<u64>().unwrap() >= 1000);
    }

    #[test]
    fn the_limit_is_put_back() {
        let before = getrlimit(Resource::Nofile);
        {
            let _raised = Raised::fully();
            assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
        }
        assert_eq!(getrlimit(Resource::Nofile), before);
    }
}
