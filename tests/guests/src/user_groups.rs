//! Supplementary groups in user namespaces below that of the root where `setgroups(2)` is denied.
//!
//! `users-groups`: those from before that, two levels deep. `users-groups-mixed`: of several who have come there with
//! others, which is refused.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Gate, Guest, until};
use crate::users::{become_user, ended, fork_with, hold, leave, stay};
use std::fs;
use std::os::fd::AsRawFd;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("users-groups", groups),
    Entry("users-groups-mixed", mixed_groups),
];

/// Says that nobody sets groups in a user namespace that this process has come with.
fn deny() -> Check {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", "0 0 1")?;
    Ok(fs::write("/proc/self/gid_map", "0 0 1")?)
}

fn groups(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let kid = guest.fork("kid", |guest| {
        become_user([0; 3], [0; 3], &[4, 5])?;
        leave(libc::CLONE_NEWUSER)?;
        deny()?;
        let both = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
        let deeper = fork_with(guest, "deeper", both, |guest| {
            deny()?;
            os!(libc::setsid())?;
            let last = guest.fork("last", |guest| stay(guest, &gate))?;
            stay(guest, &gate)?;
            last.join(guest)
        })?;
        stay(guest, &gate)?;
        ended(guest, deeper, "deeper")
    })?;
    hold(guest, gate, 3, &[kid])
}

fn mixed_groups(guest: &Guest) -> Check {
    let gate = Gate::new()?;
    let kid = guest.fork("kid", |guest| {
        let both = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
        become_user([0; 3], [0; 3], &[4, 5])?;
        let one = fork_with(guest, "one", both, |guest| {
            deny()?;
            os!(libc::setsid())?;
            fs::write(guest.path("there"), "")?;
            stay(guest, &gate)
        })?;
        let there = guest.path("there");
        until("its maps", || Ok(there.exists()))?;
        os!(libc::setgroups(1, [9].as_ptr()))?;
        let users = fs::File::open(format!("/proc/{one}/ns/user"))?;
        os!(libc::setns(users.as_raw_fd(), libc::CLONE_NEWUSER))?;
        drop(users);
        let two = fork_with(guest, "two", libc::CLONE_NEWPID, |guest| {
            os!(libc::setsid())?;
            stay(guest, &gate)
        })?;
        stay(guest, &gate)?;
        ended(guest, one, "one")?;
        ended(guest, two, "two")
    })?;
    hold(guest, gate, 3, &[kid])
}
