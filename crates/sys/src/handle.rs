//! File handles: `open_by_handle_at(2)`.

use std::ffi::CStr;
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

/// The handle of the inode that a name in a directory leads to, its kind first. A last link is not followed.
///
/// # Errors
///
/// `EOPNOTSUPP` where inodes cannot be found by handles, and those of a look at a name.
pub fn of(directory: impl AsFd, name: &CStr) -> Result<(u32, Vec<u8>)> {
    let mut file = FileHandle {
        bytes: MAX as u32,
        kind: 0,
        handle: [0; MAX],
    };
    let mut mount = 0i32;
    let args = [
        directory.as_fd().as_raw_fd() as usize,
        name.as_ptr() as usize,
        &raw mut file as usize,
        &raw mut mount as usize,
        0,
        0,
    ];
    // SAFETY: the kernel reads a string, and writes a number and at most as many bytes as the header says there are.
    unsafe { call(libc::SYS_name_to_handle_at as usize, args) }?;
    let bytes = file
        .handle
        .get(..file.bytes as usize)
        .ok_or(Errno::OVERFLOW)?;
    Ok((file.kind.cast_unsigned(), bytes.to_vec()))
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
    fn a_file_is_found_by_its_handle() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("file"), b"").unwrap();
        let directory = std::fs::File::open(scratch.path()).unwrap();
        let Ok((kind, bytes)) = of(&directory, c"file") else {
            return; // Not every file system can do that.
        };
        if let Ok(found) = open(&directory, kind, &bytes, OFlags::PATH) {
            let file = std::fs::File::open(scratch.path().join("file")).unwrap();
            let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
            assert_eq!(inode(&found), inode(&file.into()));
        }
        assert_eq!(of(&directory, c"none"), Err(Errno::NOENT));
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
