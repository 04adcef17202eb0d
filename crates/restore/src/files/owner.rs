//! Who gets signals about a file: `F_SETOWN_EX` and `F_SETSIG`.

use std::os::fd::BorrowedFd;

use gelid_image::messages::FownEntry;
use gelid_sys::fown::{self, OwnerKind};
use rustix::io::Errno;
use rustix::process::Uid;

use super::Error;
use gelid_sys::Pid;

/// Highest signal number.
const LAST_SIGNAL: u32 = 64;

/// Whom the kernel tells about a file, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Kind and number of the owner; 0 is nobody.
    pub to: fown::Owner,
    /// Real and effective user who set it.
    pub users: (u32, u32),
    /// Signal; 0 is the default one.
    pub signal: i32,
}

/// Whether a record says anything.
pub(crate) fn is_set(entry: &FownEntry) -> bool {
    (entry.pid, entry.signum) != (0, 0)
}

/// Checks a record.
pub(crate) fn plan(object: &str, entry: &FownEntry) -> Result<Owner, Error> {
    let kind = match entry.pid_type {
        _ if entry.pid == 0 => OwnerKind::Process,
        0 => OwnerKind::Thread,
        1 => OwnerKind::Process,
        2 => OwnerKind::Group,
        other => {
            let rule = "an owner is a thread, a process or a group (0 to 2)";
            return Err(Error::invalid(object, "fown.pid_type", other, rule));
        }
    };
    let Ok(pid) = i32::try_from(entry.pid) else {
        let rule = "no process has such a number";
        return Err(Error::invalid(object, "fown.pid", entry.pid, rule));
    };
    if entry.signum > LAST_SIGNAL {
        let rule = "signals are 0 to 64";
        return Err(Error::invalid(object, "fown.signum", entry.signum, rule));
    }
    Ok(Owner {
        to: fown::Owner { kind, pid },
        users: (entry.uid, entry.euid),
        signal: entry.signum.cast_signed(),
    })
}

impl Owner {
    /// Sets owner and signal. The owner must exist.
    pub(crate) fn apply(
        &self,
        object: &str,
        fd: BorrowedFd<'_>,
        pids: &dyn Fn(i32) -> Option<Pid>,
    ) -> Result<(), Error> {
        if self.signal != 0 {
            fown::set_signal(fd, self.signal)
                .map_err(Error::system("set the signal of", object))?;
        }
        if self.to.pid == 0 {
            return Ok(());
        }
        let to = fown::Owner {
            pid: pids(self.to.pid).map_or(0, Pid::as_raw_pid),
            ..self.to
        };
        as_users(self.users, || fown::set_owner(fd, to))
            .map_err(Error::system("set the owner of", object))
    }
}

/// Runs `act` with the real and effective user of somebody else. Only the calling thread changes. Where
/// that is not allowed it acts as itself: then the rights of a later signal are those of the restorer.
fn as_users<T>(
    (uid, euid): (u32, u32),
    act: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let own = (rustix::process::getuid(), rustix::process::geteuid());
    let theirs = (Uid::from_raw(uid), Uid::from_raw(euid));
    // -1 would leave the user as it is.
    if own == theirs || uid == u32::MAX || euid == u32::MAX {
        return act();
    }
    // The saved one stays, and with it the right to come back.
    let switched = rustix::thread::set_thread_res_uid(theirs.0, theirs.1, own.1);
    let done = act();
    if switched.is_ok() {
        rustix::thread::set_thread_res_uid(own.0, own.1, own.1)?;
    }
    done
}
