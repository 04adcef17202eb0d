//! What is said about the image set as a whole: `inventory.img`. Section 5 of the format.

use gelid_image::messages::{InventoryEntry, PluginsEntry};
use gelid_image::{ImageKind, Staging};
use rustix::rand::{GetRandomFlags, getrandom};

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

/// A random UUID, version 4 of RFC 9562, as the kernel's `random/uuid` would give, but by one call.
pub(crate) fn run_id() -> Result<String, Error> {
    let mut random = [0; 16];
    // It is no secret, so that nobody has to wait for that at boot.
    let asked = getrandom(&mut random, GetRandomFlags::INSECURE);
    asked.map_err(|errno| Error::System {
        file: "random bytes",
        source: errno.into(),
    })?;
    Ok(uuid(u128::from_ne_bytes(random)))
}

fn uuid(random: u128) -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bits = random & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62;
    let group = |above: u32, digits: u32| bits >> above & ((1 << (4 * digits)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        group(96, 8),
        group(80, 4),
        group(64, 4),
        group(48, 4),
        group(0, 12)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_uuid_of_the_fourth_version() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let digits = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210;
        assert_eq!(uuid(digits), "01234567-89ab-4def-bedc-ba9876543210");
        assert_ne!(run_id().unwrap(), run_id().unwrap());
    }
}
