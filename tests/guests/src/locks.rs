//! Locks of files: `fcntl(2)`, `flock(2)`.
//!
//! `locks-posix`: ranges that belong to a process. `locks-descriptions`: `flock` and OFD locks, shared by processes, taken
//! by one that has closed the file. `locks-shared-table`: taken by a process with another's table. `locks-blocked`: who
//! waits for a lock. `locks-deleted`: on a file without a name. `locks-refused [COUNT]`: dumped without the option,
//! and with as many descriptors more.
//! `locks-awaited`, `locks-kept`: processes outside of the tree.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Guest, Kid, ensure, nap, reap, same, until, wait_blocked};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("locks-posix", posix),
    Entry("locks-descriptions", descriptions),
    Entry("locks-shared-table", shared_table),
    Entry("locks-blocked", blocked),
    Entry("locks-deleted", deleted),
    Entry("locks-refused", refused),
    Entry("locks-awaited", awaited),
    Entry("locks-kept", kept),
];

fn file(guest: &Guest, name: &str) -> Check<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true);
    Ok(options.truncate(false).open(guest.path(name))?)
}

fn range(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: 0,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

/// Takes or gives back a lock; the errno if that fails.
fn lock(fd: RawFd, command: i32, kind: i32, start: i64, len: i64) -> Result<(), i32> {
    let range = range(kind, start, len);
    // SAFETY: `range` is a live local.
    match unsafe { libc::fcntl(fd, command, &raw const range) } {
        -1 => Err(errno()),
        _ => Ok(()),
    }
}

/// The lock in the way of one for writing: type, start, length, process.
fn in_the_way(fd: RawFd, command: i32, start: i64, len: i64) -> Check<(i32, i64, i64, i32)> {
    let mut range = range(libc::F_WRLCK, start, len);
    os!(libc::fcntl(fd, command, &raw mut range))?;
    Ok((range.l_type.into(), range.l_start, range.l_len, range.l_pid))
}

fn flock(fd: RawFd, how: i32) -> Result<(), i32> {
    // SAFETY: numbers only.
    match unsafe { libc::flock(fd, how | libc::LOCK_NB) } {
        -1 => Err(errno()),
        _ => Ok(()),
    }
}

const FREE: i32 = libc::F_UNLCK;

fn posix(guest: &Guest) -> Check {
    let one = file(guest, "one")?;
    let fd = one.as_raw_fd();
    let twin = one.try_clone()?;
    let me = std::process::id().cast_signed();
    for (kind, start, len) in [
        (libc::F_RDLCK, 10, 5),
        (libc::F_WRLCK, 15, 5),
        (libc::F_WRLCK, 1 << 40, 0),
    ] {
        same!("lock", lock(fd, libc::F_SETLK, kind, start, len), Ok(()));
    }
    let kid = guest.fork("other", |guest| {
        guest.wait();
        let (read, write) = (libc::F_RDLCK, libc::F_WRLCK);
        for (start, len, want) in [
            (0, 10, (FREE, 0, 10, 0)),
            (0, 15, (read, 10, 5, me)),
            (15, 1, (write, 15, 5, me)),
            (20, 100, (FREE, 20, 100, 0)),
            (1 << 50, 1, (write, 1 << 40, 0, me)),
        ] {
            let found = in_the_way(fd, libc::F_GETLK, start, len)?;
            same!(format!("at {start}"), found, want);
        }
        same!("shared", lock(fd, libc::F_SETLK, read, 10, 5), Ok(()));
        Ok(())
    })?;
    guest.hold()?;
    kid.join(guest)?;
    // It was taken by another descriptor of the same table.
    drop(twin);
    let other = guest.fork("free", |_| {
        let found = in_the_way(fd, libc::F_GETLK, 0, 0)?;
        same!("after a close", found, (FREE, 0, 0, 0));
        Ok(())
    })?;
    other.join(guest)
}

fn descriptions(guest: &Guest) -> Check {
    let (one, two) = (file(guest, "one")?, file(guest, "two")?);
    let (third, own) = (file(guest, "two")?, file(guest, "one")?);
    same!("flock", flock(one.as_raw_fd(), libc::LOCK_EX), Ok(()));
    same!("flock", flock(two.as_raw_fd(), libc::LOCK_SH), Ok(()));
    same!("flock", flock(third.as_raw_fd(), libc::LOCK_SH), Ok(()));
    let taken = lock(two.as_raw_fd(), libc::F_OFD_SETLK, libc::F_WRLCK, 3, 4);
    same!("OFD", taken, Ok(()));
    let (fd, ofd) = (one.as_raw_fd(), two.as_raw_fd());
    let kid = guest.fork("holder", |guest| {
        guest.wait();
        // It has part in them.
        same!("own", flock(fd, libc::LOCK_EX), Ok(()));
        let own = lock(ofd, libc::F_OFD_SETLK, libc::F_WRLCK, 3, 4);
        same!("own", own, Ok(()));
        until("a look", || Ok(guest.path("looked").exists()))
    })?;
    drop(one);
    guest.hold()?;
    let busy = Err(libc::EWOULDBLOCK);
    same!("held", flock(own.as_raw_fd(), libc::LOCK_SH), busy);
    same!("shared", flock(third.as_raw_fd(), libc::LOCK_EX), busy);
    let found = in_the_way(third.as_raw_fd(), libc::F_OFD_GETLK, 0, 0)?;
    same!("OFD", found, (libc::F_WRLCK, 3, 4, -1));
    fs::write(guest.path("looked"), "")?;
    kid.join(guest)?;
    same!("free", flock(own.as_raw_fd(), libc::LOCK_EX), Ok(()));
    drop(two);
    same!("free", flock(third.as_raw_fd(), libc::LOCK_EX), Ok(()));
    let found = in_the_way(third.as_raw_fd(), libc::F_OFD_GETLK, 0, 0)?.0;
    same!("free", found, FREE);
    Ok(())
}

fn shared_table(guest: &Guest) -> Check {
    let one = file(guest, "one")?;
    let fd = one.as_raw_fd();
    // SAFETY: as fork, but that descriptors are shared; the child closes none of its parent's.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::CLONE_FILES | libc::SIGCHLD,
            0,
            0,
            0,
            0,
        )
    };
    if child == 0 {
        let taken = lock(fd, libc::F_SETLK, libc::F_WRLCK, 0, 7);
        let result = match taken {
            Ok(()) => fs::write(guest.path("taken"), "").map_err(Into::into),
            Err(errno) => Err(format!("lock: {errno}").into()),
        };
        guest.wait();
        let code = guest.child_result("taker", &result);
        // SAFETY: ends the process without running the parent's exit handlers.
        unsafe { libc::_exit(code) }
    }
    let child = i32::try_from(child).map_err(|_| "clone")?;
    until("the lock", || Ok(guest.path("taken").exists()))?;
    let other = guest.fork("other", |guest| {
        guest.wait();
        let found = in_the_way(fd, libc::F_GETLK, 0, 0)?;
        same!("lock", found, (libc::F_WRLCK, 0, 7, child));
        fs::write(guest.path("looked"), "")?;
        Ok(())
    })?;
    guest.hold()?;
    let own = lock(fd, libc::F_SETLK, libc::F_WRLCK, 0, 7);
    same!("own", own, Ok(()));
    same!("child", reap(child)?, 0);
    other.join(guest)
}

