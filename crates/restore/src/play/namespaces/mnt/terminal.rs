//! Pseudoterminals of which a node is mounted, as `/dev/console` of a container is: they must be there by then.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use gelid_sys::Errno;
use gelid_sys::pty;
use rustix::fs::OFlags;

use super::origin::Opened;
use super::{beneath, failed};
use crate::Error;
use crate::plan::namespaces::mnt::{Mounts, Origin};

/// Numbers that images can tell end here.
const PTYS: u32 = 1000;

/// Makes them; their masters, by number.
pub(super) fn masters(plan: &Mounts, origins: &[Opened]) -> Result<BTreeMap<u32, OwnedFd>, Error> {
    let mut masters = BTreeMap::new();
    for mount in &plan.mounts {
        let Origin::New(new) = &plan.filesystems[mount.filesystem].origin else {
            continue;
        };
        let number = std::str::from_utf8(&mount.root).ok();
        let number = number.and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|number| new.name == "devpts" && *number < PTYS) else {
            continue;
        };
        if masters.contains_key(&number) {
            continue;
        }
        let origin = &origins[mount.filesystem];
        let master = make(origin, number);
        let master = master.map_err(failed("make a terminal for", mount.point.to_string()))?;
        masters.insert(number, master);
    }
    Ok(masters)
}

/// The kernel gives the lowest number that is free, and nobody else has this file system yet.
fn make(origin: &Opened, number: u32) -> Result<OwnedFd, Errno> {
    let mut below = Vec::new();
    loop {
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = beneath(origin.mount.as_fd(), b"ptmx", flags)?;
        match pty::index(&master)? {
            index if index == number => return Ok(master),
            index if index > number => return Err(Errno::EXIST),
            _ => below.push(master),
        }
    }
}
