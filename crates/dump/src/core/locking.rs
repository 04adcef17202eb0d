//! Whether mappings to come are locked into memory, `mlockall(2)` with `MCL_FUTURE`.
//!
//! The kernel tells nobody, but the room for tapes is such a mapping, and advice to reclaim what is locked is
//! refused.

use std::ops::Range;

use gelid_sys::madvise::{Advice, process_madvise};
use gelid_sys::pagemap::{Entry, read_entries};
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::smaps::{self, VmFlags};
use gelid_sys::{Errno, PAGE_SIZE, Pid, pidfd};
use rustix::fs::OFlags;

const MCL_FUTURE: u32 = 2;
const MCL_ONFAULT: u32 = 4;

/// The flags of `mlockall` that a new mapping shows to be in force. Its last page must not have been used.
pub(super) fn look(pid: Pid, mapping: &Range<u64>) -> Option<u32> {
    let last = mapping.end - PAGE_SIZE as u64..mapping.end;
    let locked = match pidfd::open(pid) {
        Ok(process) => {
            let cold = process_madvise(process, std::slice::from_ref(&last), Advice::Cold);
            cold == Err(Errno::INVAL)
        }
        // A process that has lost its main thread cannot be advised.
        Err(_) => is_locked(pid, &last),
    };
    if !locked {
        return None;
    }
    let mut entry = [Entry::default()];
    let pagemap = TaskDir::open(pid)
        .ok()?
        .open_file("pagemap", OFlags::RDONLY);
    let read = read_entries(pagemap.ok()?, last.start, &mut entry);
    let there = read == Ok(1) && entry[0].present();
    Some(MCL_FUTURE | if there { 0 } else { MCL_ONFAULT })
}

fn is_locked(pid: Pid, range: &Range<u64>) -> bool {
    let areas = TaskDir::open(pid).and_then(|dir| smaps::read(&dir));
    areas.is_ok_and(|areas| {
        let mut at = areas
            .iter()
            .filter(|area| area.map.start <= range.start && range.end <= area.map.end);
        at.any(|area| area.flags.contains(VmFlags::LOCKED))
    })
}
