//! Which users and groups there are: `userns-*.img`. Section 19.3 of the format.

use gelid_image::ImageKind;
use gelid_image::messages::{UidGidExtent, UsernsEntry};
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, IdRange};

use super::Instance;
use crate::Error;
use crate::records::Context;

/// Writes the maps.
pub(super) fn dump(instance: &Instance, context: Context<'_>) -> Result<(), Error> {
    let task = TaskDir::open(instance.task)?;
    let entry = UsernsEntry {
        uid_map: ns::uid_map(&task)?.iter().map(extent).collect(),
        gid_map: ns::gid_map(&task)?.iter().map(extent).collect(),
        setgroups_denied: ns::denies_groups(&task)?.then_some(true),
    };
    Ok(context
        .staging
        .put(ImageKind::Userns, instance.id, &entry)?)
}

/// A line of a map.
pub(super) fn extent(range: &IdRange) -> UidGidExtent {
    UidGidExtent {
        first: range.inside,
        lower_first: range.outside,
        count: range.count,
    }
}
