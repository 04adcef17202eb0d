//! Timers as files: `timerfd_create(2)`. Section 15 of the format.

use gelid_image::messages::{FdTypes, FileEntry, TimerfdEntry};
use gelid_sys::proc::fdinfo::{self, FdInfo, Timerfd};
use rustix::time::{ClockId, clock_gettime, timerfd_gettime};

use super::regfile::Opening;
use super::{Collector, Error, Object, Task};

/// `TFD_TIMER_ABSTIME`
const ABSOLUTE: u32 = 1;

impl Collector<'_> {
    /// Records a timerfd, `fd` of `task`.
    pub(super) fn timerfd(
        &mut self,
        task: Task<'_>,
        fd: i32,
        object: &Object<'_>,
        opening: Opening,
        info: &FdInfo,
    ) -> Result<(FdTypes, u32), Error> {
        let mut told = info.timerfd().map_err(object.odd())?;
        if told.value == (0, 0) {
            told = settled(task, fd, object, told)?;
        }
        let deadline = deadline(&told);
        let id = self.new_id()?;
        self.push(FileEntry {
            r#type: FdTypes::Timerfd.into(),
            id,
            tfd: Some(Box::new(TimerfdEntry {
                id,
                flags: opening.flags,
                fown: opening.fown,
                clockid: told.clock,
                ticks: told.ticks,
                settime_flags: told.flags,
                vsec: told.value.0,
                vnsec: told.value.1,
                isec: told.interval.0,
                insec: told.interval.1,
                deadline,
            })),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Timerfd, id))
    }
}

/// When a timer goes off that was set to a time of day, in nanoseconds since the epoch.
fn deadline(told: &Timerfd) -> Option<u64> {
    const REALTIME: u32 = 0;
    const REALTIME_ALARM: u32 = 8;
    let of_day = matches!(told.clock, REALTIME | REALTIME_ALARM);
    if !of_day || told.flags & ABSOLUTE == 0 || told.value == (0, 0) {
        return None;
    }
    let now = clock_gettime(ClockId::Realtime);
    let now = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    let nanoseconds =
        |(seconds, rest): (u64, u64)| seconds.checked_mul(1_000_000_000)?.checked_add(rest);
    nanoseconds(now)?.checked_add(nanoseconds(told.value)?)
}

/// What is true of a timer that does not seem to run. One that goes off periodically stands still until
/// somebody asks: the question makes it count what it has missed, and run on. One whose time has just come
/// has gone off by the second look.
fn settled(task: Task<'_>, fd: i32, object: &Object<'_>, told: Timerfd) -> Result<Timerfd, Error> {
    if told.interval != (0, 0) {
        timerfd_gettime(object.file).map_err(object.failed("ask for the time left of"))?;
    }
    let again = fdinfo::read(task.dir, fd)?;
    again.timerfd().map_err(object.odd())
}
