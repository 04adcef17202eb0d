//! The place of the stub in a process that was seized: unused bytes at the end of executable memory.

use crate::arch::{self, BLOCK_OWNER, BLOCK_SIZE, Block};
use crate::carrier::of;
use crate::error::Error;
use gelid_sys::proc::{TaskDir, tasks};
use gelid_sys::vm::Mem;
use gelid_sys::{Errno, PAGE_SIZE, Pid};
use rustix::process::test_kill_process;
use std::ops::Range;

/// Room for the stub and one block.
#[derive(Clone, Debug)]
pub(crate) struct Cave {
    at: u64,
    /// The stub was there: its tracer has died, and a thread may still come back to it.
    found: bool,
}

impl Cave {
    /// Opens the memory of a task and finds a place in the last page of one of the mappings `code`.
    pub(crate) fn dig(tid: Pid, code: &[Range<u64>]) -> Result<(Mem, Self), Error> {
        let mem = Mem::open(tid).map_err(|errno| of(tid, "opening the memory", errno))?;
        let mut page = vec![0; PAGE_SIZE];
        for range in code {
            let Some(last) = range.end.checked_sub(PAGE_SIZE as u64) else {
                continue;
            };
            if last < range.start || mem.read(last, &mut page).is_err() {
                continue;
            }
            if let Some(cave) = find(tid, &page, last)? {
                return Ok((mem, cave));
            }
        }
        let need = size();
        Err(Error::NoCave { tid, need })
    }

    pub(crate) fn stub(&self) -> u64 {
        self.at
    }

    pub(crate) fn block(&self) -> u64 {
        self.at + block_offset() as u64
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.at..self.at + size() as u64
    }

    /// Writes stub and block.
    pub(crate) fn furnish(&self, mem: &Mem, block: &Block) -> Result<(), Errno> {
        let mut bytes = arch::code().to_vec();
        bytes.resize(block_offset(), 0);
        bytes.extend_from_slice(&block.to_bytes());
        mem.write(self.at, &bytes)
    }

    /// Makes the bytes what they were.
    pub(crate) fn clear(&self, mem: &Mem) -> Result<(), Errno> {
        if self.found {
            return Ok(());
        }
        mem.write(self.at, &vec![0; size()])
    }
}

fn block_offset() -> usize {
    arch::code().len().next_multiple_of(16)
}

fn size() -> usize {
    block_offset() + BLOCK_SIZE
}

/// A place in the page at `base`: a stub that is there already, else the zeros at the end.
fn find(tid: Pid, page: &[u8], base: u64) -> Result<Option<Cave>, Error> {
    let fits = |start: usize| start + size() <= page.len();
    let stub = (0..page.len())
        .step_by(16)
        .find(|start| page[*start..].starts_with(arch::code()));
    if let Some(start) = stub.filter(|start| fits(*start)) {
        let at = base + start as u64;
        let owner = start + block_offset() + BLOCK_OWNER;
        if is_dead(&page[owner..owner + 8]) {
            // What is stopped by job control comes back only when it is continued.
            return match is_trodden(tid, at..at + block_offset() as u64) {
                true => Err(Error::Away { tid }),
                false => Ok(Some(Cave { at, found: true })),
            };
        }
    }
    let used = page
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |at| at + 1);
    // A gap keeps a zero that belongs to the mapping's own contents, such as the end of a string.
    let start = (used + 64).next_multiple_of(16);
    Ok(fits(start).then(|| Cave {
        at: base + start as u64,
        found: false,
    }))
}

/// Whether the owner of a stub is no more. One that lives may be this very process: tasks can share an
/// address space.
fn is_dead(owner: &[u8]) -> bool {
    let mut raw = [0; 8];
    raw.copy_from_slice(owner);
    let pid = i32::try_from(u64::from_ne_bytes(raw)).ok();
    match pid.and_then(Pid::from_raw) {
        Some(pid) => test_kill_process(pid) == Err(Errno::SRCH),
        None => false,
    }
}

/// Whether a thread of the process stands in `stub`, or may.
fn is_trodden(tid: Pid, stub: Range<u64>) -> bool {
    let look = || -> Option<bool> {
        let task = TaskDir::open(tid).ok()?;
        let mut places = tasks::threads(&task).ok()?.into_iter().map(|thread| {
            let text = task.thread(thread).ok()?.read("syscall", 256).ok()?;
            place(&text)
        });
        Some(places.any(|place| place.is_none_or(|place| stub.contains(&place))))
    };
    look().unwrap_or(true)
}

/// The program counter in `/proc/PID/syscall`, its last word; none for a thread that runs.
fn place(text: &[u8]) -> Option<u64> {
    let word = std::str::from_utf8(text).ok()?.split_whitespace().last()?;
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_page_is_used_if_it_is_zero() {
        let me = rustix::process::getpid();
        let mut page = vec![0; PAGE_SIZE];
        page[..100].fill(7);
        let cave = find(me, &page, 0x1000).unwrap();
        let cave = cave.map(|cave| (cave.at, cave.found));
        assert_eq!(cave, Some((0x1000 + 176, false)));
        page[PAGE_SIZE - 400] = 1;
        assert!(find(me, &page, 0x1000).unwrap().is_none());
    }

    #[test]
    fn places_are_told_from_what_the_kernel_prints() {
        assert_eq!(
            place(b"0 0x3 0x7ffe 0x4000 0x22 0x0 0x0 0x7ffefec97da8 0x7f97acb11953\n"),
            Some(0x7f97_acb1_1953)
        );
        assert_eq!(place(b"-1 0x10 0x20\n"), Some(0x20));
        assert_eq!(place(b"running\n"), None);
    }
}
