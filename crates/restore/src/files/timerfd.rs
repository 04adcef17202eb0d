//! Timers as files: `timerfd_create(2)`. They are made early and started at the very end.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use gelid_image::messages::TimerfdEntry;
use gelid_sys::{Errno, timerfd};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use super::open::{Opener, set_status};
use super::opened::OpenFiles;
use super::{Error, Kind};

/// Seconds of the latest time that a timer of the kernel knows.
const LATEST: u64 = i64::MAX as u64 / 1_000_000_000;

/// A timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timerfd {
    /// Its clock.
    pub clock: Clock,
    /// Expirations that nobody has read.
    pub ticks: u64,
    /// Flags it was set with: 1 for an absolute time, 2 for one that ends when the clock is set.
    pub flags: u32,
    /// Seconds and nanoseconds left; zero if it does not run.
    pub left: (u64, u64),
    /// Seconds and nanoseconds from one expiration to the next.
    pub interval: (u64, u64),
    /// Seconds and nanoseconds since the epoch at which it goes off, if it was set to a time of day.
    pub deadline: Option<(u64, u64)>,
}

/// The clock of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The time of day.
    Realtime,
    /// Time since the start of the machine, without sleep.
    Monotonic,
    /// Time since the start of the machine.
    Boottime,
    /// The time of day, for a timer that wakes the machine.
    RealtimeAlarm,
    /// Time since the start of the machine, for a timer that wakes it.
    BoottimeAlarm,
}

impl Clock {
    fn new(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Realtime,
            1 => Self::Monotonic,
            7 => Self::Boottime,
            8 => Self::RealtimeAlarm,
            9 => Self::BoottimeAlarm,
            _ => return None,
        })
    }

    fn is_of_day(self) -> bool {
        matches!(self, Self::Realtime | Self::RealtimeAlarm)
    }

    fn of_timer(self) -> TimerfdClockId {
        match self {
            Self::Realtime => TimerfdClockId::Realtime,
            Self::Monotonic => TimerfdClockId::Monotonic,
            Self::Boottime => TimerfdClockId::Boottime,
            Self::RealtimeAlarm => TimerfdClockId::RealtimeAlarm,
            Self::BoottimeAlarm => TimerfdClockId::BoottimeAlarm,
        }
    }

    fn now(self) -> Timespec {
        clock_gettime(match self {
            Self::Realtime | Self::RealtimeAlarm => ClockId::Realtime,
            Self::Monotonic => ClockId::Monotonic,
            Self::Boottime | Self::BoottimeAlarm => ClockId::Boottime,
        })
    }
}

impl fmt::Display for Timerfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = self.left;
        write!(f, "timer with {seconds}.{nanoseconds:09} s left")?;
        match self.ticks {
            0 => Ok(()),
            ticks => write!(f, " and {ticks} ticks"),
        }
    }
}

/// Checks a record.
pub(super) fn plan(object: &str, entry: &TimerfdEntry) -> Result<Timerfd, Error> {
    let Some(clock) = Clock::new(entry.clockid) else {
        let rule = "no timer has that clock";
        return Err(Error::invalid(object, "clockid", entry.clockid, rule));
    };
    if entry.settime_flags > 3 {
        let rule = "flags are 0 to 3";
        let found = entry.settime_flags;
        return Err(Error::invalid(object, "settime_flags", found, rule));
    }
    for (field, seconds, nanoseconds) in [
        ("vsec", entry.vsec, entry.vnsec),
        ("isec", entry.isec, entry.insec),
    ] {
        if seconds > LATEST || nanoseconds >= 1_000_000_000 {
            let rule = "no timer has such a time";
            let found = format!("{seconds} s and {nanoseconds} ns");
            return Err(Error::invalid(object, field, found, rule));
        }
    }
    let interval = (entry.isec, entry.insec);
    let left = match (entry.vsec, entry.vnsec) {
        // It has gone off, and goes on when that is read.
        (0, 0) if entry.ticks != 0 => interval,
        left => left,
    };
    Ok(Timerfd {
        clock,
        ticks: entry.ticks,
        flags: entry.settime_flags,
        left,
        interval,
        deadline: entry.deadline.filter(|_| clock.is_of_day()).map(seconds),
    })
}

impl Timerfd {
    fn start(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags = TimerfdTimerFlags::from_bits_retain(self.flags);
        let mut value = timespec(self.left);
        if flags.contains(TimerfdTimerFlags::ABSTIME) && self.left != (0, 0) {
            value = match self.deadline {
                Some(deadline) => timespec(deadline),
                None => sum(self.clock.now(), value),
            };
        }
        let time = Itimerspec {
            it_interval: timespec(self.interval),
            it_value: value,
        };
        timerfd_settime(fd, flags, &time)?;
        match self.ticks {
            0 => Ok(()),
            ticks => timerfd::set_ticks(fd, ticks),
        }
    }
}

fn seconds(nanoseconds: u64) -> (u64, u64) {
    (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

fn timespec((seconds, nanoseconds): (u64, u64)) -> Timespec {
    Timespec {
        tv_sec: seconds.cast_signed(),
        tv_nsec: nanoseconds.cast_signed(),
    }
}

/// Both within the bounds of a record, or of a clock.
fn sum(a: Timespec, b: Timespec) -> Timespec {
    let nanoseconds = a.tv_nsec + b.tv_nsec;
    Timespec {
        tv_sec: a
            .tv_sec
            .saturating_add(b.tv_sec + nanoseconds / 1_000_000_000),
        tv_nsec: nanoseconds % 1_000_000_000,
    }
}

/// Makes all of them.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Timerfd(timer) = &description.kind else {
            continue;
        };
        let label = description.label();
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(timer.clock.of_timer(), flags);
        let fd = fd.map_err(|errno| opener.failed("make", &label, errno))?;
        let fd = opener.raise(fd, &label)?;
        set_status(fd.as_fd(), description.flags.status(), &label)?;
        // Sets of files find it ready then, so that watches that have fired can do so again. Its start undoes it.
        let _ = timerfd::set_ticks(&fd, 1);
        opener.add(description.id, fd);
    }
    Ok(())
}

impl OpenFiles {
    /// Starts the timers, and gives them the expirations that nobody has read. To be done last.
    ///
    /// # Errors
    ///
    /// Those of `timerfd_settime(2)`, and `ENOTTY` where a kernel cannot be told expirations.
    pub fn start_timers(&self) -> Result<(), Error> {
        for description in self.plan.descriptions.values() {
            let Kind::Timerfd(timer) = &description.kind else {
                continue;
            };
            if let Some(fd) = self.fd(description.id) {
                let started = timer.start(fd);
                started.map_err(Error::system("start", description.label()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_added() {
        let sum = sum(timespec((5, 999_999_999)), timespec((1, 2)));
        assert_eq!((sum.tv_sec, sum.tv_nsec), (7, 1));
    }

    #[test]
    fn what_stands_still_until_it_is_read_runs_on() {
        let entry = TimerfdEntry {
            clockid: 1,
            ticks: 1,
            isec: 3,
            ..TimerfdEntry::default()
        };
        assert_eq!(plan("timer", &entry).unwrap().left, (3, 0));
        let off = TimerfdEntry { ticks: 0, ..entry };
        assert_eq!(plan("timer", &off).unwrap().left, (0, 0));
    }
}
