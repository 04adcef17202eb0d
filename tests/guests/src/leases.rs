//! Leases: `fcntl(F_SETLEASE)`.
//!
//! `leases`: of every kind; broken afterwards, the right descriptor is told. `leases-unowned`: nobody is. `leases-breaking`: somebody has wanted to open
//! the files, and the holder has not answered. `leases-foreign`: of a file of somebody else. `leases-blocked`: who waits for the holder. `leases-deleted`: of a file
//! without a name.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Guest, ensure, nap, same, status_field, wait_blocked};
use crate::signals::handle_informed;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("leases", of_every_kind),
    Entry("leases-unowned", unowned),
    Entry("leases-breaking", breaking),
    Entry("leases-foreign", foreign),
    Entry("leases-blocked", blocked),
    Entry("leases-deleted", deleted),
];

const READ: i32 = libc::F_RDLCK;
const WRITE: i32 = libc::F_WRLCK;
const NONE: i32 = libc::F_UNLCK;

/// Signals that have come, and the descriptor that the last one named.
static SIGNALS: AtomicI32 = AtomicI32::new(0);
static NAMED: AtomicI32 = AtomicI32::new(-1);

extern "C" fn broken(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the kernel gives a siginfo, and of this signal it has the layout of SIGPOLL: two words behind
    // the first 16 bytes, the second being the descriptor.
    let fd = unsafe { info.cast::<i32>().add(6).read() };
    NAMED.store(fd, Ordering::Relaxed);
}

fn handle() -> Check {
    handle_informed(libc::SIGUSR1, broken, libc::SA_RESTART)
}

/// Opens a file and takes a lease of it.
fn lease(guest: &Guest, name: &str, write: bool, kind: i32) -> Check<File> {
    fs::write(guest.path(name), name)?;
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .open(guest.path(name))?;
    os!(libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind))?;
    os!(libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGUSR1))?;
    Ok(file)
}

fn kind(fd: RawFd) -> Check<i32> {
    os!(libc::fcntl(fd, libc::F_GETLEASE))
}

/// Opens a file without waiting; the errno if that fails.
fn open(guest: &Guest, name: &str, write: bool) -> Result<(), i32> {
    let mut options = OpenOptions::new();
    let options = options.read(!write).write(write);
    let opened = options
        .custom_flags(libc::O_NONBLOCK)
        .open(guest.path(name));
    opened.map(drop).map_err(|_| errno())
}

/// `fcntl(2)`
const F_SETSIG: i32 = 10;

const BUSY: Result<(), i32> = Err(libc::EWOULDBLOCK);

fn of_every_kind(guest: &Guest) -> Check {
    handle()?;
    let read = lease(guest, "a", false, READ)?;
    let write = lease(guest, "b", true, WRITE)?;
    let alone = lease(guest, "c", false, WRITE)?;
    let free = File::open(guest.path("a"))?;
    guest.hold()?;
    same!("signals", SIGNALS.load(Ordering::Relaxed), 0);
    for (file, want) in [
        (&read, READ),
        (&write, WRITE),
        (&alone, WRITE),
        (&free, NONE),
    ] {
        same!("lease", kind(file.as_raw_fd())?, want);
    }
    same!("reading what is read", open(guest, "a", false), Ok(()));
    for (count, (file, name, write)) in [
        (&read, "a", true),
        (&write, "b", false),
        (&alone, "c", false),
    ]
    .into_iter()
    .enumerate()
    {
        same!(format!("opening {name}"), open(guest, name, write), BUSY);
        let told = (
            SIGNALS.load(Ordering::Relaxed),
            NAMED.load(Ordering::Relaxed),
        );
        same!(
            format!("told of {name}"),
            told,
            (count as i32 + 1, file.as_raw_fd())
        );
    }
    os!(libc::fcntl(read.as_raw_fd(), libc::F_SETLEASE, NONE))?;
    same!("given back", open(guest, "a", true), Ok(()));
    Ok(())
}

