//! Cgroup hierarchies: `cgroups(7)`, and their files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::proc::{self, mountinfo};

/// What a named hierarchy begins with.
const NAMED: &str = "name=";
/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC`
const MAGICS: [u64; 2] = [0x27_e0eb, 0x6367_7270];
/// Larger than any file of a cgroup that is worth recording.
const LARGEST: usize = 64 << 10;

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::CLOEXEC);

/// Opens the root directory of a hierarchy, by the text that `/proc/PID/cgroup` has for it: controllers with commas
/// between them, `name=NAME`, nothing for version 2. Where it is not mounted it is, for nobody else to see; a named
/// one that is not there comes to be.
///
/// # Errors
///
/// Those of `mount(2)`: `EBUSY` or `EINVAL` if the controllers are in no such hierarchy.
pub fn open(hierarchy: &str) -> Result<OwnedFd> {
    match mounted(hierarchy) {
        Some(root) => Ok(root),
        None => mount(hierarchy),
    }
}

/// The same in a folder where all hierarchies are mounted (`--cgroup-yard`).
///
/// # Errors
///
/// Those of `open(2)`; `EMEDIUMTYPE` if something else is there.
pub fn open_in(yard: &Path, hierarchy: &str) -> Result<OwnedFd> {
    let name = match hierarchy {
        "" => "unified",
        _ => hierarchy.strip_prefix(NAMED).unwrap_or(hierarchy),
    };
    let root = openat(CWD, yard.join(name), DIRECTORY, Mode::empty())?;
    match is_cgroup(&root) {
        true => Ok(root),
        false => Err(Errno::MEDIUMTYPE),
    }
}

fn is_cgroup(root: impl AsFd) -> bool {
    let stat = rustix::fs::fstatfs(root);
    stat.is_ok_and(|stat| MAGICS.contains(&stat.f_type.cast_unsigned()))
}

/// Where a hierarchy is mounted already.
fn mounted(hierarchy: &str) -> Option<OwnedFd> {
    let own = proc::task_dir(rustix::process::getpid()).ok()?;
    let mounts = mountinfo::read(&own).ok()?;
    let fits = |mount: &&mountinfo::MountInfo| {
        let options: Vec<&[u8]> = mount.super_options.split(|byte| *byte == b',').collect();
        let has = |part: &str| options.contains(&part.as_bytes());
        let kind = match hierarchy {
            "" => mount.fs_type == b"cgroup2",
            _ => mount.fs_type == b"cgroup" && hierarchy.split(',').all(has),
        };
        kind && mount.root == b"/"
    };
    mounts.iter().filter(fits).find_map(|mount| {
        let root = openat(CWD, &*mount.mount_point, DIRECTORY, Mode::empty()).ok()?;
        // Something else may be mounted over it.
        is_cgroup(&root).then_some(root)
    })
}

fn mount(hierarchy: &str) -> Result<OwnedFd> {
    let kind = if hierarchy.is_empty() {
        "cgroup2"
    } else {
        "cgroup"
    };
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for part in hierarchy.split(',').filter(|part| !part.is_empty()) {
        match part.strip_prefix(NAMED) {
            Some(name) => {
                fsconfig_set_flag(context.as_fd(), "none")?;
                fsconfig_set_string(context.as_fd(), "name", name)?;
            }
            None => fsconfig_set_flag(context.as_fd(), part)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

/// Opens a group by its path below another.
///
/// # Errors
///
/// Those of `open(2)`.
pub fn group(root: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    below(root.as_fd(), path, DIRECTORY)
}

/// Reads a file of a group.
///
/// # Errors
///
/// Those of `open(2)` and `read(2)`; `EFBIG` if it is absurdly long.
pub fn read(group: impl AsFd, file: &str) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = below(group.as_fd(), file.as_bytes(), flags)?;
    let mut text = vec![0; 4096];
    let mut len = 0;
    loop {
        match rustix::io::read(&file, &mut text[len..])? {
            0 => break,
            read => len += read,
        }
        if len == text.len() {
            if len >= LARGEST {
                return Err(Errno::FBIG);
            }
            text.resize(2 * len, 0);
        }
    }
    text.truncate(len);
    Ok(text)
}

/// Writes to a file of a group, all at once, as the kernel wants it.
///
/// # Errors
///
/// Those of `open(2)` and `write(2)`.
pub fn write(group: impl AsFd, file: &str, text: &[u8]) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = below(group.as_fd(), file.as_bytes(), flags)?;
    rustix::io::write(&file, text).map(drop)
}

fn below(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(dir, path, flags, Mode::empty(), inside)
}

/// The names of the groups directly below one, in order.
///
/// # Errors
///
/// Those of `getdents(2)`.
pub fn below_of(group: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let dir = rustix::fs::Dir::read_from(&group)?;
    for entry in dir {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == rustix::fs::FileType::Directory && !name.starts_with(b".") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::cgroup;

    #[test]
    fn every_hierarchy_can_be_opened() {
        let own = proc::task_dir(rustix::process::getpid()).unwrap();
        for member in cgroup::read(&own).unwrap() {
            let name = String::from_utf8(member.controllers).unwrap();
            let root = match open(&name) {
                Err(Errno::PERM) => return,
                root => root.unwrap(),
            };
            let path = member.path.strip_prefix(b"/").unwrap_or_default();
            let group = group(&root, path).unwrap();
            assert!(!read(&group, "cgroup.procs").unwrap().is_empty(), "{name}");
            below_of(&group).unwrap();
            // What is not mounted is found all the same.
            let again = mount(&name).unwrap();
            let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
            assert_eq!(inode(&again), inode(&root), "{name}");
        }
    }
}
