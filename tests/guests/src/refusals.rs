//! What a dump refuses, one object each; the guest finds that nothing of it was disturbed.
//!
//! `refused-bpf`, `refused-perf`, `refused-userfaultfd`, `refused-device`.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, same};
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("refused-bpf", bpf),
    Entry("refused-perf", perf),
    Entry("refused-userfaultfd", userfaultfd),
    Entry("refused-device", device),
];

/// A descriptor that a system call has given, or why there is none.
fn descriptor(what: &str, fd: Check<libc::c_long>) -> Check<OwnedFd> {
    match fd.map(i32::try_from) {
        // SAFETY: the kernel has just given this number to nobody else.
        Ok(Ok(fd)) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Failure::skip(format!("no {what} here"))),
    }
}

/// The same file is behind the descriptor as before.
fn holds(guest: &Guest, fd: &OwnedFd) -> Check {
    let inode = || Ok::<_, Failure>(File::from(fd.try_clone()?).metadata()?.ino());
    let before = inode()?;
    guest.hold()?;
    same!("inode", inode()?, before);
    Ok(())
}

fn bpf(guest: &Guest) -> Check {
    // A filter of sockets: put 0 into the first register, and end.
    let program: [u64; 2] = [0xb7, 0x95];
    let licence = b"GPL\0";
    // BPF_PROG_LOAD: type, number of instructions, their address, that of the licence.
    let mut attributes = [0_u64; 16];
    attributes[0] = 1 | 2 << 32;
    (attributes[1], attributes[2]) = (program.as_ptr() as u64, licence.as_ptr() as u64);
    let size = size_of_val(&attributes);
    let fd = os!(libc::syscall(libc::SYS_bpf, 5, attributes.as_ptr(), size));
    holds(guest, &descriptor("BPF", fd)?)
}

fn perf(guest: &Guest) -> Check {
    // PERF_TYPE_SOFTWARE, the size, PERF_COUNT_SW_CPU_CLOCK.
    let mut attributes = [0_u32; 32];
    attributes[..2].copy_from_slice(&[1, 128]);
    let fd = os!(libc::syscall(
        libc::SYS_perf_event_open,
        attributes.as_ptr(),
        0,
        -1,
        -1,
        0
    ));
    holds(guest, &descriptor("perf events", fd)?)
}

fn userfaultfd(guest: &Guest) -> Check {
    let fd = os!(libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC));
    holds(guest, &descriptor("userfaultfd", fd)?)
}

fn device(guest: &Guest) -> Check {
    match File::open("/dev/kmsg") {
        Ok(file) => holds(guest, &file.into()),
        Err(_) => Err(Failure::skip("no /dev/kmsg here")),
    }
}
