//! Signals read from `signalfd(2)`.
//!
//! `signalfd`: masks, flags, signals that wait. `signalfd-blocked`: a reader, to be woken by a signal.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Guest, ensure, nap, same, status_field, wait_blocked};
use crate::signals::{bit, mask};
use std::fs;
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("signalfd", waiting),
    Entry("signalfd-blocked", blocked),
];

/// A descriptor that takes these signals, which are blocked.
pub(crate) fn descriptor(signals: u64, flags: i32) -> Check<i32> {
    mask(Some(signals | mask(None)?))?;
    os!(libc::syscall(
        libc::SYS_signalfd4,
        -1,
        &raw const signals,
        8,
        flags
    ))
    .map(|fd| fd as i32)
}

/// Takes a signal: its number, and the value sent with it.
pub(crate) fn take(fd: i32) -> Check<(u32, i32)> {
    // SAFETY: all zeros is a value of it.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let len = size_of::<libc::signalfd_siginfo>();
    let got = os!(libc::read(fd, (&raw mut info).cast(), len))?;
    same!("bytes of a signal", got, len.cast_signed());
    Ok((info.ssi_signo, info.ssi_int))
}

/// The mask as the kernel shows it.
fn shown(fd: i32) -> Check<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("sigmask:"));
    let digits = line.ok_or("no mask in fdinfo")?.trim();
    Ok(u64::from_str_radix(digits, 16)?)
}

/// Sends a signal with a value.
fn send(signal: i32, value: i32) -> Check {
    let value = libc::sigval {
        sival_ptr: std::ptr::without_provenance_mut(value as usize),
    };
    os!(libc::sigqueue(libc::getpid(), signal, value))?;
    Ok(())
}

fn waiting(guest: &Guest) -> Check {
    let all = bit(libc::SIGUSR1) | bit(40) | bit(64);
    let fd = descriptor(all, libc::SFD_NONBLOCK)?;
    let other = descriptor(bit(libc::SIGUSR2), libc::SFD_CLOEXEC)?;
    let twin = os!(libc::dup(fd))?;
    for value in [11, 12] {
        send(40, value)?;
    }
    send(libc::SIGUSR1, 13)?;
    guest.hold()?;
    same!("mask", shown(fd)?, all);
    same!("other mask", shown(other)?, bit(libc::SIGUSR2));
    same!(
        "flags",
        os!(libc::fcntl(fd, libc::F_GETFL))?,
        libc::O_RDWR | libc::O_NONBLOCK
    );
    same!("first signal", take(fd)?, (10, 13));
    same!("second signal", take(twin)?, (40, 11));
    same!("third signal", take(fd)?, (40, 12));
    send(64, 14)?;
    same!("signal afterwards", take(fd)?, (64, 14));
    send(libc::SIGUSR2, 15)?;
    same!("signal to the other", take(other)?, (12, 15));
    let pending = status_field("ShdPnd")?;
    ensure!(
        u64::from_str_radix(&pending, 16)? == 0,
        "pending: {pending}"
    );
    Ok(())
}

fn blocked(guest: &Guest) -> Check {
    let kid = guest.fork("reader", |_| {
        let fd = descriptor(bit(libc::SIGUSR1), 0)?;
        same!("signal", take(fd)?.0, 10);
        Ok(())
    })?;
    wait_blocked(kid.pid, libc::SYS_read)?;
    guest.hold()?;
    wait_blocked(kid.pid, libc::SYS_read)?;
    nap(Duration::from_millis(20)); // it stays so
    wait_blocked(kid.pid, libc::SYS_read)?;
    os!(libc::kill(kid.pid, libc::SIGUSR1))?;
    kid.join(guest)
}
