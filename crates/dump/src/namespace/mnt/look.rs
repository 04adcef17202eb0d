//! What can be reached in a mount namespace.

use std::os::fd::OwnedFd;

use gelid_sys::proc::TaskDir;
use gelid_sys::proc::mountinfo::{self, MountInfo};
use rustix::fs::{Mode, OFlags};
use rustix::thread::gettid;

use crate::Error;
use crate::namespace::Instance;

/// What was seen in a namespace.
#[derive(Debug)]
pub(super) struct Seen {
    /// In the kernel's order.
    pub(super) mounts: Vec<MountInfo>,
    /// Its root directory.
    pub(super) root: OwnedFd,
}

/// Looks at a namespace from inside.
pub(super) fn look(instance: &Instance) -> Result<Seen, Error> {
    let procfs = procfs()?;
    instance.inside(|| {
        // The procfs in there may be that of others, or there may be none.
        let own = TaskDir::open_in(&procfs, gettid())?;
        Ok(Seen {
            mounts: mountinfo::read(&own)?,
            root: root()?,
        })
    })
}

/// The dumper's own procfs.
pub(super) fn procfs() -> Result<OwnedFd, Error> {
    open("/proc")
}

/// The root directory of this thread.
pub(super) fn root() -> Result<OwnedFd, Error> {
    open("/")
}

fn open(path: &'static str) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::System {
        file: path,
        source: errno.into(),
    })
}
