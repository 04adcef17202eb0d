//! Memory that even the kernel has no mapping of: `memfd_secret(2)`. Nobody can read it but the program.

use crate::Entry;
use crate::os::{Map, PAGE, errno, os};
use crate::protocol::{Check, Failure, Guest};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("memfd-secret", behind_descriptor),
    Entry("memfd-secret-mapped", mapped),
];

fn secret() -> Check<i32> {
    // SAFETY: a number.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, 0) };
    if fd == -1 && [libc::ENOSYS, libc::EPERM].contains(&errno()) {
        return Err(Failure::skip("no memfd_secret"));
    }
    let fd = fd as i32;
    os!(libc::ftruncate(fd, PAGE as i64))?;
    Ok(fd)
}

fn behind_descriptor(guest: &Guest) -> Check {
    let fd = secret()?;
    guest.hold()?;
    os!(libc::fcntl(fd, libc::F_GETFD))?;
    Ok(())
}

fn mapped(guest: &Guest) -> Check {
    let fd = secret()?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let map = Map::new(PAGE, access, libc::MAP_SHARED, fd, 0)?;
    os!(libc::close(fd))?;
    map.fill(0, 1, 7);
    guest.hold()?;
    map.check("secret", 0, 1, 7)
}
