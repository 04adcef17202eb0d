//! Shared memory: `shmget(2)`, `shmctl(2)`, `shmat(2)`.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::ptr::null;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use super::{PERMISSIONS, Perm, collect};
use crate::PAGE_SIZE;
use crate::procmap::Query;
use crate::syscall::call;

/// Bit of [`Perm::mode`]: it goes once nobody is attached any more.
pub const DEST: u32 = 0o1000;
/// Bit of [`Perm::mode`]: locked into memory.
pub const LOCKED: u32 = 0o2000;
/// Flag of `shmat(2)`: for reading only.
pub const RDONLY: u32 = 0o10000;
/// Flag of `shmat(2)`: in the place of what is there.
pub const REMAP: u32 = 0o40000;

const INFO: i32 = 14;
const STAT_ANY: i32 = 15;
const HUGETLB: i32 = 0o4000;

/// A segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub id: i32,
    /// Owners, permissions, [`DEST`], [`LOCKED`].
    pub perm: Perm,
    /// Bytes asked for.
    pub size: u64,
    /// Number of attachments, which are mappings.
    pub attached: u64,
    /// Who made it.
    pub creator: i32,
    /// When it was made or given other owners.
    pub changed: i64,
}

/// All segments.
///
/// # Errors
///
/// As `shmctl(2)`.
pub fn all() -> Result<Vec<Segment>> {
    let mut info = [0_u64; 16];
    let args = [0, INFO as usize, info.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: the kernel writes a `shm_info` of 48 bytes.
    let highest = unsafe { call(libc::SYS_shmctl as usize, args) }?;
    collect(highest as i32, |place| look(place, STAT_ANY))
}

/// One segment.
///
/// # Errors
///
/// `EINVAL` or `EIDRM` if there is none of that id.
pub fn stat(id: i32) -> Result<Segment> {
    look(id, libc::IPC_STAT)
}

fn look(place: i32, command: i32) -> Result<Segment> {
    let mut found = MaybeUninit::<libc::shmid_ds>::zeroed();
    let args = [
        place as usize,
        command as usize,
        found.as_mut_ptr() as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel writes one such structure.
    let id = unsafe { call(libc::SYS_shmctl as usize, args) }?;
    // SAFETY: zeros and what the kernel has written are such a structure.
    let found = unsafe { found.assume_init() };
    Ok(Segment {
        id: if command == libc::IPC_STAT {
            place
        } else {
            id as i32
        },
        perm: found.shm_perm.into(),
        size: found.shm_segsz as u64,
        attached: found.shm_nattch,
        creator: found.shm_cpid,
        changed: found.shm_ctime,
    })
}

/// Makes a segment that was not there; `huge` is the kind of huge pages, as the bits that `MAP_HUGETLB` takes.
///
/// # Errors
///
/// `EEXIST` if the key is taken, `EINVAL`, `ENOSPC` and `ENOMEM` for limits.
pub fn create(key: i32, size: u64, mode: u32, huge: Option<u32>) -> Result<i32> {
    let mut flags = (mode & PERMISSIONS).cast_signed() | libc::IPC_CREAT | libc::IPC_EXCL;
    if let Some(kind) = huge {
        flags |= HUGETLB | kind.cast_signed();
    }
    let size = usize::try_from(size).map_err(|_| Errno::INVAL)?;
    // SAFETY: numbers alone are passed.
    let id = unsafe {
        call(
            libc::SYS_shmget as usize,
            [key as usize, size, flags as usize, 0, 0, 0],
        )
    }?;
    Ok(id as i32)
}

/// Sets owner, group and permissions.
///
/// # Errors
///
/// As `shmctl(2)` of `IPC_SET`.
pub fn own(id: i32, perm: &Perm) -> Result<()> {
    // SAFETY: a structure of numbers.
    let mut new: libc::shmid_ds = unsafe { MaybeUninit::zeroed().assume_init() };
    new.shm_perm.uid = perm.uid;
    new.shm_perm.gid = perm.gid;
    new.shm_perm.mode = (perm.mode & PERMISSIONS) as _;
    control(id, libc::IPC_SET, (&raw const new) as usize)
}

/// Locks it into memory.
///
/// # Errors
///
/// As `shmctl(2)` of `SHM_LOCK`.
pub fn lock(id: i32) -> Result<()> {
    control(id, libc::SHM_LOCK, 0)
}

/// Removes it once nobody is attached.
///
/// # Errors
///
/// As `shmctl(2)` of `IPC_RMID`.
pub fn remove(id: i32) -> Result<()> {
    control(id, libc::IPC_RMID, 0)
}

fn control(id: i32, command: i32, argument: usize) -> Result<()> {
    // SAFETY: the argument is null or a structure of the caller's, which the kernel reads.
    unsafe {
        call(
            libc::SYS_shmctl as usize,
            [id as usize, command as usize, argument, 0, 0, 0],
        )
    }?;
    Ok(())
}

/// A segment that this process is attached to, until it is dropped. Nothing of it is ever looked at through memory.
#[derive(Debug)]
pub struct Attached {
    start: usize,
}

impl Attached {
    /// Attaches to a segment.
    ///
    /// # Errors
    ///
    /// As `shmat(2)`.
    pub fn new(id: i32, write: bool) -> Result<Self> {
        let flags = if write { 0 } else { RDONLY };
        // SAFETY: a new mapping where nothing is; no reference is ever made into it.
        let start = unsafe {
            call(
                libc::SYS_shmat as usize,
                [id as usize, null::<u8>() as usize, flags as usize, 0, 0, 0],
            )
        }?;
        Ok(Self { start })
    }

    /// Opens the memory as a file, by the link in `/proc/self/map_files`.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_CHECKPOINT_RESTORE`.
    pub fn open(&self, write: bool) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let maps = rustix::fs::open("/proc/self/maps", flags, Mode::empty())?;
        let found = Query::new(maps).next_from(self.start as u64)?;
        let map = found.ok_or(Errno::NOENT)?.map;
        let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let name = format!("/proc/self/map_files/{:x}-{:x}", map.start, map.end);
        rustix::fs::open(name, flags | OFlags::CLOEXEC, Mode::empty())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: it was attached by `new`, and nothing refers into it.
        let gone = unsafe { call(libc::SYS_shmdt as usize, [self.start, 0, 0, 0, 0, 0]) };
        debug_assert!(gone.is_ok());
    }
}

/// The id of a segment and what `maps` calls it: `/SYSV` and the key, eight hexadecimal digits, ` (deleted)`.
#[must_use]
pub fn is_name(path: &[u8]) -> bool {
    let key = path.strip_prefix(b"/SYSV");
    let key = key.and_then(|rest| rest.strip_suffix(b" (deleted)"));
    key.is_some_and(|key| key.len() == 8 && key.iter().all(u8::is_ascii_hexdigit))
}

/// Bytes of memory that a segment of `size` bytes takes, in small pages.
#[must_use]
pub fn extent(size: u64) -> u64 {
    size.next_multiple_of(PAGE_SIZE as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_segment_is_made_looked_at_and_removed() {
        let id = create(0, 5000, 0o640, None).unwrap();
        let attached = Attached::new(id, true).unwrap();
        let file = File::from(attached.open(true).unwrap());
        file.write_all_at(b"word", 4096).unwrap();
        let found = stat(id).unwrap();
        assert_eq!(
            (found.size, found.attached, found.perm.mode),
            (5000, 1, 0o640)
        );
        assert_eq!(found.creator, rustix::process::getpid().as_raw_pid());
        assert!(all().unwrap().contains(&found));
        own(
            id,
            &Perm {
                uid: 1,
                gid: 2,
                mode: 0o604,
                ..found.perm
            },
        )
        .unwrap();
        remove(id).unwrap();
        let found = stat(id).unwrap().perm;
        assert_eq!((found.uid, found.gid, found.mode), (1, 2, 0o604 | DEST));
        drop(attached);
        stat(id).unwrap_err();
        let mut word = [0; 4];
        file.read_exact_at(&mut word, 4096).unwrap();
        assert_eq!(&word, b"word");
    }

    #[test]
    fn names_of_segments_are_known() {
        assert!(is_name(b"/SYSV0012abcd (deleted)"));
        for other in [
            &b"/SYSV0012abcd"[..],
            b"/SYSV12 (deleted)",
            b"/SYSV0012abcx (deleted)",
        ] {
            assert!(!is_name(other));
        }
        assert_eq!(extent(1), 4096);
    }
}
