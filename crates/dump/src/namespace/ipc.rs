//! IPC namespaces: `ipcns-*.img`.

use gelid_sys::ipc::shm::Segment;

use super::{Census, Instance, MountRefusal, MountTable};
use crate::records::Context;
use crate::{Error, Refusal, ipc};

/// Records what is in a namespace, and gives its segments, the contents of which come later.
pub(super) fn dump(
    instance: &Instance,
    context: Context<'_>,
    census: &Census,
) -> Result<Vec<Segment>, Error> {
    instance.inside(|| ipc::record(context.staging, instance.id, &census.users))
}

/// Refuses mounts of the queues of a namespace that the root is not in: they would be of another one.
pub(super) fn check_mounts(instance: &Instance, mounts: &MountTable) -> Result<(), Error> {
    let Some(device) = instance.inside(|| Ok(ipc::device_of_queues()?))? else {
        return Ok(());
    };
    let shows = |info: &gelid_sys::proc::mountinfo::MountInfo| {
        rustix::fs::makedev(info.dev.major, info.dev.minor) == device
    };
    match mounts.all().find(|(_, info)| shows(info)) {
        None => Ok(()),
        Some((_, info)) => Err(Refusal::mount(&info, MountRefusal::Queues).into()),
    }
}
