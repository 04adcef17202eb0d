//! Who may write a set into a directory, and the hidden directory for files of it that have a name from the start.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::{Dir, WriteError};

/// The file inside the image directory whose lock tells a living owner from a dead one.
const LOCK: &str = ".gelid-lock";

/// The hidden directory inside the image directory. It is made when a file needs it: most have no name before the
/// commit, and to make and remove a directory takes 0.2 ms on ext4.
const HIDDEN: &str = ".gelid-staging";

/// The right to write a set into a directory, which nobody else has meanwhile.
#[derive(Debug)]
pub(crate) struct Claim {
    dir: Dir,
    hidden: OnceLock<OwnedFd>,
    /// Holds the lock until it is closed.
    _lock: OwnedFd,
}

impl Claim {
    /// Claims a directory. What an owner that was killed has left is removed.
    pub(crate) fn new(dir: &Dir) -> Result<Self, WriteError> {
        let lock = lock(dir)?;
        remove_hidden(dir).map_err(|source| WriteError::io(HIDDEN, "remove", source))?;
        Ok(Self {
            dir: dir.clone(),
            hidden: OnceLock::new(),
            _lock: lock,
        })
    }

    /// The hidden directory.
    pub(crate) fn hidden(&self) -> rustix::io::Result<&OwnedFd> {
        if let Some(hidden) = self.hidden.get() {
            return Ok(hidden);
        }
        match rustix::fs::mkdirat(&self.dir, HIDDEN, Mode::RWXU) {
            // Another thread made it just now.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(source) => return Err(source),
        }
        let made = open_hidden(&self.dir)?;
        Ok(self.hidden.get_or_init(|| made))
    }

    /// Removes what was hidden. What cannot be removed now, the next dump into the directory removes.
    pub(crate) fn give_up(&self) {
        if self.hidden.get().is_some() {
            let _ = remove_hidden(&self.dir);
        }
        let _ = rustix::fs::unlinkat(&self.dir, LOCK, AtFlags::empty());
    }
}

/// Makes and locks the file, or takes over that of a dump that was killed.
fn lock(dir: &Dir) -> Result<OwnedFd, WriteError> {
    let failed = |operation, source: Errno| WriteError::io(LOCK, operation, source);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        let file = rustix::fs::openat(dir, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|source| failed("create", source))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(WriteError::Busy {
                    directory: dir.label().into(),
                });
            }
            Err(source) => return Err(failed("lock", source)),
        }
        // The owner may have removed it between opening and locking.
        let stat = rustix::fs::fstat(&file).map_err(|source| failed("stat", source))?;
        if stat.st_nlink > 0 {
            return Ok(file);
        }
    }
}

/// Removes the hidden directory with all of its files, if there is one.
fn remove_hidden(dir: &Dir) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, HIDDEN, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(source) => return Err(source),
    }
    let hidden = open_hidden(dir)?;
    for entry in rustix::fs::Dir::read_from(&hidden)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            rustix::fs::unlinkat(&hidden, entry.file_name(), AtFlags::empty())?;
        }
    }
    rustix::fs::unlinkat(dir, HIDDEN, AtFlags::REMOVEDIR)
}

fn open_hidden(dir: &Dir) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, HIDDEN, flags, Mode::empty())
}
