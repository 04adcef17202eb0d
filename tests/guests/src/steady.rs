//! Guests that show whether somebody disturbs them.
//!
//! `steady`: processes and threads that check themselves without a pause, while dumpers come and die.
//! `traced`: a child under a tracer of its own, which nobody else can freeze.

use crate::Entry;
use crate::os::{Map, PAGE, os, word};
use crate::protocol::{Check, Failure, Gate, Guest, nap, reap, same, until};
use crate::signals::mask;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) const GUESTS: &[Entry] = &[Entry("steady", steady), Entry("traced", traced)];

fn steady(guest: &Guest) -> Check {
    let mut ends = [0; 4];
    os!(libc::pipe(ends.as_mut_ptr()))?;
    os!(libc::pipe(ends[2..].as_mut_ptr()))?;
    let gate = Gate::new()?;
    let echo = guest.fork("echo", |_| {
        os!(libc::close(ends[1]))?;
        os!(libc::close(ends[2]))?;
        busy(
            || gate.arrive(),
            || {
                let mut value = 0_u64;
                // A blocked read must not come back before there is something to read.
                let got = os!(libc::read(ends[0], (&raw mut value).cast(), 8))?;
                value = value.wrapping_mul(3);
                if got == 8 {
                    os!(libc::write(ends[3], (&raw const value).cast(), 8))?;
                }
                Ok(got == 8)
            },
        )
    })?;
    os!(libc::close(ends[0]))?;
    os!(libc::close(ends[3]))?;
    gate.wait(1)?;
    let mut count = 0_u64;
    let result = busy(
        || guest.ready(),
        || {
            count += 1;
            let mut back = 0_u64;
            os!(libc::write(ends[1], (&raw const count).cast(), 8))?;
            same!(
                "bytes of the answer",
                os!(libc::read(ends[2], (&raw mut back).cast(), 8))?,
                8
            );
            same!("answer", back, count.wrapping_mul(3));
            Ok(guest.waiting())
        },
    );
    os!(libc::close(ends[1]))?;
    echo.join(guest)?;
    result
}

/// Repeats a step until it says no, while threads check memory, arithmetic and the clock all the time;
/// says so when all have started.
fn busy(started: impl FnOnce() -> Check, mut step: impl FnMut() -> Check<bool>) -> Check {
    const PAGES: usize = 200;
    let (stop, barrier) = (AtomicBool::new(false), Barrier::new(4));
    let going = || !stop.load(Ordering::Relaxed);
    let map = Map::anon(PAGES * PAGE)?;
    map.fill(0, PAGES, 0);
    let pid = std::process::id();
    let memory = || -> Check {
        let mut round = 0;
        barrier.wait();
        while going() {
            for page in 0..PAGES {
                map.check("page", page, page + 1, round)?;
                map.fill(page, page + 1, round + 1);
            }
            round += 1;
        }
        Ok(())
    };
    let arithmetic = || -> Check {
        let once = || {
            (0..20_000).fold(1.0_f64, |value, index| {
                (value + word(1, index) as f64).sqrt() * 1.5
            })
        };
        let want = once();
        barrier.wait();
        while going() {
            same!("floating point result", once(), want);
            same!("pid", std::process::id(), pid);
            same!("mask", mask(None)?, 0);
        }
        Ok(())
    };
    let clock = || -> Check {
        barrier.wait();
        while going() {
            let request = libc::timespec {
                tv_sec: 0,
                tv_nsec: 3_000_000,
            };
            // SAFETY: the request is a live local, and no rest is asked for.
            let slept = unsafe {
                libc::clock_nanosleep(
                    libc::CLOCK_MONOTONIC,
                    0,
                    &raw const request,
                    std::ptr::null_mut(),
                )
            };
            same!("clock_nanosleep", slept, 0);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [
            scope.spawn(memory),
            scope.spawn(arithmetic),
            scope.spawn(clock),
        ];
        barrier.wait();
        let mut result = started();
        while result.is_ok() {
            match step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(failure) => result = Err(failure),
            }
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| Failure::new("a thread panicked"))?
        })?;
        result
    })
}

fn traced(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let traced = guest.fork("traced", |guest| {
        gate.arrive()?;
        guest.wait();
        Ok(())
    })?;
    let tracer = guest.fork("tracer", |guest| {
        os!(libc::ptrace(libc::PTRACE_SEIZE, traced.pid, 0, 0))?;
        gate.arrive()?;
        guest.wait();
        Ok(())
    })?;
    gate.wait(2)?;
    guest.hold()?;
    // The tracer is told first, as with any traced task; then it is the parent's turn.
    tracer.join(guest)?;
    until("the traced child ends", || {
        nap(Duration::from_millis(5));
        Ok(std::fs::read_to_string(format!("/proc/{}/stat", traced.pid))?.contains(") Z "))
    })?;
    same!("status of the traced child", reap(traced.pid)?, 0);
    Ok(())
}
