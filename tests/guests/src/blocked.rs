//! Tasks dumped while they are blocked in a system call with a timeout.
//!
//! A child blocks, and nothing it waits for happens. It is dumped half-way, and the call must end when its
//! time is over, counted from where it was; time spent frozen or dead may or may not count.

use crate::Entry;
use crate::os::{errno, os};
use crate::protocol::{Check, Failure, Guest, ensure, nap, same, wait_blocked};
use crate::signals::{bit, mask};
use std::fs;
use std::time::{Duration, Instant};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("blocked-nanosleep", |guest| {
        timed(guest, libc::SYS_nanosleep, Rest::Kept, nanosleep)
    }),
    Entry("blocked-clock-nanosleep", |guest| {
        timed(
            guest,
            libc::SYS_clock_nanosleep,
            Rest::Kept,
            clock_nanosleep,
        )
    }),
    Entry("blocked-clock-nanosleep-abs", |guest| {
        timed(
            guest,
            libc::SYS_clock_nanosleep,
            Rest::Kept,
            clock_nanosleep_abs,
        )
    }),
    Entry("blocked-poll", |guest| {
        timed(guest, libc::SYS_poll, Rest::Unknown, poll)
    }),
    Entry("blocked-ppoll", |guest| {
        timed(guest, libc::SYS_ppoll, Rest::Kept, ppoll)
    }),
    Entry("blocked-select", |guest| {
        timed(guest, libc::SYS_select, Rest::Kept, select)
    }),
    Entry("blocked-futex-timeout", |guest| {
        timed(guest, libc::SYS_futex, Rest::Kept, futex_timeout)
    }),
    Entry("blocked-futex-deadline", |guest| {
        timed(guest, libc::SYS_futex, Rest::Kept, futex_deadline)
    }),
    Entry("blocked-sigtimedwait", |guest| {
        timed(
            guest,
            libc::SYS_rt_sigtimedwait,
            Rest::Unknown,
            sigtimedwait,
        )
    }),
    Entry("blocked-epoll-timeout", |guest| {
        timed(guest, libc::SYS_epoll_wait, Rest::Kept, epoll_timeout)
    }),
];

/// How long timed calls wait.
const TIME: Duration = Duration::from_secs(3);

/// Whether a call that is stopped goes on with the time that was left.
#[derive(Clone, Copy)]
enum Rest {
    /// It does.
    Kept,
    /// Only the kernel knows it, so that a restored call waits for all of its time once more.
    Unknown,
}

/// Runs a timed call in a child, and checks how long it took in all.
fn timed(guest: &Guest, call: libc::c_long, rest: Rest, body: fn() -> Check) -> Check {
    let kid = guest.fork("blocked", |guest| {
        let start = Instant::now();
        body()?;
        Ok(fs::write(
            guest.path("took"),
            start.elapsed().as_millis().to_string(),
        )?)
    })?;
    let start = Instant::now();
    wait_blocked(kid.pid, call)?;
    let begun = start.elapsed();
    nap(TIME / 2);
    let lost = guest.hold()?;
    kid.join(guest)?;
    let took = Duration::from_millis(fs::read_to_string(guest.path("took"))?.parse()?);
    let (least, most) = (
        TIME - Duration::from_millis(5),
        // Less than what it would take to wait for all of the time again.
        begun
            + lost
            + TIME * 2 / 5
            + match rest {
                Rest::Kept => TIME,
                Rest::Unknown => 2 * TIME,
            },
    );
    ensure!(
        took >= least && took <= most,
        "took {took:?}, expected {least:?} to {most:?}"
    );
    Ok(())
}

/// The result of a raw call: what it returned, or the errno negated as the kernel gives it.
pub(crate) fn raw(value: i64) -> i64 {
    if value == -1 {
        -i64::from(errno())
    } else {
        value
    }
}

/// A raw system call that may fail.
macro_rules! call {
    ($($argument:expr),+) => {{
        // SAFETY: pointers are to live locals; see `os!`.
        raw(unsafe { libc::syscall($($argument),+) })
    }};
}

pub(crate) use call;

const ZERO: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Makes a call that may return for nothing, as everybody makes it: again, with what is left of [`TIME`].
fn until_over(mut body: impl FnMut(libc::timespec) -> i64) -> i64 {
    let start = Instant::now();
    loop {
        let rest = TIME.saturating_sub(start.elapsed());
        let got = body(libc::timespec {
            tv_sec: rest.as_secs().cast_signed(),
            tv_nsec: rest.subsec_nanos().into(),
        });
        if got != -i64::from(libc::EINTR) {
            return got;
        }
    }
}

/// [`TIME`] for the kernel.
fn time() -> libc::timespec {
    libc::timespec {
        tv_sec: TIME.as_secs().cast_signed(),
        tv_nsec: TIME.subsec_nanos().into(),
    }
}

