//! Interval timers and POSIX timers.
//!
//! `itimers`: the three of `setitimer(2)`, with intervals and remaining time. `itimer-fires`: a real one
//! goes on ticking. `posix-timers`: every clock, ids with gaps, all ways to notify, remaining time.
//! `timer-overrun`: the overrun of a timer whose signal is blocked. `timer-fires`: one that goes off later,
//! to the thread it names, with its value.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, ensure, same};
use crate::signals::{bit, mask};
use std::fs;
use std::time::Instant;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("itimers", itimers),
    Entry("itimer-fires", itimer_fires),
    Entry("posix-timers", posix_timers),
    Entry("timer-overrun", timer_overrun),
    Entry("timer-fires", timer_fires),
];

/// Remaining time may have gone down by what passed, and by no more than that.
fn remaining(what: &str, left: f64, set: f64, start: Instant) -> Check {
    let passed = start.elapsed().as_secs_f64();
    let lowest = set - passed - 0.05;
    ensure!(
        left <= set + 0.02 && left >= lowest,
        "{what}: {left:.3} s left, expected {lowest:.3} to {set:.3}"
    );
    Ok(())
}

/// Seconds of a `timeval`.
fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

fn itimers(guest: &Guest) -> Check {
    const KINDS: [(i32, i64); 3] = [
        (libc::ITIMER_REAL, 3000),
        (libc::ITIMER_VIRTUAL, 400),
        (libc::ITIMER_PROF, 50),
    ];
    let start = Instant::now();
    for (which, left) in KINDS {
        let new = libc::itimerval {
            it_interval: libc::timeval {
                tv_sec: left + 7,
                tv_usec: 123_000,
            },
            it_value: libc::timeval {
                tv_sec: left,
                tv_usec: 500_000,
            },
        };
        os!(libc::setitimer(which, &raw const new, std::ptr::null_mut()))?;
    }
    guest.hold()?;
    for (which, left) in KINDS {
        let zero = libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        };
        let mut found = libc::itimerval {
            it_interval: zero,
            it_value: zero,
        };
        os!(libc::getitimer(which, &raw mut found))?;
        remaining(
            &format!("timer {which}"),
            seconds(found.it_value),
            left as f64 + 0.5,
            start,
        )?;
        let interval = seconds(found.it_interval) - (left as f64 + 7.123);
        ensure!(
            interval.abs() < 0.005,
            "interval of timer {which} differs by {interval:.3} s"
        );
    }
    Ok(())
}

/// Waits at most so many seconds for a signal of the set; its number, code and value.
fn take(set: u64, wait: i64) -> Check<(i32, i32, i32)> {
    let limit = libc::timespec {
        tv_sec: wait,
        tv_nsec: 0,
    };
    let mut info = [0_i32; 32];
    loop {
        // Ends with EINTR when its task is stopped and goes on (signal(7)).
        let got = os!(libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            &raw mut info,
            &raw const limit,
            8
        ));
        match got {
            Ok(_) => return Ok((info[0], info[2], info[6])),
            Err(_) if crate::os::errno() == libc::EINTR => {}
            Err(failure) => return Err(failure),
        }
    }
}

fn itimer_fires(guest: &Guest) -> Check {
    mask(Some(bit(libc::SIGALRM)))?;
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: 30_000,
    };
    let new = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    os!(libc::setitimer(
        libc::ITIMER_REAL,
        &raw const new,
        std::ptr::null_mut()
    ))?;
    guest.hold()?;
    for round in 0..5 {
        same!(
            format!("signal in round {round}"),
            take(bit(libc::SIGALRM), 5)?.0,
            libc::SIGALRM
        );
    }
    Ok(())
}

/// The kernel's `struct sigevent`.
#[repr(C)]
struct Event {
    value: u64,
    signal: i32,
    notify: i32,
    tid: i32,
    pad: [i32; 11],
}

/// `timer_create(2)` itself: the C library would keep the kernel's ids to itself.
fn create(clock: i32, notify: i32, signal: i32, tid: i32, value: u64) -> Check<i32> {
    let event = Event {
        value,
        signal,
        notify,
        tid,
        pad: [0; 11],
    };
    let mut id = -1;
    os!(libc::syscall(
        libc::SYS_timer_create,
        clock,
        &raw const event,
        &raw mut id
    ))?;
    Ok(id)
}

