//! Clocks that go on.

use std::os::fd::AsRawFd;

use gelid_sys::Pid;
use gelid_sys::clone::flags::NEWTIME;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, ClockOffset, Kind};
use gelid_sys::syscall::nr;
use rustix::time::{ClockId, clock_gettime};

use super::super::script::{Object, Script};
use super::{Stage, write};
use crate::Error;
use crate::plan::namespaces::time::Clocks;

const SECOND: i64 = 1_000_000_000;

/// Brings the root into a time namespace where clocks show what they showed.
pub(super) fn make(planned: &Clocks, stage: &mut Stage<'_>) -> Result<(), Error> {
    let mut script = Script::default();
    script.must(Object::Itself, nr::unshare, [NEWTIME.into()]);
    stage.hand(script)?;
    set(planned, stage.pid())?;
    let namespace = stage.open(Kind::TimeForChildren)?;
    let mut script = Script::default();
    let args = [namespace.as_raw_fd().into(), NEWTIME.into()];
    script.must(Object::Itself, nr::setns, args);
    stage.hand(script).map(drop)
}

/// Sets the clocks of the children of a process, which nobody has yet.
pub(crate) fn set(planned: &Clocks, process: Pid) -> Result<(), Error> {
    let own = ns::clock_offsets(&TaskDir::open(rustix::process::getpid())?)?;
    let monotonic = offset(planned.monotonic, ClockId::Monotonic, own.0);
    let boottime = offset(planned.boottime, ClockId::Boottime, own.1);
    let text = format!(
        "monotonic {} {}\nboottime {} {}\n",
        monotonic.0, monotonic.1, boottime.0, boottime.1
    );
    write(process, "timens_offsets", text.as_bytes())
}

/// What has to be added to the clock of the machine, which this process sees with an offset of its own.
fn offset(wanted: (i64, i64), clock: ClockId, own: ClockOffset) -> (i64, i64) {
    let now = clock_gettime(clock);
    let nanos = wanted.1 - now.tv_nsec + i64::from(own.nanos);
    let secs = wanted.0 - now.tv_sec + own.secs;
    (secs + nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND))
}
