//! Readings of the clocks: `timens-*.img`. Section 19.2 of the format.

use gelid_image::ImageKind;
use gelid_image::messages::{TimensEntry, Timespec};
use std::collections::HashMap;

use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, ClockOffset, Kind};
use rustix::time::{ClockId, clock_gettime};

use super::{Census, Instance};
use crate::records::Context;
use crate::survey::Task;
use crate::{Error, Refusal};

/// Key of the image where the tree is in the time namespace of the dumper.
const OWN: u32 = 0;

/// Writes what the clocks of the tree show now.
pub(crate) fn dump(census: &Census, context: Context<'_>) -> Result<(), Error> {
    if census.root(Kind::Time).is_none() {
        let none = ClockOffset::default();
        let clocks = clocks((none, none));
        context.staging.put(ImageKind::Timens, OWN, &clocks)?;
    }
    for instance in census.of(Kind::Time) {
        let clocks = clocks(offsets(instance)?);
        context
            .staging
            .put(ImageKind::Timens, instance.id, &clocks)?;
    }
    Ok(())
}

/// What is to be added to the clocks of the dumper.
fn offsets(instance: &Instance) -> Result<(ClockOffset, ClockOffset), Error> {
    // The kernel tells those of children.
    let parent = instance.parent.ok_or(Refusal::Clocks {
        pid: instance.task,
        why: "has left its children other clocks, and nobody tells its own",
    })?;
    let theirs = ns::clock_offsets(&TaskDir::open(parent)?)?;
    let ours = ns::clock_offsets(&TaskDir::open(rustix::process::getpid())?)?;
    Ok((less(theirs.0, ours.0), less(theirs.1, ours.1)))
}

/// Refuses clocks that no restore could set.
pub(crate) fn check(tasks: &[Task]) -> Result<(), Refusal> {
    let live = || {
        tasks
            .iter()
            .filter_map(|task| Some((task, task.live.as_ref()?)))
    };
    let root = live().next().and_then(|(_, live)| live.ids.time_ns_id);
    let mut givers = HashMap::new();
    for (task, live) in live() {
        let ids = &live.ids;
        if ids.time_ns_id == root && ids.time_ns_for_children_id.is_none() {
            continue;
        }
        let pid = task.pid;
        let refused = |why| Err(Refusal::Clocks { pid, why });
        let mut sharing = tasks.iter().filter_map(|task| task.live.as_ref());
        if sharing.any(|other| other.ids.vm_id == ids.vm_id && !std::ptr::eq(other, live)) {
            return refused("has clocks of its own, and shares its memory with another process");
        }
        if let Some(id) = ids.time_ns_for_children_id
            && givers.insert(id, pid).is_some()
        {
            return refused("gives its children the same clocks as another process");
        }
    }
    for (task, live) in live() {
        let mut line = task;
        let Some(giver) = live.ids.time_ns_id.and_then(|id| givers.get(&id)) else {
            continue;
        };
        while line.pid != *giver {
            let has = |task: &Task| {
                let ids = task.live.as_ref().map(|live| &live.ids);
                ids.is_some_and(|ids| ids.time_ns_id == live.ids.time_ns_id)
            };
            let above = tasks
                .iter()
                .find(|above| above.pid.as_raw_pid() == line.ppid);
            let Some(above) = above.filter(|_| line.ppid != 0 && has(line)) else {
                return Err(Refusal::Clocks {
                    pid: task.pid,
                    why: "has the clocks of children of a process that it does not descend from",
                });
            };
            line = above;
        }
    }
    Ok(())
}

fn less(one: ClockOffset, other: ClockOffset) -> ClockOffset {
    sum(
        (one.secs, one.nanos.into()),
        (-other.secs, -i64::from(other.nanos)),
    )
}

fn sum(one: (i64, i64), other: (i64, i64)) -> ClockOffset {
    const SECOND: i64 = 1_000_000_000;
    let nanos = one.1 + other.1;
    ClockOffset {
        secs: one.0 + other.0 + nanos.div_euclid(SECOND),
        nanos: nanos.rem_euclid(SECOND) as u32,
    }
}

fn clocks((monotonic, boottime): (ClockOffset, ClockOffset)) -> TimensEntry {
    TimensEntry {
        monotonic: reading(ClockId::Monotonic, monotonic),
        boottime: reading(ClockId::Boottime, boottime),
    }
}

fn reading(clock: ClockId, offset: ClockOffset) -> Timespec {
    let time = clock_gettime(clock);
    let time = sum(
        (time.tv_sec, time.tv_nsec),
        (offset.secs, offset.nanos.into()),
    );
    Timespec {
        tv_sec: time.secs.max(0).unsigned_abs(),
        tv_nsec: time.nanos.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_carry() {
        let offset = |secs, nanos| ClockOffset { secs, nanos };
        assert_eq!(less(offset(5, 1), offset(2, 2)), offset(2, 999_999_999));
        assert_eq!(
            sum((1, 600_000_000), (-3, 500_000_000)),
            offset(-1, 100_000_000)
        );
    }
}
