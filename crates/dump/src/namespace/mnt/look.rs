//! What can be reached in a mount namespace.

use std::os::fd::OwnedFd;

use gelid_sys::Errno;
use gelid_sys::mount::idmap::{self, IdMap};
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
    /// Maps of those that show other owners of files, by number; or why the kernel does not tell.
    pub(super) id_maps: Result<Vec<(i32, IdMap)>, Errno>,
    /// Its root directory.
    pub(super) root: OwnedFd,
}

/// Looks at a namespace from inside.
pub(super) fn look(instance: &Instance) -> Result<Seen, Error> {
    let procfs = procfs()?;
    instance.inside(|| {
        // The procfs in there may be that of others, or there may be none.
        let own = TaskDir::open_in(&procfs, gettid())?;
        let mounts = mountinfo::read(&own)?;
        Ok(Seen {
            id_maps: match mounts.iter().any(is_mapped) {
                true => idmap::all(),
                false => Ok(Vec::new()),
            },
            mounts,
            root: root()?,
        })
    })
}

/// Whether a mount shows other owners of files.
pub(super) fn is_mapped(mount: &MountInfo) -> bool {
    let mut words = mount.options.split(|byte| *byte == b',');
    words.any(|word| word == b"idmapped")
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
