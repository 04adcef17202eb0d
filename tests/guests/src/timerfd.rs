//! Timers of `timerfd_create(2)`.
//!
//! `timerfd`: clocks, remaining time, intervals, ticks that wait, timers that are off. `timerfd-deadlines`: those set to
//! an absolute time. `timerfd-time-of-day`: goes off when it is time, though the tree was away. `timerfd-fires`: goes off while somebody waits in `read(2)`. `timerfd-periodic`: ticks on, and counts what was missed.

use crate::Entry;
use crate::eventfd::{is_empty, take};
use crate::os::os;
use crate::protocol::{Check, Guest, ensure, nap, same, wait_blocked};
use std::fs;
use std::time::{Duration, Instant};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("timerfd", remaining),
    Entry("timerfd-deadlines", deadlines),
    Entry("timerfd-time-of-day", time_of_day),
    Entry("timerfd-fires", fires),
    Entry("timerfd-periodic", periodic),
];

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: time.subsec_nanos().into(),
    }
}

fn duration(time: libc::timespec) -> Duration {
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// A timer that is off.
fn timer(clock: i32, flags: i32) -> Check<i32> {
    os!(libc::timerfd_create(clock, flags))
}

/// Sets a timer.
pub(crate) fn set(fd: i32, flags: i32, value: Duration, interval: Duration) -> Check {
    let spec = libc::itimerspec {
        it_interval: timespec(interval),
        it_value: timespec(value),
    };
    os!(libc::timerfd_settime(
        fd,
        flags,
        &raw const spec,
        std::ptr::null_mut()
    ))?;
    Ok(())
}

/// Time left, and interval.
fn left(fd: i32) -> Check<(Duration, Duration)> {
    let zero = timespec(Duration::ZERO);
    let mut spec = libc::itimerspec {
        it_interval: zero,
        it_value: zero,
    };
    os!(libc::timerfd_gettime(fd, &raw mut spec))?;
    Ok((duration(spec.it_value), duration(spec.it_interval)))
}

fn now(clock: i32) -> Check<Duration> {
    let mut now = timespec(Duration::ZERO);
    os!(libc::clock_gettime(clock, &raw mut now))?;
    Ok(duration(now))
}

/// The flags it was set with, as the kernel shows them.
fn shown_flags(fd: i32) -> Check<String> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("settime flags: "));
    Ok(line.ok_or("no flags in fdinfo")?.to_owned())
}

const DAY: Duration = Duration::from_secs(86_400);

/// A timer that runs, and how it was set.
struct Running {
    fd: i32,
    flags: &'static str,
    value: Duration,
    interval: Duration,
}

impl Running {
    /// Sets a timer; `flags` are those of the call in octal, as the kernel shows them.
    fn start(clock: i32, flags: &'static str, value: Duration, interval: Duration) -> Check<Self> {
        let fd = timer(clock, 0)?;
        let from = if flags == "00" {
            Duration::ZERO
        } else {
            now(clock)?
        };
        set(fd, flags.parse()?, from + value, interval)?;
        Ok(Self {
            fd,
            flags,
            value,
            interval,
        })
    }

    /// What is left may have become less by the time that passed since `start`, and by no more.
    fn check(&self, start: Instant) -> Check {
        let (value, passed) = (self.value, start.elapsed() + Duration::from_millis(100));
        let (left, every) = left(self.fd)?;
        ensure!(
            left <= value && left + passed >= value,
            "of {value:?} {left:?} are left after {passed:?}"
        );
        same!("interval", every, self.interval);
        same!("flags", shown_flags(self.fd)?, self.flags);
        Ok(())
    }
}

const CLOCKS: [i32; 3] = [
    libc::CLOCK_REALTIME,
    libc::CLOCK_MONOTONIC,
    libc::CLOCK_BOOTTIME,
];

fn remaining(guest: &Guest) -> Check {
    const SHORT: Duration = Duration::from_micros(10);
    let start = Instant::now();
    let mut running = Vec::new();
    for (clock, days) in CLOCKS.into_iter().zip(1..) {
        let interval = Duration::from_millis(1500);
        running.push(Running::start(clock, "00", DAY * days, interval)?);
    }
    let [off, over, read] = [(); 3].map(|()| timer(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK));
    let (off, over, read) = (off?, over?, read?);
    set(over, 0, SHORT, Duration::ZERO)?;
    set(read, 0, SHORT, Duration::ZERO)?;
    nap(Duration::from_millis(10));
    take(read)?;
    let twin = os!(libc::dup(over))?;
    guest.hold()?;
    running.iter().try_for_each(|timer| timer.check(start))?;
    for (what, fd) in [("off", off), ("over", over), ("read", read)] {
        same!(what, left(fd)?, (Duration::ZERO, Duration::ZERO));
    }
    ensure!(
        is_empty(off)? && is_empty(read)?,
        "a timer that is off has ticks"
    );
    same!("ticks of one that is over", take(twin)?, 1);
    ensure!(is_empty(over)?, "it has more ticks");
    set(off, 0, SHORT, Duration::ZERO)?;
    nap(Duration::from_millis(10));
    same!("ticks afterwards", take(off)?, 1);
    Ok(())
}

fn deadlines(guest: &Guest) -> Check {
    let start = Instant::now();
    let mut running = Vec::new();
    for (clock, days) in CLOCKS.into_iter().zip(1..) {
        running.push(Running::start(clock, "01", DAY * days, Duration::ZERO)?);
    }
    let interval = Duration::from_secs(1);
    running.push(Running::start(libc::CLOCK_REALTIME, "03", DAY, interval)?);
    guest.hold()?;
    running.iter().try_for_each(|timer| timer.check(start))
}

fn time_of_day(guest: &Guest) -> Check {
    let clock = libc::CLOCK_REALTIME;
    let fd = timer(clock, 0)?;
    let time = now(clock)? + Duration::from_millis(1500);
    set(fd, libc::TFD_TIMER_ABSTIME, time, Duration::ZERO)?;
    guest.hold()?;
    same!("ticks", take(fd)?, 1);
    let late = now(clock)?.checked_sub(time);
    // The tree was away for longer than that.
    ensure!(
        late.is_some_and(|late| late < Duration::from_millis(900)),
        "it went off {late:?} late"
    );
    Ok(())
}

fn fires(guest: &Guest) -> Check {
    const TIME: Duration = Duration::from_secs(1);
    let fd = timer(libc::CLOCK_MONOTONIC, 0)?;
    let start = Instant::now();
    set(fd, 0, TIME, Duration::ZERO)?;
    let kid = guest.fork("reader", |_| {
        same!("ticks", take(fd)?, 1);
        Ok(())
    })?;
    wait_blocked(kid.pid, libc::SYS_read)?;
    guest.hold()?;
    kid.join(guest)?;
    let took = start.elapsed();
    ensure!(took >= TIME, "it went off after {took:?}");
    Ok(())
}

fn periodic(guest: &Guest) -> Check {
    const TIME: Duration = Duration::from_millis(10);
    let fd = timer(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK)?;
    set(fd, 0, TIME, TIME)?;
    // As long as nobody reads, it counts.
    nap(TIME * 5);
    let start = Instant::now();
    guest.hold()?;
    let ticks = take(fd)?;
    let most = 7 + start.elapsed().as_millis() / TIME.as_millis();
    ensure!(
        ticks >= 5 && u128::from(ticks) <= most,
        "{ticks} ticks, expected 5 to {most}"
    );
    nap(TIME * 3);
    let more = take(fd)?;
    ensure!(more >= 2, "{more} ticks afterwards");
    same!("interval", left(fd)?.1, TIME);
    Ok(())
}
