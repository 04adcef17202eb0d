//! Semaphores of a namespace: `ipcns-sem-*.img`.

use gelid_image::ImageWriter;
use gelid_image::messages::IpcSemEntry;
use gelid_sys::ipc::sem;

use super::{Object, description, failed};
use crate::Error;
use crate::namespace::Users;

/// Records all sets.
pub(super) fn record(writer: &mut ImageWriter, users: &Users) -> Result<(), Error> {
    let every = Object::Every("sets of semaphores");
    for set in sem::all().map_err(failed("list", every))? {
        let values = sem::values(&set);
        let values = values.map_err(failed("read", Object::Set(set.id)))?;
        writer.push(&IpcSemEntry {
            desc: description(&set.perm, set.id, users),
            nsems: set.count,
        })?;
        let mut bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        writer.push_payload(&bytes)?;
    }
    Ok(())
}
