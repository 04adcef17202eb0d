//! Who gets signals about a file. Section 11.3 of the format.

use std::os::fd::AsFd;

use gelid_image::messages::FownEntry;
use gelid_sys::Errno;
use gelid_sys::fown::{self, OwnerKind};

use crate::namespace::Census;

/// The record of an owner. The description must not be one of `O_PATH`.
pub(super) fn entry(file: impl AsFd, census: &Census) -> Result<FownEntry, Errno> {
    let owner = fown::owner(&file)?;
    let signum = fown::signal(&file)?.unsigned_abs();
    if owner.pid == 0 {
        // Never set, or gone for good: a kind and users without an owner say nothing.
        return Ok(FownEntry { signum, ..nobody() });
    }
    let number = census.numbers.number(owner.pid);
    if number == 0 {
        // Nobody of the tree: not one that those inside could name.
        return Ok(FownEntry { signum, ..nobody() });
    }
    let (uid, euid) = fown::owner_users(&file)?;
    let pid_type = match owner.kind {
        OwnerKind::Thread => 0,
        OwnerKind::Process => 1,
        OwnerKind::Group => 2,
    };
    Ok(FownEntry {
        uid: census.users.uid(uid),
        euid: census.users.uid(euid),
        signum,
        pid_type,
        pid: number.unsigned_abs(),
    })
}

/// The record of no owner.
pub(super) fn nobody() -> FownEntry {
    FownEntry::default()
}
