//! Semaphores: `semget(2)`, `semctl(2)`. Operations of `semop(2)` are for tapes.

use std::mem::MaybeUninit;

use rustix::io::{Errno, Result};

use super::{PERMISSIONS, Perm, collect};
use crate::syscall::call;

/// The most that a semaphore can be (`SEMVMX`), and that undoing can add.
pub const MOST: u16 = 32767;
/// The most semaphores in a set that a kernel allows by default (`SEMMSL`).
pub const MOST_IN_SET: u32 = 32000;
/// Flag of an operation: it is not waited for.
pub const NOWAIT: u16 = 0o4000;
/// Flag of an operation: it is undone when the process ends.
pub const UNDO: u16 = 0x1000;

const STAT_ANY: i32 = 20;
const INFO: i32 = 19;
const GETALL: i32 = 13;
const SETALL: i32 = 17;
const GETPID: i32 = 11;

/// A set of semaphores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set {
    /// Its number.
    pub id: i32,
    /// Owners and permissions.
    pub perm: Perm,
    /// How many there are.
    pub count: u32,
}

/// An operation on a semaphore, `struct sembuf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Operation {
    /// Which one of the set.
    pub number: u16,
    /// What is added; 0 waits for zero.
    pub change: i16,
    /// [`NOWAIT`], [`UNDO`].
    pub flags: u16,
}

const _: () = assert!(size_of::<Operation>() == size_of::<libc::sembuf>());

impl Operation {
    /// As it lies in memory.
    #[must_use]
    pub fn as_bytes(&self) -> [u8; 6] {
        let mut bytes = [0; 6];
        bytes[..2].copy_from_slice(&self.number.to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.change.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.flags.to_ne_bytes());
        bytes
    }
}

/// All sets.
///
/// # Errors
///
/// As `semctl(2)`.
pub fn all() -> Result<Vec<Set>> {
    let mut info = [0_u64; 16];
    // SAFETY: the kernel writes a `seminfo` of 40 bytes.
    let highest = unsafe { control(0, 0, INFO, info.as_mut_ptr() as usize) }?;
    collect(highest as i32, |place| look(place, STAT_ANY))
}

/// One set.
///
/// # Errors
///
/// `EINVAL` or `EIDRM` if there is none of that id.
pub fn stat(id: i32) -> Result<Set> {
    look(id, libc::IPC_STAT)
}

fn look(place: i32, command: i32) -> Result<Set> {
    let mut found = MaybeUninit::<libc::semid_ds>::zeroed();
    // SAFETY: the kernel writes one such structure.
    let id = unsafe { control(place, 0, command, found.as_mut_ptr() as usize) }?;
    // SAFETY: zeros and what the kernel has written are such a structure.
    let found = unsafe { found.assume_init() };
    Ok(Set {
        id: if command == libc::IPC_STAT {
            place
        } else {
            id as i32
        },
        perm: found.sem_perm.into(),
        count: found.sem_nsems as u32,
    })
}

/// Makes a set that was not there.
///
/// # Errors
///
/// `EEXIST` if the key is taken, `EINVAL` and `ENOSPC` for limits.
pub fn create(key: i32, count: u32, mode: u32) -> Result<i32> {
    let flags = (mode & PERMISSIONS).cast_signed() | libc::IPC_CREAT | libc::IPC_EXCL;
    let args = [key as usize, count as usize, flags as usize, 0, 0, 0];
    // SAFETY: numbers alone are passed.
    let id = unsafe { call(libc::SYS_semget as usize, args) }?;
    Ok(id as i32)
}

/// Sets owner, group and permissions.
///
/// # Errors
///
/// As `semctl(2)` of `IPC_SET`.
pub fn own(id: i32, perm: &Perm) -> Result<()> {
    // SAFETY: a structure of numbers.
    let mut new: libc::semid_ds = unsafe { MaybeUninit::zeroed().assume_init() };
    new.sem_perm.uid = perm.uid;
    new.sem_perm.gid = perm.gid;
    new.sem_perm.mode = (perm.mode & PERMISSIONS) as _;
    // SAFETY: the kernel reads one such structure.
    unsafe { control(id, 0, libc::IPC_SET, (&raw const new) as usize) }?;
    Ok(())
}

/// The values of all semaphores.
///
/// # Errors
///
/// As `semctl(2)` of `GETALL`; `EAGAIN` if there are others than `set` says.
pub fn values(set: &Set) -> Result<Vec<u16>> {
    if stat(set.id)?.count != set.count {
        return Err(Errno::AGAIN);
    }
    let mut values = vec![0_u16; set.count as usize];
    // SAFETY: a set keeps its id and its number of semaphores, for which there is room; an id that is used again has
    // another sequence number.
    unsafe { control(set.id, 0, GETALL, values.as_mut_ptr() as usize) }?;
    Ok(values)
}

/// Sets all of them; whatever was to be undone is forgotten.
///
/// # Errors
///
/// As `semctl(2)` of `SETALL`; `EINVAL` if there are not as many as in the set.
pub fn set_values(id: i32, values: &[u16]) -> Result<()> {
    if usize::try_from(stat(id)?.count) != Ok(values.len()) {
        return Err(Errno::INVAL);
    }
    // SAFETY: there are as many values as the kernel reads.
    unsafe { control(id, 0, SETALL, values.as_ptr() as usize) }?;
    Ok(())
}

/// Who has changed a semaphore last; 0 for nobody.
///
/// # Errors
///
/// As `semctl(2)` of `GETPID`.
pub fn last(id: i32, number: u16) -> Result<i32> {
    // SAFETY: numbers alone are passed.
    Ok(unsafe { control(id, number.into(), GETPID, 0) }? as i32)
}

/// Removes a set.
///
/// # Errors
///
/// As `semctl(2)` of `IPC_RMID`.
pub fn remove(id: i32) -> Result<()> {
    // SAFETY: numbers alone are passed.
    unsafe { control(id, 0, libc::IPC_RMID, 0) }?;
    Ok(())
}

/// # Safety
///
/// `argument` must be what the command takes.
unsafe fn control(id: i32, number: i32, command: i32, argument: usize) -> Result<usize> {
    let args = [
        id as usize,
        number as usize,
        command as usize,
        argument,
        0,
        0,
    ];
    // SAFETY: the caller vouches for the argument.
    unsafe { call(libc::SYS_semctl as usize, args) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_made_looked_at_and_removed() {
        let id = create(0, 3, 0o600).unwrap();
        set_values(id, &[1, 2, MOST]).unwrap();
        assert_eq!(set_values(id, &[1]), Err(Errno::INVAL));
        let found = stat(id).unwrap();
        assert_eq!((found.count, found.perm.mode), (3, 0o600));
        assert!(all().unwrap().contains(&found));
        assert_eq!(values(&found), Ok(vec![1, 2, MOST]));
        let own_pid = rustix::process::getpid().as_raw_pid();
        assert_eq!(last(id, 1), Ok(own_pid));
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
        let owned = stat(id).unwrap().perm;
        assert_eq!((owned.uid, owned.gid, owned.mode), (1, 2, 0o604));
        remove(id).unwrap();
        stat(id).unwrap_err();
    }

    #[test]
    fn operations_are_those_of_the_kernel() {
        let operation = Operation {
            number: 1,
            change: -2,
            flags: UNDO,
        };
        assert_eq!(operation.as_bytes(), [1, 0, 0xfe, 0xff, 0, 0x10]);
    }
}
