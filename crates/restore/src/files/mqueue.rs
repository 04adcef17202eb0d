//! POSIX message queues: `mq_overview(7)`. They are there already: the host's, or made with
//! their namespaces.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use gelid_image::messages::RegFileEntry;
use gelid_sys::namespace::inside;
use gelid_sys::proc::ns::Kind as Namespace;
use gelid_sys::{Errno, mqueue};
use rustix::fs::OFlags;

use super::open::{Opener, set_status};
use super::{Error, Kind};

/// A queue that is opened by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    name: CString,
    mode: Option<u32>,
    /// Its IPC namespace, if that is not the root's.
    ipc_ns: Option<u32>,
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message queue /{}", self.name.to_string_lossy())
    }
}

impl Queue {
    /// Its name, without a slash.
    #[must_use]
    pub fn name(&self) -> &CStr {
        &self.name
    }
}

/// Checks a record.
pub(super) fn plan(object: &str, entry: &RegFileEntry) -> Result<Queue, Error> {
    let name = entry.name.rsplit(|byte| *byte == b'/').next();
    let name = CString::new(name.unwrap_or_default()).ok();
    let name = name.filter(|name| !name.is_empty() && ![c".", c".."].contains(&name.as_c_str()));
    let wrong = || {
        let found = entry.name.escape_ascii();
        Error::invalid(
            object,
            "name",
            found,
            "no message queue is called like that",
        )
    };
    Ok(Queue {
        name: name.ok_or_else(wrong)?,
        mode: entry.mode,
        ipc_ns: entry.ipc_ns,
    })
}

/// Opens all of them.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Queue(queue) = &description.kind else {
            continue;
        };
        let label = description.label();
        let access = OFlags::from_bits_retain(description.flags.access());
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = open(opener, queue, flags);
        let fd = fd.map_err(|errno| opener.failed("open", &label, errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(Error::system("examine", &*label))?;
        if queue.mode.is_some_and(|mode| mode != stat.st_mode) {
            return Err(Error::Changed {
                object: label,
                what: "mode",
                recorded: format!("{:o}", queue.mode.unwrap_or_default()),
                found: format!("{:o}", stat.st_mode),
                remedy: "make the queue as it was",
            });
        }
        let fd = opener.raise(fd, &label)?;
        set_status(fd.as_fd(), description.flags.status(), &label)?;
        opener.add(description.id, fd);
    }
    Ok(())
}

/// Opens a queue where it is.
fn open(opener: &Opener<'_>, queue: &Queue, flags: OFlags) -> Result<OwnedFd, Errno> {
    let Some(id) = queue.ipc_ns else {
        return mqueue::open(&queue.name, flags);
    };
    let made = opener.further.and_then(|made| made.one(Namespace::Ipc, id));
    let namespace = made.ok_or(Errno::NOENT)?;
    let open = || mqueue::open(&queue.name, flags);
    inside(namespace, Namespace::Ipc, |errno| errno, open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let entry = |name: &[u8]| RegFileEntry {
            name: name.to_vec(),
            ..RegFileEntry::default()
        };
        let queue = plan("file", &entry(b"/dev/mqueue/q")).unwrap();
        assert_eq!(queue.name(), c"q");
        for name in [&b"/dev/mqueue/"[..], b"", b"/..", b"/a\0b"] {
            plan("file", &entry(name)).unwrap_err();
        }
    }
}
