//! Mounts in binary: `listmount(2)` and `statmount(2)` (since Linux 6.8).
//!
//! Against `mountinfo` they need no parsing, tell a mount by an id that is never used again, and reach
//! into other mount namespaces without entering them (since 6.11). Where they are missing,
//! [`proc::mountinfo`](crate::proc::mountinfo) has the same facts.

pub mod attributes;
pub mod autofs;
pub mod idmap;
pub mod owner;

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};

use bitflags::bitflags;
use rustix::io::{Errno, Result};

use crate::syscall::call;

/// `statmount(2)` in the table of system calls, one for all machines.
const SYS_STATMOUNT: usize = 457;
/// `listmount(2)` likewise.
const SYS_LISTMOUNT: usize = 458;

/// Stands for the root of the namespace where a mount id is asked for, `LSMT_ROOT`.
pub const ROOT: u64 = u64::MAX;
/// Stands for the caller's mount namespace where a namespace id is asked for.
pub const OWN_NAMESPACE: u64 = 0;

/// Most mounts in one namespace that [`list`] returns, ten times the kernel's default limit.
const MAX_MOUNTS: usize = 1_000_000;
/// Mounts asked for at once.
const BATCH: usize = 512;
/// Longest answer of `statmount` that is taken.
const MAX_ANSWER: usize = 1 << 20;

bitflags! {
    /// What of a mount is asked for or was answered, `STATMOUNT_*` of `linux/mount.h`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Mask: u64 {
        /// The `sb_*` numbers.
        const SB_BASIC = 1 << 0;
        /// Ids, attributes, propagation.
        const MNT_BASIC = 1 << 1;
        /// `propagate_from`
        const PROPAGATE_FROM = 1 << 2;
        /// `root`
        const MNT_ROOT = 1 << 3;
        /// `point`
        const MNT_POINT = 1 << 4;
        /// `fs_type`
        const FS_TYPE = 1 << 5;
        /// `namespace`
        const MNT_NS_ID = 1 << 6;
        /// `options`
        const MNT_OPTS = 1 << 7;
        /// `fs_subtype`
        const FS_SUBTYPE = 1 << 8;
        /// `source`
        const SB_SOURCE = 1 << 9;
    }
}

/// `struct mnt_id_req` of `linux/mount.h`.
#[repr(C)]
struct MntIdReq {
    size: u32,
    spare: u32,
    mnt_id: u64,
    param: u64,
    mnt_ns_id: u64,
}

const _: () = assert!(size_of::<MntIdReq>() == 32 && offset_of!(MntIdReq, mnt_ns_id) == 24);

/// The start of `struct statmount`, up to what this crate reads. Strings follow at byte 512.
#[repr(C)]
struct Statmount {
    size: u32,
    mnt_opts: u32,
    mask: u64,
    sb_dev_major: u32,
    sb_dev_minor: u32,
    sb_magic: u64,
    sb_flags: u32,
    fs_type: u32,
    mnt_id: u64,
    mnt_parent_id: u64,
    mnt_id_old: u32,
    mnt_parent_id_old: u32,
    mnt_attr: u64,
    mnt_propagation: u64,
    mnt_peer_group: u64,
    mnt_master: u64,
    propagate_from: u64,
    mnt_root: u32,
    mnt_point: u32,
    mnt_ns_id: u64,
    fs_subtype: u32,
    sb_source: u32,
}

/// Where the strings begin.
const STRINGS: usize = 512;

const _: () = {
    assert!(offset_of!(Statmount, sb_magic) == 24);
    assert!(offset_of!(Statmount, mnt_id) == 40);
    assert!(offset_of!(Statmount, mnt_attr) == 64);
    assert!(offset_of!(Statmount, propagate_from) == 96);
    assert!(offset_of!(Statmount, mnt_ns_id) == 112);
    assert!(size_of::<Statmount>() == 128);
};

