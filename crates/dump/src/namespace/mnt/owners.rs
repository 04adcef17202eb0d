//! Whose file systems are that are nowhere but in memory: they belong to the user namespace of who has mounted them, which
//! says who may change them, and which users their files may have.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use gelid_image::messages::Fstype;
use gelid_sys::mount::owner::is_ruled_by;
use gelid_sys::proc::maps::Dev;
use gelid_sys::proc::ns::Kind;
use rustix::fs::{Mode, OFlags, openat};

use super::{Fate, Mount, MountRefusal, contents};
use crate::namespace::{Census, Instance, user};
use crate::{Error, Refusal};

/// The user namespaces below the root's that file systems belong to, by device. Those that cannot be made there are
/// refused.
pub(super) fn find(
    instances: &[&Instance],
    mounts: &[Mount],
    census: &Census,
) -> Result<HashMap<Dev, u32>, Error> {
    let mut owners = HashMap::new();
    let mut users: Vec<&Instance> = census.of(Kind::User).filter(|users| !users.root).collect();
    if users.is_empty() {
        return Ok(owners);
    }
    let (met, dirs) = look(instances, mounts)?;
    // Who rules one rules all that is below.
    users.sort_by_key(|users| depth(users.id, census));
    for users in users {
        let (pid, kind) = (users.task, users.kind.name());
        let failed = |errno| Error::Join { pid, kind, errno };
        let ruled = is_ruled_by(users.open()?.as_fd(), &dirs).map_err(failed)?;
        let of_nobody = ruled.contains(&true) && user::is_of_nobody(users)?;
        for (mount, _) in met.iter().zip(ruled).filter(|(_, ruled)| *ruled) {
            if mount.kind != Fstype::Tmpfs || of_nobody {
                return Err(Refusal::mount(&mount.info, MountRefusal::Owner).into());
            }
            owners.insert(mount.info.dev, users.id);
        }
    }
    Ok(owners)
}

/// One mount of each file system that belongs to who has mounted it, and a directory in it.
fn look<'m>(
    instances: &[&Instance],
    mounts: &'m [Mount],
) -> Result<(Vec<&'m Mount>, Vec<OwnedFd>), Error> {
    let mut met: HashMap<Dev, (&Mount, Result<OwnedFd, Error>)> = HashMap::new();
    for mount in mounts.iter().filter(|mount| is_of_who_mounts(mount)) {
        let dev = mount.info.dev;
        // One mount may be covered for ever by what another lies open in.
        if !matches!(met.get(&dev), Some((_, Ok(_)))) {
            met.insert(dev, (mount, dir(instances[mount.namespace], mount)));
        }
    }
    let mut found = (Vec::new(), Vec::new());
    for (mount, dir) in met.into_values() {
        match dir {
            Ok(dir) => found.1.push(dir),
            // Nobody of the tree can see it either; but contents have to be read.
            Err(_) if mount.kind != Fstype::Tmpfs => continue,
            Err(error) => return Err(error),
        }
        found.0.push(mount);
    }
    Ok(found)
}

/// How many user namespaces are between one and that of the root.
fn depth(users: u32, census: &Census) -> usize {
    let above = |id: &u32| {
        let entry = census.nested.iter().find(|entry| entry.id == *id);
        entry?.parent
    };
    // They are no more than there are, whatever is said of them.
    let most = census.nested.len();
    std::iter::successors(Some(users), above).take(most).count()
}

/// Whether it is all of a file system that belongs to who has mounted it. Others belong to the machine, or with the
/// namespace that they show (`proc`, `mqueue`).
fn is_of_who_mounts(mount: &Mount) -> bool {
    let by_kind = matches!(
        mount.kind,
        Fstype::Tmpfs | Fstype::Devpts | Fstype::BinfmtMisc | Fstype::Auto
    );
    by_kind && mount.fate == Fate::New && mount.info.root == b"/"
}

fn dir(instance: &Instance, mount: &Mount) -> Result<OwnedFd, Error> {
    let root = contents::open(instance, mount)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(&root, ".", flags, Mode::empty()).map_err(|errno| Error::Mount {
        operation: "look at the owner of",
        point: String::from_utf8_lossy(&mount.info.mount_point).into_owned(),
        errno,
    })
}
