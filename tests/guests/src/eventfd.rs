//! Counters of `eventfd(2)`.
//!
//! `eventfd`: counts, flags, one that parent and child share. `eventfd-full`: large counts. `eventfd-semaphore`: reads take one
//! off. `eventfd-blocked`: a reader of an empty one, to be woken by a write.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Gate, Guest, ensure, nap, same, wait_blocked};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("eventfd", counts),
    Entry("eventfd-full", full),
    Entry("eventfd-semaphore", semaphore),
    Entry("eventfd-blocked", blocked),
];

/// The highest count.
const FULL: u64 = u64::MAX - 1;

/// A counter at a value.
pub(crate) fn counter(value: u64, flags: i32) -> Check<i32> {
    let fd = os!(libc::eventfd(0, flags))?;
    if value > 0 {
        add(fd, value)?;
    }
    Ok(fd)
}

/// Counts up.
pub(crate) fn add(fd: i32, value: u64) -> Check {
    os!(libc::write(fd, (&raw const value).cast(), 8))?;
    Ok(())
}

/// Reads eight bytes as a number.
pub(crate) fn take(fd: i32) -> Check<u64> {
    let mut value = 0_u64;
    os!(libc::read(fd, (&raw mut value).cast(), 8))?;
    Ok(value)
}

/// A read that does not wait finds nothing.
pub(crate) fn is_empty(fd: i32) -> Check<bool> {
    let mut value = 0_u64;
    // SAFETY: `value` is a live local of eight bytes.
    let got = unsafe { libc::read(fd, (&raw mut value).cast(), 8) };
    Ok(got == -1 && errno() == libc::EAGAIN)
}

fn counts(guest: &Guest) -> Check {
    const COUNTS: [u64; 3] = [0, 1, u32::MAX as u64];
    let mut counters = Vec::new();
    for value in COUNTS {
        counters.push(counter(value, libc::EFD_NONBLOCK)?);
    }
    let waits = counter(3, libc::EFD_CLOEXEC)?;
    let shared = counter(5, libc::EFD_NONBLOCK)?;
    let twin = os!(libc::dup(shared))?;
    let gate = Gate::new()?;
    let kid = guest.fork("child", |guest| {
        gate.arrive()?;
        guest.wait();
        add(shared, 10)
    })?;
    gate.wait(1)?;
    guest.hold()?;
    for (fd, value) in counters.iter().zip(COUNTS) {
        if value > 0 {
            same!("count", take(*fd)?, value);
        }
        ensure!(
            is_empty(*fd)?,
            "a counter of {value} is not empty when read"
        );
        add(*fd, 9)?;
        same!("count afterwards", take(*fd)?, 9);
    }
    same!(
        "flags",
        os!(libc::fcntl(waits, libc::F_GETFL))?,
        libc::O_RDWR
    );
    same!("count", take(waits)?, 3);
    kid.join(guest)?;
    same!("count of parent and child", take(twin)?, 15);
    Ok(())
}

fn full(guest: &Guest) -> Check {
    let (full, large) = (counter(FULL, libc::EFD_NONBLOCK)?, counter(1 << 40, 0)?);
    guest.hold()?;
    ensure!(add(full, 1).is_err(), "a full counter can be counted up");
    same!("full", take(full)?, FULL);
    same!("large", take(large)?, 1 << 40);
    Ok(())
}

fn semaphore(guest: &Guest) -> Check {
    let fd = counter(3, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK)?;
    guest.hold()?;
    for _ in 0..3 {
        same!("taken", take(fd)?, 1);
    }
    ensure!(is_empty(fd)?, "more than three could be taken");
    Ok(())
}

fn blocked(guest: &Guest) -> Check {
    let fd = counter(0, 0)?;
    let kid = guest.fork("reader", |_| {
        same!("count", take(fd)?, 42);
        Ok(())
    })?;
    wait_blocked(kid.pid, libc::SYS_read)?;
    guest.hold()?;
    wait_blocked(kid.pid, libc::SYS_read)?;
    nap(Duration::from_millis(20)); // it stays so
    wait_blocked(kid.pid, libc::SYS_read)?;
    add(fd, 42)?;
    kid.join(guest)
}
