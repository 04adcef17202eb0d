//! Timers as files: `timerfd_create(2)`. Section 15 of the format.

use gelid_image::messages::{FdTypes, FileEntry, TimerfdEntry};
use gelid_sys::proc::fdinfo::{self, FdInfo, Timerfd};
use rustix::time::timerfd_gettime;

use super::regfile::Opening;
use super::{Collector, Error, Object, Task};

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
        let id = self.new_id()?;
        self.push(FileEntry {
            r#type: FdTypes::Timerfd.into(),
            id,
            tfd: Some(TimerfdEntry {
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
            }),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Timerfd, id))
    }
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
