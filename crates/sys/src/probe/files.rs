//! Probes of what the kernel tells and does about files and mounts.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::{Errno, Result};

use super::{Reason, Support};
use crate::syscall::call;
use crate::{mount, proc};

/// The `fdinfo` of a descriptor of the caller.
fn fdinfo(fd: impl AsFd) -> Result<proc::fdinfo::FdInfo> {
    let task = proc::task_dir(rustix::process::getpid()).map_err(|error| error.errno())?;
    proc::fdinfo::read(&task, fd.as_fd().as_raw_fd()).map_err(|error| error.errno())
}

fn memfd() -> Result<OwnedFd> {
    memfd_create("probe", MemfdFlags::CLOEXEC)
}

/// An ioctl that takes a number, or the address of what `data` borrows.
fn ioctl(fd: impl AsFd, request: usize, data: usize) -> Result<usize> {
    let args = [fd.as_fd().as_raw_fd() as usize, request, data, 0, 0, 0];
    // SAFETY: private to this module, whose callers pass requests that read or write no more than the
    // live object whose address they give.
    unsafe { call(libc::SYS_ioctl as usize, args) }
}

/// Parsing fails without the line.
pub(super) fn mnt_id() -> Support {
    memfd().and_then(fdinfo).into()
}

pub(super) fn fdinfo_lock() -> Support {
    let look = || {
        let file = memfd()?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        fdinfo(&file)
    };
    match look() {
        Ok(info) => Support::when(
            info.value("lock").is_some(),
            "fdinfo has no line for a lock",
        ),
        Err(errno) => Support::No(Reason::Errno(errno)),
    }
}

pub(super) fn timerfd() -> Support {
    /// `TFD_IOC_SET_TICKS`, `_IOW('T', 0, __u64)`
    const SET_TICKS: usize = 0x4008_5400;
    let set = || {
        let args = [
            libc::CLOCK_MONOTONIC as usize,
            libc::TFD_CLOEXEC as usize,
            0,
            0,
            0,
            0,
        ];
        // SAFETY: timerfd_create takes two numbers.
        let fd = unsafe { call(libc::SYS_timerfd_create as usize, args) }?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let ticks = 1u64;
        ioctl(&fd, SET_TICKS, &raw const ticks as usize)?;
        fdinfo(&fd)
    };
    match set() {
        Ok(info) => Support::when(info.value("clockid").is_some(), "fdinfo has no clockid"),
        Err(errno) => Support::No(Reason::Errno(errno)),
    }
}

pub(super) fn openat2() -> Support {
    use rustix::fs::{CWD, ResolveFlags, openat2};
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(CWD, ".", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).into()
}

pub(super) fn move_mount_set_group() -> Support {
    /// `MOVE_MOUNT_SET_GROUP | MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH`
    const FLAGS: usize = 0x100 | 0x4 | 0x40;
    let (none, empty) = (-1i32 as usize, c"".as_ptr() as usize);
    // SAFETY: the kernel reads two empty strings; with descriptors that are not open it can only fail.
    match unsafe {
        call(
            libc::SYS_move_mount as usize,
            [none, empty, none, empty, FLAGS, 0],
        )
    } {
        Ok(_) | Err(Errno::BADF) => Support::Yes,
        Err(errno) => Support::No(Reason::Errno(errno)),
    }
}

pub(super) fn statmount() -> Support {
    mount::list(mount::OWN_NAMESPACE, mount::ROOT)
        .and_then(|ids| match ids.first() {
            Some(id) => mount::stat(mount::OWN_NAMESPACE, *id, mount::Mask::MNT_BASIC).map(drop),
            None => Ok(()),
        })
        .into()
}

pub(super) fn autofs() -> Support {
    let task = proc::task_dir(rustix::process::getpid());
    let Ok(mounts) = task.and_then(|task| proc::mountinfo::read(&task)) else {
        return Support::Unknown(Reason::Says("mountinfo cannot be read"));
    };
    let Some(mount) = mounts.iter().find(|mount| mount.fs_type == b"autofs") else {
        return match filesystem_is_known("autofs") {
            true => Support::when(
                std::path::Path::new("/dev/autofs").exists(),
                "there is no /dev/autofs",
            ),
            false => Support::No(Reason::Says("the kernel has no autofs")),
        };
    };
    let mut options = mount.super_options.split(|byte| *byte == b',');
    Support::when(
        options.any(|option| option.starts_with(b"pipe_ino=")),
        "mountinfo has no pipe_ino",
    )
}

fn filesystem_is_known(name: &str) -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known
        .lines()
        .any(|line| line.split_whitespace().last() == Some(name))
}

pub(super) fn overlayfs_maps() -> Support {
    match filesystem_is_known("overlay") {
        true => Support::Unknown(Reason::Says("it takes a mount of overlayfs to find out")),
        false => Support::No(Reason::Says("the kernel has no overlayfs")),
    }
}

fn open_tun() -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/net/tun", flags, Mode::empty())
}

/// Chooses the index of a device that is never made.
pub(super) fn tun() -> Support {
    /// `TUNSETIFINDEX`, `_IOW('T', 218, unsigned int)`
    const SET_IFINDEX: usize = 0x4004_54da;
    let index = 23u32;
    open_tun()
        .and_then(|fd| ioctl(fd, SET_IFINDEX, &raw const index as usize))
        .into()
}

pub(super) fn tun_ns() -> Support {
    open_tun().and_then(super::net::namespace_of).into()
}
