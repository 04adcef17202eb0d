//! POSIX message queues.

use gelid_sys::{Errno, mqueue};
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};

use super::{IpcObject, failed};
use crate::Error;
use crate::plan::ipc::Posix;

/// Makes all queues.
pub(super) fn make(queues: &[Posix]) -> Result<(), Error> {
    for queue in queues {
        let object = || IpcObject::Posix(queue.name.to_string_lossy().into_owned());
        make_one(queue).map_err(failed("make", object()))?;
    }
    Ok(())
}

fn make_one(queue: &Posix) -> Result<(), Errno> {
    let (most, size) = queue.limits;
    let made = mqueue::create(&queue.name, 0o600, most, size)?;
    let (uid, gid) = queue.owner;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    fchown(&made, Some(uid), Some(gid))?;
    fchmod(&made, Mode::from_raw_mode(queue.mode))
}
