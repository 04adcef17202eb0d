//! Mounts that show files with other owners: `MOUNT_ATTR_IDMAP`, and what `statmount(2)` tells of it.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::attributes::{MountAttr, set};
use crate::proc::ns::IdRange;
use crate::syscall::call;

/// In the table of system calls, one for all machines.
const SYS_STATMOUNT: usize = 457;
const SYS_LISTMOUNT: usize = 458;
const SYS_OPEN_TREE_ATTR: usize = 467;
/// `MOUNT_ATTR_IDMAP`
const IDMAP: u64 = 0x10_0000;
/// `STATMOUNT_MNT_BASIC`, `STATMOUNT_MNT_UIDMAP`, `STATMOUNT_MNT_GIDMAP`
const BASIC: u64 = 0x2;
const UID_MAP: u64 = 0x2000;
const GID_MAP: u64 = 0x4000;
/// `LSMT_ROOT`: all mounts.
const ALL: u64 = u64::MAX;
/// Bytes that an answer may have; maps have at most 340 lines.
const ROOM: usize = 64 << 10;
/// Bytes of the fixed part of `struct statmount`.
const FIXED: usize = 512;
/// Mounts that are listed at once.
const AT_ONCE: usize = 1024;

/// Who owners of files are, as a mount shows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMap {
    /// Users: as the file system has them, and as they are seen.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

/// `struct mnt_id_req`
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    id: u64,
    param: u64,
    namespace: u64,
}

impl Request {
    fn new(id: u64, param: u64) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            spare: 0,
            id,
            param,
            namespace: 0,
        }
    }
}

/// The maps of all mounts of the calling thread's namespace that have one, by the numbers of these.
///
/// # Errors
///
/// `ENOSYS` if the kernel tells nothing of mounts; before Linux 6.15 no maps are found.
pub fn all() -> Result<Vec<(i32, IdMap)>> {
    let mut found = Vec::new();
    let mut last = 0;
    loop {
        let ids = list(last)?;
        let Some(next) = ids.last() else {
            return Ok(found);
        };
        last = *next;
        for id in ids {
            match look(id) {
                // It has gone meanwhile.
                Err(Errno::NOENT) => {}
                told => found.extend(told?),
            }
        }
    }
}

fn list(after: u64) -> Result<Vec<u64>> {
    let request = Request::new(ALL, after);
    let mut ids = vec![0_u64; AT_ONCE];
    let args = [
        (&raw const request) as usize,
        ids.as_mut_ptr() as usize,
        ids.len(),
        0,
        0,
        0,
    ];
    // SAFETY: the kernel reads one structure and writes as many numbers as there is room for.
    let count = unsafe { call(SYS_LISTMOUNT, args) }?;
    ids.truncate(count);
    Ok(ids)
}

/// The number of a mount and its map, if it has one.
fn look(id: u64) -> Result<Option<(i32, IdMap)>> {
    let request = Request::new(id, BASIC | UID_MAP | GID_MAP);
    let mut told = vec![0_u8; ROOM];
    let args = [
        (&raw const request) as usize,
        told.as_mut_ptr() as usize,
        told.len(),
        0,
        0,
        0,
    ];
    // SAFETY: the kernel reads one structure and writes as many bytes as there is room for.
    unsafe { call(SYS_STATMOUNT, args) }?;
    parse(&told)
}

