//! Descriptor tables and directories on tapes.

use std::os::fd::AsRawFd;

use gelid_sys::syscall::nr;

use super::script::{Object, Reel};
use crate::Error;
use crate::files::{Directories, OpenFiles, PlannedFd};

const O_CLOEXEC: i32 = 0o2_000_000;

/// Appends what fills a table from the descriptors inherited, which all lie from `base` on.
pub(crate) fn table(
    reel: &mut Reel,
    pid: i32,
    table: &[PlannedFd],
    base: i32,
    files: &OpenFiles,
) -> Result<(), Error> {
    close(reel, 0, base - 1);
    for planned in table {
        let from = files.fd(planned.id).ok_or(Error::NoSuchFile {
            pid,
            id: planned.id,
        })?;
        let flags = if planned.cloexec { O_CLOEXEC } else { 0 };
        let args = [from.as_raw_fd().into(), planned.fd.into(), flags.into()];
        reel.must(Object::Descriptor(planned.fd), nr::dup3, args);
    }
    close(reel, base, i32::MAX);
    Ok(())
}

fn close(reel: &mut Reel, first: i32, last: i32) {
    if first <= last {
        let args = [first.into(), last.into(), 0.into()];
        reel.must(Object::Descriptor(first), nr::close_range, args);
    }
}

/// Appends what sets root, current directory and umask.
pub(crate) fn directories(
    reel: &mut Reel,
    pid: i32,
    fs: &Directories,
    files: &OpenFiles,
) -> Result<(), Error> {
    let fd = |id| {
        let found = files.fd(id).ok_or(Error::NoSuchFile { pid, id });
        found.map(|fd| fd.as_raw_fd())
    };
    let root = fd(fs.root)?;
    let script = reel.script(512);
    script.must(Object::File(fs.root), nr::fchdir, [root.into()]);
    let here = script.bytes(b".\0");
    script.must(Object::File(fs.root), nr::chroot, [here.into()]);
    let cwd = fd(fs.cwd)?;
    reel.must(Object::File(fs.cwd), nr::fchdir, [cwd.into()]);
    reel.must(Object::Itself, nr::umask, [u64::from(fs.umask).into()]);
    Ok(())
}
