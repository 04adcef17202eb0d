//! Objects of System V IPC: found again or made under their ids, filled, and given back if the restore fails.

mod segments;

use std::fmt;

use gelid_sys::Errno;
use gelid_sys::ipc::Perm;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use crate::Error;
pub(crate) use segments::Segments;

/// An object of System V IPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpcObject {
    /// A segment of shared memory, by its id.
    Segment(i32),
}

impl fmt::Display for IpcObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(id) => write!(f, "shared memory segment {id}"),
        }
    }
}

fn failed(operation: &'static str, object: IpcObject) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Ipc {
        operation,
        object,
        errno,
    }
}

/// Makes something as the user that it was made by, who is known as its creator for ever.
fn as_creator<T: Send>(
    perm: &Perm,
    make: impl FnOnce() -> Result<T, Errno> + Send,
) -> Result<T, Errno> {
    if (perm.cuid, perm.cgid) == (geteuid().as_raw(), getegid().as_raw()) {
        return make();
    }
    // These belong to a thread, whatever the C library says; this one has no other purpose.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(perm.cuid), Gid::from_raw(perm.cgid));
            set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
            set_thread_res_gid(getegid(), gid, getegid())?;
            set_thread_res_uid(geteuid(), uid, geteuid())?;
            make()
        });
        thread.join().unwrap_or(Err(Errno::CHILD))
    })
}