/// Understands `struct statmount`.
fn parse(told: &[u8]) -> Result<Option<(i32, IdMap)>> {
    /// Where the mask, the old number, and the counts and places of both maps are.
    const MASK: usize = 8;
    const NUMBER: usize = 56;
    const USERS: usize = 152;
    const GROUPS: usize = 160;
    let word = |at: usize| {
        let bytes = told.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or(Errno::BADMSG)
    };
    // Those of mounts that have none are not told.
    let told_of = |bit: u64| Ok::<_, Errno>(u64::from(word(MASK)?) & bit != 0);
    let map = |at: usize| -> Result<Vec<IdRange>> {
        let (count, start) = (word(at)? as usize, word(at + 4)? as usize);
        let text = told.get(FIXED + start..).ok_or(Errno::BADMSG)?;
        let lines = text.split(|byte| *byte == 0).take(count);
        let ranges: Option<Vec<IdRange>> = lines.map(range).collect();
        ranges
            .filter(|ranges| ranges.len() == count)
            .ok_or(Errno::BADMSG)
    };
    let found = IdMap {
        uids: match told_of(UID_MAP)? {
            true => map(USERS)?,
            false => Vec::new(),
        },
        gids: match told_of(GID_MAP)? {
            true => map(GROUPS)?,
            false => Vec::new(),
        },
    };
    let number = word(NUMBER)?.cast_signed();
    let is_mapped = !(found.uids.is_empty() && found.gids.is_empty());
    Ok(is_mapped.then_some((number, found)))
}

fn range(line: &[u8]) -> Option<IdRange> {
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let mut next = || words.next()?.parse().ok();
    Some(IdRange {
        inside: next()?,
        outside: next()?,
        count: next()?,
    })
}

/// Gives a mount that nobody has attached yet the map of a user namespace.
///
/// # Errors
///
/// Those of `mount_setattr(2)`: `EPERM` if it has one already, `EINVAL` if its file system can have none.
pub fn give(mount: impl AsFd, users: impl AsFd) -> Result<()> {
    set(mount, 0, &attributes(Some(&users)))
}

fn attributes(users: Option<&impl AsFd>) -> MountAttr {
    MountAttr {
        set: if users.is_some() { IDMAP } else { 0 },
        clear: 0,
        propagation: 0,
        userns_fd: users.map_or(0, |users| users.as_fd().as_raw_fd() as u64),
    }
}

/// A clone of a mount with another map than that has, or with none.
///
/// # Errors
///
/// Those of `open_tree_attr(2)`, which is there since Linux 6.15.
pub fn clone_with(mount: impl AsFd, users: Option<impl AsFd>) -> Result<OwnedFd> {
    const CLONE: usize = 1;
    let attr = MountAttr {
        clear: IDMAP,
        ..attributes(users.as_ref())
    };
    let flags = CLONE | libc::O_CLOEXEC as usize | libc::AT_EMPTY_PATH as usize;
    let args = [
        mount.as_fd().as_raw_fd() as usize,
        c"".as_ptr() as usize,
        flags,
        (&raw const attr) as usize,
        size_of::<MountAttr>(),
        0,
    ];
    // SAFETY: the kernel reads an empty string and one structure, both alive.
    let fd = unsafe { call(SYS_OPEN_TREE_ATTR, args) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_understood() {
        let mut told = vec![0; FIXED];
        for (at, value) in [
            (8, 0x6002_u32),
            (56, 140),
            (152, 2),
            (156, 1),
            (160, 1),
            (164, 20),
        ] {
            told[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        told.extend_from_slice(b"\x000 1000 10\x0020 30 2\x00");
        told.extend_from_slice(b"0 5 1\0");
        let place = (told.len() - 6 - FIXED) as u32;
        told[164..168].copy_from_slice(&place.to_ne_bytes());
        let (number, map) = parse(&told).unwrap().unwrap();
        assert_eq!((number, map.uids.len(), map.gids[0].outside), (140, 2, 5));
        assert_eq!(map.uids[1].inside, 20);
        told[152] = 9;
        assert_eq!(parse(&told), Err(Errno::BADMSG));
        assert_eq!(parse(&[0; 600]), Ok(None));
        assert_eq!(parse(&[0; 6]), Err(Errno::BADMSG));
    }

    #[test]
    fn the_kernel_tells() {
        match all() {
            Err(Errno::NOSYS | Errno::PERM) => {}
            told => drop(told.unwrap()),
        }
    }
}
