//! Tasks dumped while they are blocked in a system call without a timeout.
//!
//! A child blocks, and nothing it waits for happens before go. Afterwards it must still be blocked,
//! and do its work when woken. `EINTR` is right only where a signal handler ran.

use crate::Entry;
use crate::blocked::{call, epoll_set, raw};
use crate::os::{Map, PAGE, os};
use crate::protocol::{Check, Failure, Guest, ensure, nap, same, until, wait_blocked};
use crate::signals::{bit, handle, mask};
use std::fs;
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("blocked-futex", futex),
    Entry("blocked-pause", |guest| {
        signalled(guest, libc::SYS_pause, pause)
    }),
    Entry("blocked-sigsuspend", |guest| {
        signalled(guest, libc::SYS_rt_sigsuspend, sigsuspend)
    }),
    Entry("blocked-sigwait", |guest| {
        signalled(guest, libc::SYS_rt_sigtimedwait, sigwait)
    }),
    Entry("blocked-pipe-read", pipe_read),
    Entry("blocked-pipe-write", pipe_write),
    Entry("blocked-fifo-open", fifo_open),
    Entry("blocked-wait4", wait4),
    Entry("blocked-epoll-wait", epoll_wait),
];

/// Runs a call without limit in a child; it must be blocked before and after, until woken.
fn endless(
    guest: &Guest,
    call: libc::c_long,
    body: impl FnOnce() -> Check,
    wake: impl FnOnce(i32) -> Check,
) -> Check {
    let kid = guest.fork("blocked", |_| body())?;
    wait_blocked(kid.pid, call)?;
    guest.hold()?;
    wait_blocked(kid.pid, call)
        .map_err(|failure| Failure::new(format!("{failure}; {}", guest.complaint("blocked"))))?;
    nap(Duration::from_millis(20)); // it stays so
    wait_blocked(kid.pid, call)
        .map_err(|failure| Failure::new(format!("{failure}; {}", guest.complaint("blocked"))))?;
    wake(kid.pid)?;
    kid.join(guest)
}

fn futex(guest: &Guest) -> Check {
    let page = Map::shared(PAGE)?;
    let address = page.at(0);
    endless(
        guest,
        libc::SYS_futex,
        || {
            let none = std::ptr::null_mut::<u8>();
            same!(
                "futex wait",
                call!(libc::SYS_futex, address, libc::FUTEX_WAIT, 0, none),
                0
            );
            same!("word", page.get(0), 1);
            Ok(())
        },
        |_| {
            page.set(0, 1);
            same!(
                "tasks woken",
                call!(libc::SYS_futex, address, libc::FUTEX_WAKE, 10),
                1
            );
            Ok(())
        },
    )
}

static HANDLED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

extern "C" fn count(_: i32) {
    HANDLED.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
}

/// A call that ends by SIGUSR2.
fn signalled(guest: &Guest, call: libc::c_long, body: fn() -> Check) -> Check {
    handle(libc::SIGUSR2, count, libc::SA_RESTART)?;
    endless(guest, call, body, |pid| {
        os!(libc::kill(pid, libc::SIGUSR2))?;
        Ok(())
    })
}

/// How often the handler ran.
fn handled() -> u32 {
    HANDLED.load(std::sync::atomic::Ordering::SeqCst)
}

fn pause() -> Check {
    same!("pause", call!(libc::SYS_pause), -i64::from(libc::EINTR));
    same!("times the handler ran", handled(), 1);
    Ok(())
}

fn sigsuspend() -> Check {
    mask(Some(bit(libc::SIGUSR2) | bit(libc::SIGHUP)))?;
    let set = bit(libc::SIGTERM);
    same!(
        "sigsuspend",
        call!(libc::SYS_rt_sigsuspend, &raw const set, 8),
        -i64::from(libc::EINTR)
    );
    same!("times the handler ran", handled(), 1);
    same!(
        "mask afterwards",
        mask(None)?,
        bit(libc::SIGUSR2) | bit(libc::SIGHUP)
    );
    Ok(())
}

fn sigwait() -> Check {
    let set = bit(libc::SIGUSR2);
    mask(Some(set))?;
    let none = std::ptr::null_mut::<u8>();
    same!(
        "sigwait",
        call!(libc::SYS_rt_sigtimedwait, &raw const set, none, none, 8),
        i64::from(libc::SIGUSR2)
    );
    same!("times the handler ran", handled(), 0);
    same!("mask afterwards", mask(None)?, set);
    Ok(())
}

