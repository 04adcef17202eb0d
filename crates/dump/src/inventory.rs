//! What is said about the image set as a whole: `inventory.img`. Section 5 of the format.

use gelid_image::messages::{InventoryEntry, PluginsEntry};
use gelid_image::{ImageKind, Staging};

use crate::cgroup;
use crate::core;
use crate::earlier::Earlier;
use crate::namespace::{Census, Own};
use crate::{Error, Options};

/// Layout 1.1.
const IMG_VERSION: u32 = 2;

/// Writes them.
pub(crate) fn write(
    staging: &Staging,
    options: &Options,
    namespaces: &Own,
    census: &Census,
    earlier: Option<&Earlier>,
) -> Result<(), Error> {
    let inventory = InventoryEntry {
        img_version: IMG_VERSION,
        fdinfo_per_id: Some(true),
        root_ids: Some(namespaces.ids()),
        ns_per_id: Some(true),
        root_cg_set: Some(cgroup::OWN),
        lsmtype: Some(core::module().into()),
        plugins_entry: Some(PluginsEntry::default()),
        tcp_close: options.tcp_close.then_some(true),
        network_lock_method: Some(options.network_lock.number()),
        dump_criu_run_id: options.run_id.clone(),
        namespaces: census.nested.clone(),
        parent_run_id: earlier.and_then(|earlier| earlier.run_id.clone()),
        last_pid: census.last_pid.map(|last| last.unsigned_abs()),
        ..InventoryEntry::default()
    };
    staging.put(ImageKind::Inventory, (), &inventory)?;
    Ok(())
}

/// A UUID, from the kernel.
pub(crate) fn run_id() -> Result<String, Error> {
    const FILE: &str = "/proc/sys/kernel/random/uuid";
    let text = std::fs::read_to_string(FILE);
    let text = text.map_err(|source| Error::System { file: FILE, source })?;
    Ok(text.trim_end().to_owned())
}