fn spec(value: f64, interval: f64) -> libc::itimerspec {
    let time = |seconds: f64| libc::timespec {
        tv_sec: seconds as i64,
        tv_nsec: (seconds.fract() * 1e9) as i64,
    };
    libc::itimerspec {
        it_interval: time(interval),
        it_value: time(value),
    }
}

fn arm(id: i32, value: f64, interval: f64) -> Check {
    let new = spec(value, interval);
    os!(libc::syscall(
        libc::SYS_timer_settime,
        id,
        0,
        &raw const new,
        std::ptr::null::<u8>()
    ))?;
    Ok(())
}

fn left(id: i32) -> Check<(f64, f64)> {
    let mut found = spec(0.0, 0.0);
    os!(libc::syscall(libc::SYS_timer_gettime, id, &raw mut found))?;
    let seconds = |time: libc::timespec| time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    Ok((seconds(found.it_value), seconds(found.it_interval)))
}

fn posix_timers(guest: &Guest) -> Check {
    /// REALTIME, MONOTONIC, process and thread CPU time, BOOTTIME, the alarms, TAI.
    const CLOCKS: [i32; 8] = [0, 1, 2, 3, 7, 8, 9, 11];
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    let start = Instant::now();
    let mut timers = Vec::new();
    for (index, clock) in CLOCKS.into_iter().cycle().take(32).enumerate() {
        // SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD_ID in turns.
        let notify = [0, 1, 4][index % 3];
        let created = create(
            clock,
            notify,
            34 + i32::try_from(index % 20).unwrap_or(0),
            tid,
            0x1234_5678_9abc_0000 + index as u64,
        );
        // A machine without a battery-backed clock has no alarm clocks.
        let Ok(id) = created else {
            ensure!([8, 9].contains(&clock), "timer_create for clock {clock}");
            continue;
        };
        if index % 5 == 4 {
            os!(libc::syscall(libc::SYS_timer_delete, id))?; // leaves a gap
            continue;
        }
        let (value, interval) = if index % 7 == 6 {
            (0.0, 0.0)
        } else {
            (1000.0 + index as f64, (index % 2) as f64 * 2.25)
        };
        arm(id, value, interval)?;
        timers.push((id, clock, value, interval));
    }
    let before = fs::read_to_string("/proc/self/timers")?;
    guest.hold()?;
    same!(
        "/proc/self/timers",
        fs::read_to_string("/proc/self/timers")?,
        before
    );
    for (id, clock, value, interval) in timers {
        let (now, every) = left(id)?;
        if value == 0.0 {
            same!(format!("disarmed timer {id}"), now, 0.0);
        } else {
            remaining(&format!("timer {id} of clock {clock}"), now, value, start)?;
        }
        ensure!(
            (every - interval).abs() < 0.001,
            "interval of timer {id}: {every}, expected {interval}"
        );
    }
    Ok(())
}

fn timer_overrun(guest: &Guest) -> Check {
    mask(Some(bit(40)))?;
    let id = create(1, 0, 40, 0, 0x55aa)?;
    arm(id, 0.001, 0.001)?;
    std::thread::sleep(std::time::Duration::from_millis(60));
    guest.hold()?;
    std::thread::sleep(std::time::Duration::from_millis(60));
    let (signal, code, value) = take(bit(40), 5)?;
    same!(
        "signal, code and value",
        (signal, code, value),
        (40, -2, 0x55aa)
    );
    let overrun = os!(libc::syscall(libc::SYS_timer_getoverrun, id))?;
    // Nobody can tell how often it had gone off in vain before it was dumped.
    ensure!(overrun >= 50, "overrun is {overrun}, expected at least 50");
    take(bit(40), 5).map(|_| ())
}

fn timer_fires(guest: &Guest) -> Check {
    mask(Some(bit(41)))?;
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get())
            .map_err(Failure::new)?;
        take(bit(41), 30)
    });
    let tid = told.recv().map_err(Failure::new)?;
    let id = create(7, 4, 41, tid, 0x77)?;
    arm(id, 1.0, 0.0)?;
    guest.hold()?;
    let got = thread
        .join()
        .map_err(|_| Failure::new("thread panicked"))??;
    same!("signal, code and value", got, (41, -2, 0x77));
    same!("time left", left(id)?, (0.0, 0.0));
    Ok(())
}
