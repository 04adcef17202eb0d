//! System V IPC: `sysvipc(7)`. Everything here concerns the IPC namespace of the calling thread.

use std::io;

use rustix::io::{Errno, Result};

pub mod msg;
pub mod sem;
pub mod shm;

/// The three kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Shared memory.
    Shm,
    /// Sets of semaphores.
    Sem,
    /// Queues of messages.
    Msg,
}

impl Kind {
    /// Asks that the next object of the kind that is made gets this id, if nobody has it: `/proc/sys/kernel/*_next_id`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a negative id, `EACCES` without `CAP_CHECKPOINT_RESTORE` in the user namespace of the IPC namespace,
    /// `ENOENT` on a kernel without `CONFIG_CHECKPOINT_RESTORE`.
    pub fn choose_id(self, id: i32) -> Result<()> {
        if id < 0 {
            return Err(Errno::INVAL);
        }
        let name = match self {
            Self::Shm => "shm",
            Self::Sem => "sem",
            Self::Msg => "msg",
        };
        let path = format!("/proc/sys/kernel/{name}_next_id");
        let written = std::fs::write(path, id.to_string());
        written.map_err(|error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

/// Identity, owners and permissions of an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Perm {
    /// What it is found by; 0 for nothing.
    pub key: i32,
    /// Owner.
    pub uid: u32,
    /// Group of the owner.
    pub gid: u32,
    /// Who made it.
    pub cuid: u32,
    /// Group of who made it.
    pub cgid: u32,
    /// Permissions, and above them flags of the kind.
    pub mode: u32,
}

impl From<libc::ipc_perm> for Perm {
    fn from(perm: libc::ipc_perm) -> Self {
        Self {
            key: perm.__key,
            uid: perm.uid,
            gid: perm.gid,
            cuid: perm.cuid,
            cgid: perm.cgid,
            mode: u32::from(perm.mode),
        }
    }
}

/// The bits of a mode that say who may do what.
pub const PERMISSIONS: u32 = 0o777;

/// What objects at all places up to the highest have to tell, but for those that vanish meanwhile.
fn collect<T>(highest: i32, mut look: impl FnMut(i32) -> Result<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for place in 0..=highest {
        match look(place) {
            Ok(found) => all.push(found),
            Err(Errno::INVAL | Errno::IDRM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_left_out() {
        let look = |place| match place {
            1 => Err(Errno::INVAL),
            _ => Ok(place),
        };
        assert_eq!(collect(2, look), Ok(vec![0, 2]));
        assert_eq!(collect(-1, look), Ok(vec![]));
        let broken = |_| Err::<i32, _>(Errno::ACCESS);
        assert_eq!(collect(0, broken), Err(Errno::ACCESS));
    }

    #[test]
    fn no_object_has_a_negative_id() {
        assert_eq!(Kind::Shm.choose_id(-1), Err(Errno::INVAL));
    }
}
