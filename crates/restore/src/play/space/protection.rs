//! Protection keys. All keys are free in a task that has just been born, and the kernel gives the lowest first.

use gelid_sys::pkey;
use gelid_sys::syscall::nr;

use super::super::script::{Object, Reel};
use super::sized;
use crate::plan::protection::Protection;
use crate::plan::space::Space;

/// Gives up what this machine does not have.
pub(crate) fn suit(spaces: &mut [Space]) {
    let has_keys = pkey::are_there();
    for space in spaces {
        space.protection.suit(has_keys);
    }
}

/// Appends what protects memory that needs not be touched any more.
pub(super) fn add(reel: &mut Reel, protection: &Protection) {
    // The kernel takes its key when there is something to give it to.
    let below = 1..protection.execute_only.unwrap_or(1);
    for _ in below.clone() {
        reel.must(Object::Itself, nr::pkey_alloc, [0.into(), 0.into()]);
    }
    for area in &protection.guarded {
        let args = sized(&area.range, area.prot.into());
        reel.must(Object::Area(area.range.start), nr::mprotect, args);
    }
    for key in below {
        reel.must(Object::Itself, nr::pkey_free, [u64::from(key).into()]);
    }
}
