//! File handles: `open_by_handle_at(2)`.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};

use crate::syscall::call;

/// Bytes of the longest handle.
pub const MAX: usize = 128;

/// `struct file_handle`
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; MAX],
}

/// Opens the inode that a handle of the file system of `mount` stands for, close-on-exec. `mount` is any
/// file on that mount, not opened with `O_PATH`.
///
/// # Errors
///
/// `EINVAL` for a handle that is too long, `ESTALE` if there is no such inode any more, `EOPNOTSUPP` where
/// inodes cannot be found by handles, `EPERM` without `CAP_DAC_READ_SEARCH`.
pub fn open(mount: impl AsFd, kind: u32, handle: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let mut file = FileHandle {
        bytes: u32::try_from(handle.len()).map_err(|_| Errno::INVAL)?,
        kind: kind.cast_signed(),
        handle: [0; MAX],
    };
    let place = file.handle.get_mut(..handle.len()).ok_or(Errno::INVAL)?;
    place.copy_from_slice(handle);
    let args = [
        mount.as_fd().as_raw_fd() as usize,
        &raw const file as usize,
        (flags | OFlags::CLOEXEC).bits() as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel reads the header and as many bytes as it says, all of which are there.
    let fd = unsafe { call(libc::SYS_open_by_handle_at as usize, args) }?;
    // SAFETY: the call has made the descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_that_cannot_be_are_refused() {
        let root = std::fs::File::open("/").unwrap();
        assert_eq!(
            open(&root, 1, &[0; MAX + 1], OFlags::PATH).err(),
            Some(Errno::INVAL)
        );
        assert!(open(&root, 1, &[0xff; 8], OFlags::PATH).is_err());
    }

    #[test]
    fn a_watched_inode_is_found_by_its_handle() {
        use rustix::fs::inotify;
        let scratch = tempfile::tempdir().unwrap();
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&fd, scratch.path(), inotify::WatchFlags::CREATE).unwrap();
        let me = crate::proc::task_dir(rustix::process::getpid()).unwrap();
        let info = crate::proc::fdinfo::read(&me, fd.as_raw_fd()).unwrap();
        let watch = info.inotify().unwrap().remove(0);
        let (kind, handle) = watch.handle.unwrap();
        let mount = std::fs::File::open(scratch.path()).unwrap();
        match open(&mount, kind, &handle, OFlags::PATH) {
            Ok(found) => assert_eq!(rustix::fs::fstat(found).unwrap().st_ino, watch.inode),
            // Not every file system can do that.
            Err(errno) => assert!(matches!(errno, Errno::OPNOTSUPP | Errno::STALE)),
        }
    }
}
