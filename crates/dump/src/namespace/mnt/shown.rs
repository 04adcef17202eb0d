//! Which namespaces file systems show that are mounted in others than the root's: a `sysfs` has the devices of a network
//! namespace, an `mqueue` the queues of an IPC namespace. There is one such file system for each namespace, by which it is
//! recognized.

use std::collections::HashMap;
use std::ffi::CStr;

use gelid_image::messages::Fstype;
use gelid_sys::proc::maps::Dev;
use gelid_sys::proc::ns::Kind;
use rustix::fs::{CWD, StatxFlags, makedev, statx};

use super::{Fate, Mount, MountRefusal};
use crate::files::NETWORK;
use crate::namespace::{Census, Instance};
use crate::{Error, Refusal, ipc};

/// Kinds of file systems, and of the namespaces that they show.
const KINDS: [(Fstype, Kind, &CStr); 2] = [
    (Fstype::Sysfs, Kind::Net, c"sysfs"),
    (Fstype::Mqueue, Kind::Ipc, c"mqueue"),
];

/// The namespaces that are shown and are not the root's, by device. What shows one that nobody of the tree is in is
/// refused.
pub(super) fn find(mounts: &[Mount], census: &Census) -> Result<HashMap<Dev, u32>, Error> {
    let mut found = HashMap::new();
    for (fs_type, kind, name) in KINDS {
        let mut these = mounts
            .iter()
            .filter(|mount| mount.kind == fs_type && mount.fate == Fate::New)
            .peekable();
        if these.peek().is_none() {
            continue;
        }
        let devices = devices(census, kind, name)?;
        let mut at_home = None;
        for mount in these {
            let dev = mount.info.dev;
            let number = makedev(dev.major, dev.minor);
            if is_of_the_dumper(fs_type, dev, census) {
                found.insert(dev, NETWORK);
                continue;
            }
            let shown = devices.iter().find(|(device, _)| *device == number);
            let shown = shown.map(|(_, instance)| *instance);
            if let Some(instance) = shown.filter(|instance| !instance.root) {
                found.insert(dev, instance.id);
            } else if shown.is_none() && !devices.is_empty() {
                // The root may be in the dumper's.
                if at_home.is_none() && census.root(kind).is_none() {
                    at_home = ipc::device_of(name)?;
                }
                if at_home != Some(number) {
                    return Err(Refusal::mount(&mount.info, MountRefusal::Elsewhere).into());
                }
            }
        }
    }
    Ok(found)
}

/// The file systems of all namespaces of a kind; none where all tasks are in one, which is what theirs show.
fn devices<'c>(
    census: &'c Census,
    kind: Kind,
    name: &CStr,
) -> Result<Vec<(u64, &'c Instance)>, Error> {
    let mut devices = Vec::new();
    if census.of(kind).any(|instance| !instance.root) {
        for instance in census.of(kind) {
            let device = instance.inside(|| Ok(ipc::device_of(name)?))?;
            devices.extend(device.map(|device| (device, instance)));
        }
    }
    Ok(devices)
}

/// Whether a sysfs is the one that the dumper has, while the root is in a network of its own.
fn is_of_the_dumper(fs_type: Fstype, dev: Dev, census: &Census) -> bool {
    if fs_type != Fstype::Sysfs || census.root(Kind::Net).is_none() {
        return false;
    }
    let flags = rustix::fs::AtFlags::empty();
    let own = statx(CWD, "/sys", flags, StatxFlags::empty());
    own.is_ok_and(|own| (own.stx_dev_major, own.stx_dev_minor) == (dev.major, dev.minor))
}
