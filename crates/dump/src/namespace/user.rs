//! Which users and groups there are: `userns-*.img`. Section 19.3 of the format.

use gelid_image::ImageKind;
use gelid_image::messages::{UidGidExtent, UsernsEntry};
use gelid_sys::Pid;
use gelid_sys::aside::beside;
use gelid_sys::namespace::join;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, IdRange, Kind};

use super::{Census, Instance};
use crate::Error;
use crate::records::Context;

/// Writes the maps.
pub(super) fn dump(
    instance: &Instance,
    context: Context<'_>,
    census: &Census,
) -> Result<(), Error> {
    let mut entry = maps(instance)?;
    if !instance.root {
        // Those of the root are what the dumper sees.
        let users = &census.users;
        for extent in &mut entry.uid_map {
            extent.lower_first = users.uid(extent.lower_first);
        }
        for extent in &mut entry.gid_map {
            extent.lower_first = users.gid(extent.lower_first);
        }
    }
    Ok(context
        .staging
        .put(ImageKind::Userns, instance.id, &entry)?)
}

fn maps(instance: &Instance) -> Result<UsernsEntry, Error> {
    match instance.above {
        None => read(instance.task),
        Some(_) => read_inside(instance),
    }
}

/// Whether nobody can have files there.
pub(super) fn is_of_nobody(instance: &Instance) -> Result<bool, Error> {
    let maps = maps(instance)?;
    Ok(maps.uid_map.is_empty() || maps.gid_map.is_empty())
}

/// Whether nobody can set groups there.
pub(super) fn denies_groups(instance: &Instance) -> Result<bool, Error> {
    Ok(maps(instance)?.setgroups_denied.unwrap_or_default())
}

fn read(process: Pid) -> Result<UsernsEntry, Error> {
    let task = TaskDir::open(process)?;
    Ok(UsernsEntry {
        uid_map: ns::uid_map(&task)?.iter().map(extent).collect(),
        gid_map: ns::gid_map(&task)?.iter().map(extent).collect(),
        setgroups_denied: ns::denies_groups(&task)?.then_some(true),
    })
}

/// Reads those of one that no process of the tree is in, by a child of the dumper there.
fn read_inside(instance: &Instance) -> Result<UsernsEntry, Error> {
    let (pid, kind) = (instance.task, instance.kind.name());
    let failed = |errno| Error::Join { pid, kind, errno };
    let namespace = instance.open()?;
    let mut entry = None;
    beside(
        || join(&namespace, Kind::User),
        |child| entry = Some(read(child)),
    )
    .map_err(failed)?;
    entry.unwrap_or_else(|| Err(failed(rustix::io::Errno::SRCH)))
}

/// A line of a map.
pub(super) fn extent(range: &IdRange) -> UidGidExtent {
    UidGidExtent {
        first: range.inside,
        lower_first: range.outside,
        count: range.count,
    }
}