/// Children that wait for what this process holds.
fn blocked(guest: &Guest) -> Check {
    let (posix, ofd, whole) = (file(guest, "a")?, file(guest, "b")?, file(guest, "c")?);
    let held = lock(posix.as_raw_fd(), libc::F_SETLK, libc::F_WRLCK, 0, 0);
    same!("POSIX", held, Ok(()));
    let held = lock(ofd.as_raw_fd(), libc::F_OFD_SETLK, libc::F_WRLCK, 0, 0);
    same!("OFD", held, Ok(()));
    same!("flock", flock(whole.as_raw_fd(), libc::LOCK_EX), Ok(()));
    let held = [posix.as_raw_fd(), ofd.as_raw_fd(), whole.as_raw_fd()];
    let waiter = |name: &str, command: i32| -> Check<Kid> {
        guest.fork(name, |guest| {
            for fd in held {
                os!(libc::close(fd))?;
            }
            let own = file(guest, name)?;
            if command == 0 {
                os!(libc::flock(own.as_raw_fd(), libc::LOCK_EX))?;
            } else {
                let taken = lock(own.as_raw_fd(), command, libc::F_WRLCK, 0, 0);
                same!("lock", taken, Ok(()));
            }
            ensure!(guest.path("given").exists(), "it came early");
            Ok(())
        })
    };
    let kids = [
        (waiter("a", libc::F_SETLKW)?, libc::SYS_fcntl),
        (waiter("b", libc::F_OFD_SETLKW)?, libc::SYS_fcntl),
        (waiter("c", 0)?, libc::SYS_flock),
    ];
    let all_wait = || {
        kids.iter()
            .try_for_each(|(kid, call)| wait_blocked(kid.pid, *call))
    };
    all_wait()?;
    guest.hold()?;
    all_wait()?;
    nap(Duration::from_millis(20)); // they stay so
    all_wait()?;
    fs::write(guest.path("given"), "")?;
    drop((posix, ofd, whole));
    kids.iter().try_for_each(|(kid, _)| kid.join(guest))
}

