//! Current directory, root directory and umask of a task. Section 18.1 of the format.

use gelid_image::messages::FsEntry;
use gelid_sys::proc::status::Status;

use crate::files::{Collector, Error, Place, Task};

/// Records the directories of a task and gives the record that names them.
pub(crate) fn entry(
    files: &mut Collector<'_>,
    task: Task<'_>,
    status: &Status,
) -> Result<FsEntry, Error> {
    let pid = task.pid;
    Ok(FsEntry {
        cwd_id: files.by_link(task.dir, "cwd", Place::Directory { pid })?,
        root_id: files.by_link(task.dir, "root", Place::Root { pid })?,
        umask: status.umask,
    })
}
