//! Which number is given next in the pid namespace of the tree.

use gelid_sys::Errno;
use gelid_sys::aside::aside;
use rustix::fs::{Mode, OFlags};

use super::namespaces::Birthplace;
use crate::Error;

const FILE: &str = "/proc/sys/kernel/ns_last_pid";

/// Has it go on behind `last`: somebody there says so, whose own number counts no more then.
pub(super) fn set(last: u32, place: &Birthplace, root: i32) -> Result<(), Error> {
    let failed = |errno| Error::Task {
        operation: "setting the last pid for",
        pid: root,
        errno,
    };
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(FILE, flags, Mode::empty()) {
        // Not every kernel lets it be set.
        Err(Errno::NOENT) => return Ok(()),
        file => file.map_err(failed)?,
    };
    let text = last.to_string();
    let _inside = place.enter().map_err(failed)?;
    aside(|| rustix::io::write(&file, text.as_bytes()).map(drop)).map_err(failed)
}
