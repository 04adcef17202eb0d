//! How much of a tree's memory is there.

use std::fs;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Between two looks at a tree whose memory is not there yet.
const PAUSE: Duration = Duration::from_millis(1);

/// The processes of a tree and the memory that they had, in pages: what is anonymous, for pages of files come back from
/// the page cache when somebody wants them, whoever restores.
pub(super) struct Memory {
    pids: Vec<u32>,
    pages: u64,
}

impl Memory {
    /// The tree of `root` as it is now.
    pub(super) fn of(root: u32) -> Result<Self> {
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(pid) = pids.get(next) {
            pids.extend(children(*pid));
            next += 1;
        }
        let pages = present(&pids);
        ensure!(pages > 0, "{root} has no memory");
        Ok(Self { pids, pages })
    }

    /// Without what holds nothing but zeros: a dump that has fewer pages stored has left that out.
    pub(super) fn of_content(self, stored: u64) -> Self {
        Self {
            pages: self.pages.min(stored),
            ..self
        }
    }

    /// Whether at least 99 % of it is there; nothing if the whole tree has gone.
    fn is_back(&self) -> Option<bool> {
        match present(&self.pids) {
            0 => None,
            now => Some(now * 100 >= self.pages * 99),
        }
    }
}

/// Waits until the memory is back.
pub(super) enum Watch {
    /// It was at the first look.
    Over(Duration),
    /// It is looked at while the program runs.
    Waiting(JoinHandle<Option<Duration>>),
}

impl Watch {
    /// Looks once, and goes on beside whatever else is done if it is not there yet.
    pub(super) fn begin(memory: Memory) -> Self {
        let start = Instant::now();
        if memory.is_back() == Some(true) {
            return Self::Over(start.elapsed());
        }
        Self::Waiting(std::thread::spawn(move || {
            loop {
                match memory.is_back() {
                    None => return None,
                    Some(true) => return Some(start.elapsed()),
                    Some(false) => std::thread::sleep(PAUSE),
                }
            }
        }))
    }

    /// The time since it began, unless the tree has gone before its memory was there; it must have gone by now.
    pub(super) fn end(self) -> Option<Duration> {
        match self {
            Self::Over(time) => Some(time),
            Self::Waiting(thread) => thread.join().ok().flatten(),
        }
    }
}

/// The children of all threads of a process.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let lists = threads.into_iter().flatten().flatten();
    let lists = lists.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let ids = list.split_whitespace().filter_map(|word| word.parse().ok());
            ids.collect::<Vec<u32>>()
        })
        .collect()
}

/// Anonymous pages that these processes have mapped.
fn present(pids: &[u32]) -> u64 {
    let texts = pids
        .iter()
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default());
    texts.filter_map(|text| anonymous(&text)).sum()
}

/// What `statm` calls resident, less what it calls shared.
fn anonymous(statm: &str) -> Option<u64> {
    let mut numbers = statm.split_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(resident.saturating_sub(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_there() {
        let own = Memory::of(std::process::id()).unwrap();
        assert_eq!(own.pids[0], std::process::id());
        assert!(Watch::begin(own.of_content(1)).end().is_some());
    }

    #[test]
    fn a_tree_that_has_gone_has_no_memory() {
        let gone = Memory {
            pids: vec![u32::MAX],
            pages: 1,
        };
        assert_eq!(Watch::begin(gone).end(), None);
    }

    #[test]
    fn files_are_not_counted() {
        assert_eq!(anonymous("900 120 20 5 0 300 0\n"), Some(100));
        assert_eq!(anonymous(""), None);
    }
}
