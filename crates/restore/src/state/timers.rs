//! Interval timers and POSIX timers of a process: `setitimer(2)`, `timer_create(2)`.

use std::collections::HashMap;

use gelid_image::messages::{ItimerEntry, PosixTimerEntry, TaskTimersEntry};
use gelid_sys::prctl::{
    PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_OFF, PR_TIMER_CREATE_RESTORE_IDS_ON,
};
use gelid_sys::signal::NSIG;
use gelid_sys::syscall::nr;
use gelid_tape::{Arg, Tape};

use super::signals::Queue;
use super::{Error, Machine};

/// The largest id that is reached by making timers one after the other, on a kernel that cannot be told.
const COUNTED_MAX: i32 = 4096;
const SIGEV_NONE: u32 = 1;
const SIGEV_THREAD: u32 = 2;
const SIGEV_THREAD_ID: u32 = 4;

/// A period and the time left, each as seconds and a fraction as the call wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    interval: (u64, u64),
    left: (u64, u64),
}

impl Times {
    /// `unit` is what a second has of the fractions. An interval without time left means that just now
    /// the timer was started again.
    fn read(words: [u64; 4], unit: u64) -> Option<Self> {
        let [interval, interval_fraction, left, left_fraction] = words;
        let sane = |seconds: u64, fraction: u64| seconds <= i64::MAX as u64 && fraction < unit;
        if !sane(interval, interval_fraction) || !sane(left, left_fraction) {
            return None;
        }
        let interval = (interval, interval_fraction);
        let left = match (left, left_fraction) {
            (0, 0) => interval,
            left => left,
        };
        Some(Self { interval, left })
    }

    fn is_armed(&self) -> bool {
        self.left != (0, 0)
    }

    fn to_bytes(self) -> [u8; 32] {
        let words = [self.interval.0, self.interval.1, self.left.0, self.left.1];
        let mut bytes = [0; 32];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// A POSIX timer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Posix {
    id: i32,
    clock: i32,
    signal: i32,
    notify: u32,
    thread: i32,
    value: u64,
    times: Times,
}

/// All timers of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timers {
    /// Real, virtual, profiling.
    interval: [Times; 3],
    /// By id.
    posix: Vec<Posix>,
}

impl Timers {
    /// Has them tell threads by what these call themselves.
    pub(super) fn call_threads(&mut self, numbers: &HashMap<i32, i32>) {
        for timer in &mut self.posix {
            if let Some(number) = numbers.get(&timer.thread) {
                timer.thread = *number;
            }
        }
    }

    pub(super) fn read(pid: i32, entry: Option<&TaskTimersEntry>) -> Result<Self, Error> {
        const OFF: Times = Times {
            interval: (0, 0),
            left: (0, 0),
        };
        let Some(entry) = entry else {
            return Ok(Self {
                interval: [OFF; 3],
                posix: Vec::new(),
            });
        };
        let what = "an interval timer has times that cannot be";
        let read = |timer: &ItimerEntry| {
            let words = [timer.isec, timer.iusec, timer.vsec, timer.vusec];
            Times::read(words, 1_000_000).ok_or(Error::Wrong { tid: pid, what })
        };
        let mut posix = Vec::with_capacity(entry.posix.len());
        for timer in &entry.posix {
            posix.push(Posix::read(pid, timer).ok_or(Error::Wrong {
                tid: pid,
                what: "a POSIX timer cannot be as it is told",
            })?);
        }
        posix.sort_unstable_by_key(|timer| timer.id);
        if posix.windows(2).any(|pair| pair[0].id == pair[1].id) {
            let what = "two POSIX timers have one id";
            return Err(Error::Wrong { tid: pid, what });
        }
        Ok(Self {
            interval: [read(&entry.real)?, read(&entry.virt)?, read(&entry.prof)?],
            posix,
        })
    }

    /// A kernel that cannot be told an id counts them.
    pub(super) fn check(&self, pid: i32, machine: &Machine) -> Result<(), Error> {
        match self.posix.last() {
            Some(last) if !machine.timer_ids && last.id > COUNTED_MAX => Err(Error::Unsupported {
                tid: pid,
                what: "a POSIX timer with a high id",
                remedy: "restore on Linux 6.16 or newer",
            }),
            _ => Ok(()),
        }
    }

    /// Timers that have sent a signal of the queue which is still there, and will go on to do so. Theirs
    /// is the one signal that counts what it has missed, so it must come from them.
    pub(super) fn fires_anew(&self, queue: &Queue) -> Vec<i32> {
        let waiting = queue.timer_ids();
        let periodic = self.posix.iter().filter(|timer| {
            let to_process = timer.notify & (SIGEV_NONE | SIGEV_THREAD_ID) == 0;
            to_process && timer.times.interval != (0, 0) && waiting.contains(&timer.id)
        });
        periodic.map(|timer| timer.id).collect()
    }

