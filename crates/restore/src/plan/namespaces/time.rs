//! Clocks that go on from where they were. Section 19.2 of the format.

use gelid_image::messages::{TimensEntry, Timespec};
use gelid_image::{Dir, ImageKind};

use crate::plan::PlanError;

/// Seconds that a clock of a time namespace may show (`KTIME_SEC_MAX / 2`).
const MOST: u64 = 9_223_372_036 / 2;

/// What the clocks showed, in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clocks {
    pub(crate) monotonic: (i64, i64),
    pub(crate) boottime: (i64, i64),
}

impl Clocks {
    pub(super) fn read(dir: &Dir, id: u32) -> Result<Self, PlanError> {
        let entry: TimensEntry = dir.read_one(ImageKind::Timens, id)?;
        let reading = |time: &Timespec| {
            let fits = time.tv_sec <= MOST && time.tv_nsec < 1_000_000_000;
            let both = (time.tv_sec.cast_signed(), time.tv_nsec.cast_signed());
            fits.then_some(both).ok_or(PlanError::Clocks { id })
        };
        Ok(Self {
            monotonic: reading(&entry.monotonic)?,
            boottime: reading(&entry.boottime)?,
        })
    }
}
