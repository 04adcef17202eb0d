//! Interval timers and POSIX timers of a process.

use gelid_image::messages::{ItimerEntry, PosixTimerEntry, TaskTimersEntry};
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::timers::{self, Timer};
use gelid_sys::syscall::nr;
use gelid_sys::{Errno, proc};
use gelid_tape::{Data, Op, Tape};

use super::Error;
use super::call::Answers;
use crate::namespace::Numbers;

/// The POSIX timers as seen from outside, by id.
pub(super) fn look(dir: &TaskDir) -> Result<Vec<Timer>, Error> {
    match timers::read(dir) {
        Ok(mut timers) => {
            timers.sort_unstable_by_key(|timer| timer.id);
            Ok(timers)
        }
        // A kernel without POSIX timers.
        Err(proc::Error::Read {
            errno: Errno::NOENT,
            ..
        }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug)]
struct AskedPosix {
    timer: Timer,
    times: (Op, Data),
    overrun: Op,
}

/// How much time is left, asked for.
#[derive(Debug)]
pub(super) struct AskedTimers {
    interval: [(Op, Data); 3],
    posix: Vec<AskedPosix>,
}

impl AskedTimers {
    pub(super) fn ask(tape: &mut Tape, timers: Vec<Timer>) -> Self {
        let interval = [0_u64, 1, 2].map(|which| {
            let data = tape.space(32);
            (tape.call(nr::getitimer, [which.into(), data.into()]), data)
        });
        let posix = timers.into_iter().map(|timer| {
            let data = tape.space(32);
            let id = timer.id.into();
            AskedPosix {
                timer,
                times: (tape.call(nr::timer_gettime, [id, data.into()]), data),
                overrun: tape.call(nr::timer_getoverrun, [id]),
            }
        });
        let posix = posix.collect();
        Self { interval, posix }
    }

    pub(super) fn answer(
        &self,
        answers: Answers<'_>,
        numbers: &Numbers,
    ) -> Result<TaskTimersEntry, Error> {
        let interval = |(op, data): (Op, Data)| {
            answers.must(op, "getitimer")?;
            let word = |index| answers.word(data, index);
            Ok::<_, Error>(ItimerEntry {
                isec: word(0),
                iusec: word(1),
                vsec: word(2),
                vusec: word(3),
            })
        };
        let [real, virt, prof] = self.interval;
        let posix = self
            .posix
            .iter()
            .map(|asked| asked.answer(answers, numbers));
        Ok(TaskTimersEntry {
            real: interval(real)?,
            virt: interval(virt)?,
            prof: interval(prof)?,
            posix: posix.collect::<Result<_, Error>>()?,
        })
    }
}

impl AskedPosix {
    fn answer(&self, answers: Answers<'_>, numbers: &Numbers) -> Result<PosixTimerEntry, Error> {
        let (op, data) = self.times;
        answers.must(op, "timer_gettime")?;
        let overrun = answers.must(self.overrun, "timer_getoverrun")?;
        let word = |index| answers.word(data, index);
        let timer = &self.timer;
        Ok(PosixTimerEntry {
            it_id: timer.id.cast_unsigned(),
            clock_id: timer.clock.cast_unsigned(),
            si_signo: timer.signal.cast_unsigned(),
            it_sigev_notify: timer.sigev_notify().cast_unsigned(),
            sival_ptr: timer.value,
            overrun: overrun as u32,
            isec: word(0),
            insec: word(1),
            vsec: word(2),
            vnsec: word(3),
            notify_thread_id: timer.to_thread.then(|| numbers.number(timer.target)),
        })
    }
}
