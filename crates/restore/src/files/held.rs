//! Numbers of descriptors that nothing is to be opened at, as tables of the tree need them.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use gelid_sys::Errno;
use gelid_sys::nofile::Raised;
use gelid_sys::row::Row;
use rustix::fs::{Mode, OFlags};

/// Descriptors held for the time, and the limit that they need.
#[derive(Debug, Default)]
pub struct Held {
    numbers: Mutex<Row>,
    #[expect(dead_code, reason = "held for what its drop does")]
    limit: Option<Raised>,
    crowded: bool,
}

impl Held {
    /// Holds numbers. In a `crowded` place they are needed for open files as well.
    ///
    /// # Errors
    ///
    /// Those of `fcntl(2)`.
    pub fn take(numbers: BTreeSet<i32>, crowded: bool) -> Result<Self, Errno> {
        let limit = Some(Raised::fully());
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty())?;
        let mut held = Row::default();
        for number in numbers {
            // Another number means that this process has something there, which holds it as well.
            let fd: OwnedFd = rustix::io::fcntl_dupfd_cloexec(&root, number)?;
            if fd.as_raw_fd() == number {
                held.push(fd);
            }
        }
        Ok(Self {
            numbers: Mutex::new(held),
            limit,
            crowded,
        })
    }

    /// Whether open files are at numbers that tables need.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// Gives the numbers to open files, if they need them.
    pub(super) fn make_room(&self) {
        if self.crowded {
            let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            drop(std::mem::take(&mut *numbers));
        }
    }
}