fn pipe_read(guest: &Guest) -> Check {
    let mut ends = [0; 2];
    os!(libc::pipe(ends.as_mut_ptr()))?;
    endless(
        guest,
        libc::SYS_read,
        || {
            let mut buffer = [0_u8; 16];
            same!(
                "read",
                call!(libc::SYS_read, ends[0], buffer.as_mut_ptr(), 16),
                5
            );
            same!("bytes", buffer[..5], *b"hello");
            Ok(())
        },
        |_| {
            os!(libc::write(ends[1], c"hello".as_ptr().cast(), 5))?;
            Ok(())
        },
    )
}

fn pipe_write(guest: &Guest) -> Check {
    const FULL: usize = 65536;
    let mut ends = [0; 2];
    os!(libc::pipe(ends.as_mut_ptr()))?;
    endless(
        guest,
        libc::SYS_write,
        || {
            let bytes: Vec<u8> = (0..FULL + 10_000).map(|index| index as u8).collect();
            // It fills the pipe, then blocks in the same call.
            let wrote = call!(libc::SYS_write, ends[1], bytes.as_ptr(), bytes.len());
            // Stopped and started again, a write that has written something says how much.
            let rest = &bytes[usize::try_from(wrote).map_err(Failure::new)?..];
            ensure!(wrote >= FULL as i64, "write: {wrote}");
            if !rest.is_empty() {
                same!(
                    "rest of the write",
                    call!(libc::SYS_write, ends[1], rest.as_ptr(), rest.len()),
                    rest.len() as i64
                );
            }
            Ok(())
        },
        |_| {
            let mut got = Vec::new();
            let mut buffer = vec![0_u8; 8192];
            while got.len() < FULL + 10_000 {
                let count = os!(libc::read(
                    ends[0],
                    buffer.as_mut_ptr().cast(),
                    buffer.len()
                ))?;
                got.extend_from_slice(&buffer[..count.cast_unsigned()]);
            }
            let wrong = got
                .iter()
                .enumerate()
                .position(|(index, byte)| index as u8 != *byte);
            same!("first wrong byte", wrong, None);
            Ok(())
        },
    )
}

fn fifo_open(guest: &Guest) -> Check {
    let path = std::ffi::CString::new(guest.path("fifo").into_os_string().into_encoded_bytes())?;
    os!(libc::mkfifo(path.as_ptr(), 0o600))?;
    endless(
        guest,
        libc::SYS_openat,
        || {
            let fd = call!(
                libc::SYS_openat,
                libc::AT_FDCWD,
                path.as_ptr(),
                libc::O_RDONLY
            );
            ensure!(fd >= 0, "open: {fd}");
            let mut byte = 0_u8;
            same!("read", call!(libc::SYS_read, fd, &raw mut byte, 1), 1);
            Ok(())
        },
        |_| Ok(fs::write(guest.path("fifo"), "!")?),
    )
}

fn wait4(guest: &Guest) -> Check {
    let marker = guest.path("end");
    endless(
        guest,
        libc::SYS_wait4,
        || {
            let kid = guest.fork("leaf", |_| until_exists(&marker))?;
            let mut status = -1;
            let none = std::ptr::null_mut::<u8>();
            same!(
                "wait4",
                call!(libc::SYS_wait4, -1, &raw mut status, 0, none),
                i64::from(kid.pid)
            );
            same!("status", status, 0);
            Ok(())
        },
        |_| Ok(fs::write(&marker, "")?),
    )
}

/// Waits for a file that the root makes after go, however long that takes.
fn until_exists(path: &std::path::Path) -> Check {
    while !path.exists() {
        nap(Duration::from_millis(5));
    }
    until("the file stays", || Ok(path.exists()))
}

fn epoll_wait(guest: &Guest) -> Check {
    let mut ends = [0; 2];
    os!(libc::pipe(ends.as_mut_ptr()))?;
    endless(
        guest,
        libc::SYS_epoll_wait,
        || {
            let set = epoll_set(ends[0])?;
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            same!(
                "epoll_wait",
                call!(libc::SYS_epoll_wait, set, &raw mut event, 1, -1),
                1
            );
            same!("data of the event", { event.u64 }, 99);
            Ok(())
        },
        |_| {
            os!(libc::write(ends[1], c"!".as_ptr().cast(), 1))?;
            Ok(())
        },
    )
}
