//! `/proc/PID/fd`: the descriptors of a process.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use rustix::fs::{AtFlags, OFlags, RawDir, statat};
use rustix::process::Pid;

use super::text::decimal;
use super::{Error, TaskDir};

/// Numbers of the open descriptors, ascending.
pub fn list(task: &TaskDir) -> Result<Vec<RawFd>, Error> {
    numbers(task, "fd")
}

/// The same for somebody who will [read of each](super::fdinfo::read): listing makes the kernel look each name up, and
/// so it does that once.
pub fn list_to_read(task: &TaskDir) -> Result<Vec<RawFd>, Error> {
    numbers(task, "fdinfo")
}

/// How many descriptors a process has open (since Linux 6.2; 0 before), without looking for any of them.
pub fn count(task: &TaskDir) -> Result<u64, Error> {
    let stat = statat(task, "fd", AtFlags::empty());
    let stat = stat.map_err(|errno| task.read_error("fd", errno))?;
    Ok(u64::try_from(stat.st_size).unwrap_or_default())
}

/// What the link of a descriptor says: a path (with ` (deleted)` behind if unlinked), or a kind and a
/// number such as `pipe:[123]`.
pub fn link(task: &TaskDir, fd: RawFd) -> Result<CString, Error> {
    task.link(&format!("fd/{fd}"))
}

/// Ids of the threads of a process, ascending.
pub(super) fn threads(task: &TaskDir) -> Result<Vec<Pid>, Error> {
    Ok(numbers(task, "task")?
        .into_iter()
        .filter_map(Pid::from_raw)
        .collect())
}

/// The names in a directory that are numbers, ascending.
fn numbers(task: &TaskDir, name: &str) -> Result<Vec<i32>, Error> {
    let dir = task.open_file(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buf = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(&dir, &mut buf);
    let mut numbers = Vec::with_capacity(32);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|errno| task.read_error(name, errno))?;
        let number = decimal::<u32>(entry.file_name().to_bytes(), "number");
        numbers.extend(number.ok().and_then(|number| i32::try_from(number).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