    /// Makes and starts them, those of `anew` so that they go off at once.
    pub(super) fn write(&self, tape: &mut Tape, anew: &[i32], machine: &Machine) {
        for (which, times) in (0_u64..).zip(&self.interval) {
            if times.is_armed() {
                let data = tape.bytes(&times.to_bytes());
                tape.must(nr::setitimer, [which.into(), data.into(), 0.into()]);
            }
        }
        if self.posix.is_empty() {
            return;
        }
        if machine.timer_ids {
            restore_ids(tape, PR_TIMER_CREATE_RESTORE_IDS_ON);
        }
        let mut next = 0;
        for timer in &self.posix {
            while !machine.timer_ids && next < timer.id {
                timer.create(tape);
                tape.must(nr::timer_delete, [next.into()]);
                next += 1;
            }
            next = timer.id.saturating_add(1);
            timer.create(tape);
            if timer.times.is_armed() {
                let mut times = timer.times;
                if anew.contains(&timer.id) {
                    times.left = (0, 1);
                }
                let data = tape.bytes(&times.to_bytes());
                let args = [timer.id.into(), 0.into(), data.into(), 0.into()];
                tape.must(nr::timer_settime, args);
            }
        }
        if machine.timer_ids {
            restore_ids(tape, PR_TIMER_CREATE_RESTORE_IDS_OFF);
        }
    }
}

fn restore_ids(tape: &mut Tape, how: u64) {
    let args = [PR_TIMER_CREATE_RESTORE_IDS, how, 0, 0, 0].map(Arg::Value);
    tape.must(nr::prctl, args);
}

impl Posix {
    fn read(pid: i32, entry: &PosixTimerEntry) -> Option<Self> {
        let notify = entry.it_sigev_notify;
        let signal = i32::try_from(entry.si_signo).ok()?;
        let known = SIGEV_NONE | SIGEV_THREAD | SIGEV_THREAD_ID;
        if notify & !known != 0 || signal > NSIG as i32 {
            return None;
        }
        let words = [entry.isec, entry.insec, entry.vsec, entry.vnsec];
        Some(Self {
            id: i32::try_from(entry.it_id).ok()?,
            clock: entry.clock_id.cast_signed(),
            signal,
            notify,
            thread: entry.notify_thread_id.unwrap_or(pid),
            value: entry.sival_ptr,
            times: Times::read(words, 1_000_000_000)?,
        })
    }

    fn create(&self, tape: &mut Tape) {
        // struct sigevent
        let mut event = [0; 64];
        event[..8].copy_from_slice(&self.value.to_ne_bytes());
        event[8..12].copy_from_slice(&self.signal.to_ne_bytes());
        event[12..16].copy_from_slice(&self.notify.to_ne_bytes());
        event[16..20].copy_from_slice(&self.thread.to_ne_bytes());
        let event = tape.bytes(&event);
        let id = tape.bytes(&self.id.to_ne_bytes());
        let args = [self.clock.into(), event.into(), id.into()];
        tape.must(nr::timer_create, args);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(id: u32) -> PosixTimerEntry {
        PosixTimerEntry {
            it_id: id,
            clock_id: 1,
            si_signo: 34,
            vsec: 5,
            ..Default::default()
        }
    }

    fn timers(posix: Vec<PosixTimerEntry>) -> Result<Timers, Error> {
        let entry = TaskTimersEntry {
            posix,
            ..Default::default()
        };
        Timers::read(1, Some(&entry))
    }

    #[test]
    fn ids_are_asked_for_or_counted() {
        let mut machine = Machine::look().unwrap();
        let timers = timers(vec![timer(3), timer(0)]).unwrap();
        for (timer_ids, calls) in [(true, 6), (false, 8)] {
            machine.timer_ids = timer_ids;
            let mut tape = Tape::new();
            timers.write(&mut tape, &[], &machine);
            assert_eq!(tape.len(), calls);
        }
    }

    #[test]
    fn wrong_timers_are_refused() {
        assert!(timers(vec![timer(1), timer(1)]).is_err());
        let cases: [fn(&mut PosixTimerEntry); 5] = [
            |timer| timer.it_id = u32::MAX,
            |timer| timer.vnsec = 1_000_000_000,
            |timer| timer.si_signo = 65,
            |timer| timer.it_sigev_notify = 8,
            |timer| timer.isec = u64::MAX,
        ];
        for spoil in cases {
            let mut timer = timer(1);
            spoil(&mut timer);
            assert!(timers(vec![timer]).is_err());
        }
    }

    #[test]
    fn a_running_interval_starts_with_itself() {
        let times = Times::read([3, 4, 0, 0], 10).unwrap();
        assert_eq!(times.left, (3, 4));
        assert!(!Times::read([0; 4], 10).unwrap().is_armed());
    }
}