/// In a user namespace nobody takes the lease of somebody else's file, not even root.
fn foreign(guest: &Guest) -> Check {
    const SOMEBODY: u32 = 1;
    fs::write(guest.path("a"), "a")?;
    std::os::unix::fs::chown(guest.path("a"), Some(SOMEBODY), None)?;
    let file = File::open(guest.path("a"))?;
    // SAFETY: no memory is passed.
    unsafe { libc::setfsuid(SOMEBODY) };
    os!(libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, READ))?;
    // SAFETY: as above.
    unsafe { libc::setfsuid(0) };
    guest.hold()?;
    same!("lease", kind(file.as_raw_fd())?, READ);
    let uids = status_field("Uid")?;
    same!("users", uids.split_whitespace().last(), Some("0"));
    Ok(())
}

fn unowned(guest: &Guest) -> Check {
    handle()?;
    let file = lease(guest, "a", true, WRITE)?;
    os!(libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, 0))?;
    guest.hold()?;
    same!("lease", kind(file.as_raw_fd())?, WRITE);
    same!("opening a", open(guest, "a", true), BUSY);
    same!("nobody is told", SIGNALS.load(Ordering::Relaxed), 0);
    Ok(())
}

fn breaking(guest: &Guest) -> Check {
    handle()?;
    let gone = lease(guest, "a", false, READ)?;
    let lowered = lease(guest, "b", true, WRITE)?;
    let vanishing = lease(guest, "c", true, WRITE)?;
    let unclear = lease(guest, "d", false, WRITE)?;
    for (name, write) in [("a", true), ("b", false), ("c", true), ("d", true)] {
        same!(format!("opening {name}"), open(guest, name, write), BUSY);
    }
    same!("signals", SIGNALS.load(Ordering::Relaxed), 4);
    guest.hold()?;
    for (file, want) in [
        (&gone, NONE),
        (&lowered, READ),
        (&vanishing, NONE),
        (&unclear, NONE),
    ] {
        same!("lease", kind(file.as_raw_fd())?, want);
    }
    same!("reading a", open(guest, "a", false), Ok(()));
    for name in ["b", "c", "d"] {
        same!(format!("reading {name}"), open(guest, name, false), BUSY);
    }
    same!("signals", SIGNALS.load(Ordering::Relaxed), 4);
    // The lease that can be lowered can be broken once more.
    same!("writing b", open(guest, "b", true), BUSY);
    let told = (
        SIGNALS.load(Ordering::Relaxed),
        NAMED.load(Ordering::Relaxed),
    );
    same!("told", told, (5, lowered.as_raw_fd()));
    for file in [&gone, &lowered, &vanishing, &unclear] {
        os!(libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, NONE))?;
    }
    for name in ["a", "b", "c", "d"] {
        same!(format!("opening {name}"), open(guest, name, true), Ok(()));
    }
    Ok(())
}

fn blocked(guest: &Guest) -> Check {
    handle()?;
    let file = lease(guest, "a", true, WRITE)?;
    let kid = guest.fork("opener", |guest| {
        os!(libc::close(file.as_raw_fd()))?;
        File::open(guest.path("a"))?;
        ensure!(guest.path("given").exists(), "it came early");
        Ok(())
    })?;
    let waits = || wait_blocked(kid.pid, libc::SYS_openat);
    waits()?;
    guest.hold()?;
    waits()?;
    nap(Duration::from_millis(20)); // it stays so
    waits()?;
    same!("signals", SIGNALS.load(Ordering::Relaxed), 1);
    same!("lease", kind(file.as_raw_fd())?, READ);
    fs::write(guest.path("given"), "")?;
    os!(libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, NONE))?;
    kid.join(guest)
}

fn deleted(guest: &Guest) -> Check {
    handle()?;
    let file = lease(guest, "a", true, WRITE)?;
    fs::remove_file(guest.path("a"))?;
    guest.hold()?;
    same!("lease", kind(file.as_raw_fd())?, WRITE);
    same!("signals", SIGNALS.load(Ordering::Relaxed), 0);
    Ok(())
}
