//! Numbers of devices.

use rustix::fs::{major, minor};

/// A device number as `st_rdev` of the C library's small form has it.
pub(super) fn rdev(dev: u64) -> u32 {
    let (major, minor) = (major(dev), minor(dev));
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}
