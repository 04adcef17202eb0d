//! Readings of the clocks: `timens-*.img`. Section 19.2 of the format.

use gelid_image::ImageKind;
use gelid_image::messages::{TimensEntry, Timespec};
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, ClockOffset};
use rustix::time::{ClockId, clock_gettime};

use super::{Census, Instance};
use crate::Error;
use crate::records::Context;

/// Key of the image where the tree is in the time namespace of the dumper.
const OWN: u32 = 0;

/// Writes what the clocks of the tree show now.
pub(crate) fn dump(census: &Census, context: Context<'_>) -> Result<(), Error> {
    let (id, clocks) = match census.root(ns::Kind::Time) {
        None => (
            OWN,
            clocks((ClockOffset::default(), ClockOffset::default())),
        ),
        Some(instance) => (instance.id, clocks(offsets(instance)?)),
    };
    Ok(context.staging.put(ImageKind::Timens, id, &clocks)?)
}

/// What is to be added to the clocks of the dumper.
fn offsets(instance: &Instance) -> Result<(ClockOffset, ClockOffset), Error> {
    let theirs = ns::clock_offsets(&TaskDir::open(instance.task)?)?;
    let ours = ns::clock_offsets(&TaskDir::open(rustix::process::getpid())?)?;
    Ok((less(theirs.0, ours.0), less(theirs.1, ours.1)))
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
