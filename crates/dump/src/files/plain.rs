//! Descriptors of large tables of which all is told without a file of procfs for each: that costs more than all other
//! questions.
//!
//! They are sockets, pipes, regular files, and counters and the like, that have no lock. Whether such a descriptor is closed
//! on `execve(2)` its owner tells.

use std::collections::HashMap;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use gelid_sys::proc::fdinfo::{FdInfo, Slot};
use gelid_sys::{Pid, kcmp};
use rustix::fs::{FileType, OFlags, SeekFrom, Stat};

use super::kind;
use super::lock_list::LockList;

/// `f_type` of file systems whose inodes have the same number everywhere: `stat(2)`, `fdinfo`, `/proc/locks`. Those
/// that lie on others, or are on another machine, may have others for themselves.
const SAME_NUMBERS: [u64; 6] = [
    // ext2, ext3, ext4
    0xef53,
    // XFS
    0x5846_5342,
    // tmpfs, and memory without a name
    0x0102_1994,
    // Pipes
    0x5049_5045,
    // Sockets
    0x534f_434b,
    // Counters, timers, epoll sets and others that have one inode in common
    0x0904_1934,
];

/// Whether a descriptor is of the same open file as the one before it.
pub(super) fn is_twin(pid: Pid, last: RawFd, fd: RawFd) -> bool {
    last + 1 == fd && kcmp::is_same_file((pid, last), (pid, fd))
}

/// How such descriptors are looked at.
#[derive(Debug)]
pub(super) struct Plain<'l> {
    locks: &'l LockList,
    devices: Devices,
}

/// Whether inodes of a device have the same number everywhere, as far as that is known.
#[derive(Debug, Default)]
pub(super) struct Devices(Mutex<HashMap<u64, bool>>);

impl<'l> Plain<'l> {
    pub(super) fn new(locks: &'l LockList) -> Self {
        Self {
            locks,
            devices: Devices::default(),
        }
    }

    /// Whether it is worth while to look.
    pub(super) fn is_possible(&self) -> bool {
        self.locks.is_known()
    }

    /// What `fdinfo` would tell; `None` of a descriptor of another kind. `slot` is for those of which nothing else tells all.
    pub(super) fn look(&self, file: &OwnedFd, stat: &Stat, slot: &mut Slot) -> Option<FdInfo> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let has_no_type = kind::has_no_type(stat);
        let is_plain = has_no_type
            || matches!(
                kind,
                FileType::Socket | FileType::Fifo | FileType::RegularFile
            );
        if !is_plain
            || !self.locks.is_free(stat.st_ino)
            || !self.devices.have_same_numbers(file, stat)
        {
            return None;
        }
        if has_no_type {
            return slot.info(file).ok();
        }
        let flags = rustix::fs::fcntl_getfl(file).ok()?;
        if flags.contains(OFlags::PATH) {
            return None;
        }
        let pos = match kind {
            FileType::RegularFile => rustix::fs::seek(file, SeekFrom::Current(0)).ok()?,
            // It is not used.
            _ => 0,
        };
        let pos = i64::try_from(pos).ok()?;
        Some(FdInfo::told(pos, flags.bits(), stat.st_ino))
    }
}

impl Devices {
    /// Whether the device of a file is such a one: it is on this machine, and nothing lies over it.
    pub(super) fn have_same_numbers(&self, file: &OwnedFd, stat: &Stat) -> bool {
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *devices.entry(stat.st_dev).or_insert_with(|| {
            let told = rustix::fs::fstatfs(file);
            told.is_ok_and(|told| SAME_NUMBERS.contains(&told.f_type.cast_unsigned()))
        })
    }
}