#[cfg(test)]
crate::layout::same!(whole MntIdReq, linux_raw_sys::general::mnt_id_req {
    size, spare, mnt_id, param, mnt_ns_id,
});
#[cfg(test)]
crate::layout::same!(
    Statmount,
    linux_raw_sys::general::statmount {
        size,
        mnt_opts,
        mask,
        sb_dev_major,
        sb_dev_minor,
        sb_magic,
        sb_flags,
        fs_type,
        mnt_id,
        mnt_parent_id,
        mnt_id_old,
        mnt_parent_id_old,
        mnt_attr,
        mnt_propagation,
        mnt_peer_group,
        mnt_master,
        propagate_from,
        mnt_root,
        mnt_point,
        mnt_ns_id,
        fs_subtype,
        sb_source,
    }
);
#[cfg(test)]
const _: () = assert!(STRINGS == offset_of!(linux_raw_sys::general::statmount, str_));

/// One mount, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// Which of the fields below were answered.
    pub mask: Mask,
    /// Major and minor number of the filesystem's device.
    pub dev: (u32, u32),
    /// Magic number of the filesystem.
    pub magic: u64,
    /// `SB_*` flags of the filesystem (read-only, synchronous, …).
    pub sb_flags: u32,
    /// Id that is never used again.
    pub id: u64,
    /// Such an id of the parent; its own for the root.
    pub parent: u64,
    /// Id as in `mountinfo` and `fdinfo`.
    pub old_id: u32,
    /// Such an id of the parent.
    pub old_parent: u32,
    /// `MOUNT_ATTR_*`
    pub attributes: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_UNBINDABLE`, `MS_PRIVATE`
    pub propagation: u64,
    /// Peer group, 0 if not shared.
    pub peer_group: u64,
    /// Peer group it receives from, 0 if it is no slave.
    pub master: u64,
    /// Nearest dominating peer group in the caller's view.
    pub propagate_from: u64,
    /// Id of the mount namespace.
    pub namespace: u64,
    /// Directory of the filesystem that is mounted.
    pub root: Vec<u8>,
    /// Where it stands.
    pub point: Vec<u8>,
    /// Filesystem.
    pub fs_type: Vec<u8>,
    /// Subtype (of FUSE).
    pub fs_subtype: Vec<u8>,
    /// What was mounted.
    pub source: Vec<u8>,
    /// Options of the filesystem, with commas between them.
    pub options: Vec<u8>,
}

/// Ids of the mounts below mount `at` (or [`ROOT`]) in a namespace, in the order in which they were made.
///
/// # Errors
///
/// `ENOSYS` before Linux 6.8, `ENOENT` if there is no such mount, `EINVAL` for an id of the old kind (as in
/// `mountinfo`), `EPERM`.
pub fn list(namespace: u64, at: u64) -> Result<Vec<u64>> {
    let mut ids = Vec::new();
    let mut last = 0;
    loop {
        let mut batch = [0u64; BATCH];
        let request = request(namespace, at, last);
        let args = [
            &raw const request as usize,
            batch.as_mut_ptr() as usize,
            BATCH,
            0,
            0,
            0,
        ];
        // SAFETY: the kernel reads one request and writes at most `BATCH` ids, both alive.
        let got = unsafe { call(SYS_LISTMOUNT, args) }?;
        ids.extend_from_slice(batch.get(..got).ok_or(Errno::OVERFLOW)?);
        match ids.last() {
            Some(id) if got == BATCH && ids.len() < MAX_MOUNTS => last = *id,
            _ => return Ok(ids),
        }
    }
}

/// What `mask` asks for about the mount `id` in a namespace.
///
/// # Errors
///
/// As [`list`]; `EOVERFLOW` if the answer is longer than 1 MiB.
pub fn stat(namespace: u64, id: u64, mask: Mask) -> Result<Mount> {
    let request = request(namespace, id, mask.bits());
    let mut answer = vec![0u8; 4096];
    loop {
        let address = answer.as_mut_ptr() as usize;
        let args = [&raw const request as usize, address, answer.len(), 0, 0, 0];
        // SAFETY: the kernel reads one request and writes at most `answer.len()` bytes, both alive.
        match unsafe { call(SYS_STATMOUNT, args) } {
            Ok(_) => return decode(&answer),
            Err(Errno::OVERFLOW) if answer.len() < MAX_ANSWER => answer.resize(answer.len() * 4, 0),
            Err(errno) => return Err(errno),
        }
    }
}

fn request(namespace: u64, id: u64, param: u64) -> MntIdReq {
    MntIdReq {
        size: 32,
        spare: 0,
        mnt_id: id,
        param,
        mnt_ns_id: namespace,
    }
}

/// Takes an answer of `statmount` apart; what `mask` does not claim stays empty.
///
/// # Errors
///
/// `EOVERFLOW` if it is shorter than it says or a string runs out of it.
pub fn decode(answer: &[u8]) -> Result<Mount> {
    let size = u32_at(answer, offset_of!(Statmount, size))? as usize;
    let answer = answer.get(..size).ok_or(Errno::OVERFLOW)?;
    let mask = Mask::from_bits_truncate(u64_at(answer, offset_of!(Statmount, mask))?);
    let mut mount = Mount {
        mask,
        ..Mount::default()
    };
    if mask.contains(Mask::SB_BASIC) {
        let major = u32_at(answer, offset_of!(Statmount, sb_dev_major))?;
        mount.dev = (major, u32_at(answer, offset_of!(Statmount, sb_dev_minor))?);
        mount.magic = u64_at(answer, offset_of!(Statmount, sb_magic))?;
        mount.sb_flags = u32_at(answer, offset_of!(Statmount, sb_flags))?;
    }
    if mask.contains(Mask::MNT_BASIC) {
        mount.id = u64_at(answer, offset_of!(Statmount, mnt_id))?;
        mount.parent = u64_at(answer, offset_of!(Statmount, mnt_parent_id))?;
        mount.old_id = u32_at(answer, offset_of!(Statmount, mnt_id_old))?;
        mount.old_parent = u32_at(answer, offset_of!(Statmount, mnt_parent_id_old))?;
        mount.attributes = u64_at(answer, offset_of!(Statmount, mnt_attr))?;
        mount.propagation = u64_at(answer, offset_of!(Statmount, mnt_propagation))?;
        mount.peer_group = u64_at(answer, offset_of!(Statmount, mnt_peer_group))?;
        mount.master = u64_at(answer, offset_of!(Statmount, mnt_master))?;
    }
    if mask.contains(Mask::PROPAGATE_FROM) {
        mount.propagate_from = u64_at(answer, offset_of!(Statmount, propagate_from))?;
    }
    if mask.contains(Mask::MNT_NS_ID) {
        mount.namespace = u64_at(answer, offset_of!(Statmount, mnt_ns_id))?;
    }
    for (bit, at, slot) in [
        (
            Mask::MNT_ROOT,
            offset_of!(Statmount, mnt_root),
            &mut mount.root,
        ),
        (
            Mask::MNT_POINT,
            offset_of!(Statmount, mnt_point),
            &mut mount.point,
        ),
        (
            Mask::FS_TYPE,
            offset_of!(Statmount, fs_type),
            &mut mount.fs_type,
        ),
        (
            Mask::FS_SUBTYPE,
            offset_of!(Statmount, fs_subtype),
            &mut mount.fs_subtype,
        ),
        (
            Mask::SB_SOURCE,
            offset_of!(Statmount, sb_source),
            &mut mount.source,
        ),
        (
            Mask::MNT_OPTS,
            offset_of!(Statmount, mnt_opts),
            &mut mount.options,
        ),
    ] {
        if mask.contains(bit) {
            *slot = string_at(answer, u32_at(answer, at)? as usize)?;
        }
    }
    Ok(mount)
}

fn u32_at(answer: &[u8], at: usize) -> Result<u32> {
    let bytes = answer
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .ok_or(Errno::OVERFLOW)?;
    Ok(u32::from_ne_bytes(*bytes))
}

fn u64_at(answer: &[u8], at: usize) -> Result<u64> {
    let bytes = answer
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .ok_or(Errno::OVERFLOW)?;
    Ok(u64::from_ne_bytes(*bytes))
}

fn string_at(answer: &[u8], at: usize) -> Result<Vec<u8>> {
    let start = STRINGS.checked_add(at).ok_or(Errno::OVERFLOW)?;
    let rest = answer.get(start..).ok_or(Errno::OVERFLOW)?;
    let end = rest
        .iter()
        .position(|byte| *byte == 0)
        .ok_or(Errno::OVERFLOW)?;
    Ok(rest[..end].to_vec())
}

/// `NS_GET_MNTNS_ID`, `_IOR(0xb7, 5, __u64)`.
const NS_GET_MNTNS_ID: usize = 0x8008_b705;

/// Id of the mount namespace behind an open `/proc/PID/ns/mnt`, as [`list`] takes it (since Linux 6.11).
pub fn namespace_id(namespace: impl AsFd) -> Result<u64> {
    let mut id = 0u64;
    let fd = namespace.as_fd().as_raw_fd() as usize;
    // SAFETY: the kernel writes one 64-bit number; on any other descriptor the number is unknown.
    unsafe {
        call(
            libc::SYS_ioctl as usize,
            [fd, NS_GET_MNTNS_ID, &raw mut id as usize, 0, 0, 0],
        )
    }?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Mask = Mask::all();

    #[test]
    fn the_root_agrees_with_mountinfo() {
        let ids = match list(OWN_NAMESPACE, ROOT) {
            Ok(ids) => ids,
            Err(errno) => return assert_eq!(errno, Errno::NOSYS), // Linux before 6.8
        };
        let task = crate::proc::task_dir(rustix::process::getpid()).unwrap();
        let info = crate::proc::mountinfo::read(&task).unwrap();
        let mut compared = 0;
        for id in ids {
            let mount = stat(OWN_NAMESPACE, id, ALL).unwrap();
            assert_eq!(mount.id, id);
            // Another test may have mounted or unmounted meanwhile.
            let Some(same) = info.iter().find(|info| info.id as u32 == mount.old_id) else {
                continue;
            };
            assert_eq!(mount.old_parent as i32, same.parent);
            assert_eq!((&mount.root, &mount.point), (&same.root, &same.mount_point));
            assert_eq!(mount.dev, (same.dev.major, same.dev.minor));
            assert!(same.fs_type.starts_with(&mount.fs_type));
            assert_eq!(mount.peer_group as i32, same.shared);
            assert_eq!(mount.master as i32, same.master);
            compared += 1;
        }
        assert!(compared > 0);
        assert_eq!(
            stat(OWN_NAMESPACE, u64::MAX - 1, ALL).err(),
            Some(Errno::NOENT)
        );
    }

    #[test]
    fn a_namespace_has_an_id() {
        let own = std::fs::File::open("/proc/self/ns/mnt").unwrap();
        if let Ok(id) = namespace_id(&own) {
            assert_eq!(list(id, ROOT), list(OWN_NAMESPACE, ROOT));
        }
        assert_eq!(
            namespace_id(std::fs::File::open("/").unwrap()),
            Err(Errno::NOTTY)
        );
    }

    #[test]
    fn wrong_answers_are_refused() {
        let mut answer = vec![0u8; 600];
        answer[0..4].copy_from_slice(&600u32.to_ne_bytes());
        answer[8..16].copy_from_slice(&ALL.bits().to_ne_bytes());
        assert!(decode(&answer).is_ok());
        assert_eq!(decode(&answer[..599]), Err(Errno::OVERFLOW));
        answer[4] = 88;
        assert_eq!(decode(&answer), Err(Errno::OVERFLOW));
        answer[4..8].fill(0xff);
        assert_eq!(decode(&answer), Err(Errno::OVERFLOW));
        answer[512..].fill(b'x');
        assert_eq!(decode(&answer), Err(Errno::OVERFLOW));
        assert_eq!(decode(&[]), Err(Errno::OVERFLOW));
    }
}
