//! IPC namespaces: `ipcns-*.img`.

use gelid_sys::ipc::shm::Segment;

use super::{Census, Instance};
use crate::records::Context;
use crate::{Error, ipc};

/// Records what is in a namespace, and gives its segments, the contents of which come later.
pub(super) fn dump(
    instance: &Instance,
    context: Context<'_>,
    census: &Census,
) -> Result<Vec<Segment>, Error> {
    instance.inside(|| ipc::record(context.staging, instance.id, &census.users))
}