fn deleted(guest: &Guest) -> Check {
    let one = file(guest, "one")?;
    let two = file(guest, "one")?;
    same!("flock", flock(one.as_raw_fd(), libc::LOCK_EX), Ok(()));
    let held = lock(one.as_raw_fd(), libc::F_SETLK, libc::F_RDLCK, 1, 1);
    same!("POSIX", held, Ok(()));
    fs::remove_file(guest.path("one"))?;
    guest.hold()?;
    let busy = Err(libc::EWOULDBLOCK);
    same!("held", flock(two.as_raw_fd(), libc::LOCK_SH), busy);
    let kid = guest.fork("other", |_| {
        let me = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        let found = in_the_way(one.as_raw_fd(), libc::F_GETLK, 0, 0)?;
        same!("POSIX", found, (libc::F_RDLCK, 1, 1, me.unwrap_or(0)));
        Ok(())
    })?;
    kid.join(guest)
}

fn refused(guest: &Guest) -> Check {
    let one = file(guest, "one")?;
    let others = (0..guest.number(0, 0)?).map(|_| one.try_clone());
    let _others = others.collect::<Result<Vec<_>, _>>()?;
    let held = lock(one.as_raw_fd(), libc::F_SETLK, libc::F_WRLCK, 0, 0);
    same!("lock", held, Ok(()));
    guest.hold()?;
    let kid = guest.fork("other", |_| {
        let found = in_the_way(one.as_raw_fd(), libc::F_GETLK, 0, 0)?.0;
        same!("lock", found, libc::F_WRLCK);
        Ok(())
    })?;
    kid.join(guest)
}

/// Runs something in a process that is not the guest's; its pid.
pub(crate) fn stranger(guest: &Guest, body: impl FnOnce() -> Check) -> Check<i32> {
    let middle = guest.fork("middle", |guest| {
        let stranger = guest.fork("stranger", |guest| {
            os!(libc::setsid())?;
            body()?;
            // Nobody ends it if the test fails, or is over before it looks again.
            while guest.waiting() && guest.dir.exists() {
                nap(Duration::from_millis(5));
            }
            Ok(())
        })?;
        fs::write(guest.path("stranger"), stranger.pid.to_string())?;
        Ok(())
    })?;
    same!("status", reap(middle.pid)?, 0);
    Ok(fs::read_to_string(guest.path("stranger"))?.parse()?)
}

fn awaited(guest: &Guest) -> Check {
    let one = file(guest, "one")?;
    let held = lock(one.as_raw_fd(), libc::F_SETLK, libc::F_WRLCK, 0, 0);
    same!("lock", held, Ok(()));
    let pid = stranger(guest, || {
        let own = file(guest, "one")?;
        let got = lock(own.as_raw_fd(), libc::F_SETLKW, libc::F_WRLCK, 0, 0);
        same!("lock", got, Ok(()));
        ensure!(guest.path("given").exists(), "it came early");
        fs::write(guest.path("got"), "")?;
        Ok(())
    })?;
    wait_blocked(pid, libc::SYS_fcntl)?;
    guest.hold()?;
    wait_blocked(pid, libc::SYS_fcntl)?;
    fs::write(guest.path("given"), "")?;
    drop(one);
    until("the stranger", || Ok(guest.path("got").exists()))
}

fn kept(guest: &Guest) -> Check {
    let (one, two) = (file(guest, "one")?, file(guest, "one")?);
    stranger(guest, || {
        same!("flock", flock(one.as_raw_fd(), libc::LOCK_EX), Ok(()));
        fs::write(guest.path("locked"), "")?;
        Ok(())
    })?;
    until("the lock", || Ok(guest.path("locked").exists()))?;
    guest.hold()?;
    same!("own", flock(one.as_raw_fd(), libc::LOCK_EX), Ok(()));
    let busy = Err(libc::EWOULDBLOCK);
    same!("held", flock(two.as_raw_fd(), libc::LOCK_EX), busy);
    Ok(())
}