/// [`TIME`] from now on the monotonic clock.
fn deadline() -> Check<libc::timespec> {
    let mut now = ZERO;
    os!(libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now))?;
    Ok(libc::timespec {
        tv_sec: now.tv_sec + time().tv_sec,
        tv_nsec: now.tv_nsec,
    })
}

fn nanosleep() -> Check {
    let mut rest = ZERO;
    same!(
        "nanosleep",
        call!(libc::SYS_nanosleep, &time(), &raw mut rest),
        0
    );
    Ok(())
}

fn clock_nanosleep() -> Check {
    let mut rest = ZERO;
    same!(
        "clock_nanosleep",
        call!(
            libc::SYS_clock_nanosleep,
            libc::CLOCK_MONOTONIC,
            0,
            &time(),
            &raw mut rest
        ),
        0
    );
    Ok(())
}

fn clock_nanosleep_abs() -> Check {
    let until = deadline()?;
    let none = std::ptr::null_mut::<u8>();
    same!(
        "clock_nanosleep",
        call!(
            libc::SYS_clock_nanosleep,
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const until,
            none
        ),
        0
    );
    Ok(())
}

/// The read end of a pipe in which nothing ever arrives.
fn silence() -> Check<i32> {
    let mut ends = [0; 2];
    os!(libc::pipe(ends.as_mut_ptr()))?;
    Ok(ends[0])
}

fn poll() -> Check {
    let mut poll = libc::pollfd {
        fd: silence()?,
        events: libc::POLLIN,
        revents: 0,
    };
    let milliseconds = i32::try_from(TIME.as_millis()).map_err(Failure::new)?;
    same!(
        "poll",
        call!(libc::SYS_poll, &raw mut poll, 1, milliseconds),
        0
    );
    Ok(())
}

fn ppoll() -> Check {
    let mut poll = libc::pollfd {
        fd: silence()?,
        events: libc::POLLIN,
        revents: 0,
    };
    let (mut left, set) = (time(), 0_u64);
    same!(
        "ppoll",
        call!(
            libc::SYS_ppoll,
            &raw mut poll,
            1,
            &raw mut left,
            &raw const set,
            8
        ),
        0
    );
    Ok(())
}

fn select() -> Check {
    let fd = silence()?;
    // SAFETY: all zeros is the empty set.
    let mut set: libc::fd_set = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a live local, and the descriptor is a small number.
    unsafe { libc::FD_SET(fd, &raw mut set) };
    let mut left = libc::timeval {
        tv_sec: TIME.as_secs().cast_signed(),
        tv_usec: 0,
    };
    let none = std::ptr::null_mut::<u8>();
    same!(
        "select",
        call!(
            libc::SYS_select,
            fd + 1,
            &raw mut set,
            none,
            none,
            &raw mut left
        ),
        0
    );
    same!("rest of the time", (left.tv_sec, left.tv_usec), (0, 0));
    Ok(())
}

fn futex_timeout() -> Check {
    let word = 7_u32;
    let got = until_over(|rest| {
        call!(
            libc::SYS_futex,
            &raw const word,
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            7,
            &raw const rest
        )
    });
    same!("futex wait", got, -i64::from(libc::ETIMEDOUT));
    Ok(())
}

fn futex_deadline() -> Check {
    let (word, until) = (7_u32, deadline()?);
    let none = std::ptr::null_mut::<u8>();
    let got = call!(
        libc::SYS_futex,
        &raw const word,
        libc::FUTEX_WAIT_BITSET,
        7,
        &raw const until,
        none,
        -1
    );
    same!("futex wait", got, -i64::from(libc::ETIMEDOUT));
    Ok(())
}

fn sigtimedwait() -> Check {
    let set = bit(libc::SIGUSR2);
    mask(Some(set))?;
    let none = std::ptr::null_mut::<u8>();
    let got = until_over(|rest| {
        call!(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            none,
            &raw const rest,
            8
        )
    });
    same!("sigtimedwait", got, -i64::from(libc::EAGAIN));
    Ok(())
}

/// An epoll set with a pipe in which nothing ever arrives.
pub(crate) fn epoll_set(fd: i32) -> Check<i32> {
    let set = os!(libc::epoll_create1(0))?;
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN.cast_unsigned(),
        u64: 99,
    };
    os!(libc::epoll_ctl(
        set,
        libc::EPOLL_CTL_ADD,
        fd,
        &raw mut event
    ))?;
    Ok(set)
}

fn epoll_timeout() -> Check {
    let set = epoll_set(silence()?)?;
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let got = until_over(|rest| {
        let milliseconds = rest.tv_sec * 1000 + (rest.tv_nsec + 999_999) / 1_000_000;
        call!(libc::SYS_epoll_wait, set, &raw mut event, 1, milliseconds)
    });
    same!("epoll_wait", got, 0);
    Ok(())
}
