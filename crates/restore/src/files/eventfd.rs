//! Counters: `eventfd(2)`.

use std::fmt;
use std::os::fd::AsFd;

use gelid_image::messages::EventfdFileEntry;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;

use super::open::{Opener, set_status};
use super::{Error, Kind, Label};

/// A counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eventfd {
    /// Its value.
    pub count: u64,
    /// A read takes one off.
    pub semaphore: bool,
}

impl fmt::Display for Eventfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.semaphore {
            "semaphore"
        } else {
            "counter"
        };
        write!(f, "{what} at {}", self.count)
    }
}

/// Checks a record.
pub(super) fn plan(object: impl fmt::Display, entry: &EventfdFileEntry) -> Result<Eventfd, Error> {
    if entry.counter == u64::MAX {
        let rule = "a counter ends before";
        return Err(Error::invalid(object, "counter", entry.counter, rule));
    }
    Ok(Eventfd {
        count: entry.counter,
        semaphore: entry.semaphore == Some(true),
    })
}

/// Makes all of them.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Eventfd(counter) = &description.kind else {
            continue;
        };
        let label = Label(description);
        let status = description.flags.status();
        let mut flags = EventfdFlags::CLOEXEC;
        flags.set(EventfdFlags::NONBLOCK, status.contains(OFlags::NONBLOCK));
        flags.set(EventfdFlags::SEMAPHORE, counter.semaphore);
        let failed = |errno| opener.failed("make", label, errno);
        let fd = match u32::try_from(counter.count) {
            Ok(count) => eventfd(count, flags).map_err(failed)?,
            Err(_) => {
                let fd = eventfd(0, flags).map_err(failed)?;
                let count = counter.count.to_ne_bytes();
                rustix::io::write(&fd, &count).map_err(Error::system("count up", label))?;
                fd
            }
        };
        let fd = opener.raise(fd, label)?;
        if !OFlags::NONBLOCK.contains(status) {
            set_status(fd.as_fd(), status, label)?;
        }
        opener.add(description.id, fd);
    }
    Ok(())
}
