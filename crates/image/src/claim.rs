//! The hidden directory of a set under construction, and whose it is.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::{Dir, WriteError};

/// The hidden directory inside the image directory that holds the files until the commit.
pub(crate) const HIDDEN: &str = ".gelid-staging";

/// Makes the hidden directory, or takes it over from a dump that was killed. The lock on it tells
/// a living owner from a dead one.
pub(crate) fn claim(dir: &Dir) -> Result<OwnedFd, WriteError> {
    let failed = |operation, source: Errno| WriteError::io(HIDDEN, operation, source);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        match rustix::fs::mkdirat(dir, HIDDEN, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(source) => return Err(failed("create", source)),
        }
        let hidden = match rustix::fs::openat(dir, HIDDEN, flags, Mode::empty()) {
            Ok(hidden) => hidden,
            // Its owner removed it just now.
            Err(Errno::NOENT) => continue,
            Err(source) => return Err(failed("open", source)),
        };
        match rustix::fs::flock(&hidden, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(WriteError::Busy {
                    directory: dir.label().into(),
                });
            }
            Err(source) => return Err(failed("lock", source)),
        }
        // The owner may have removed it between opening and locking.
        let stat = rustix::fs::fstat(&hidden).map_err(|source| failed("stat", source))?;
        if stat.st_nlink > 0 {
            empty(&hidden).map_err(|source| failed("empty", source))?;
            return Ok(hidden);
        }
    }
}

/// Removes the files of a directory.
pub(crate) fn empty(dir: impl AsFd) -> rustix::io::Result<()> {
    let dir = dir.as_fd();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            rustix::fs::unlinkat(dir, entry.file_name(), AtFlags::empty())?;
        }
    }
    Ok(())
}
