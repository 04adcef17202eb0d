//! System V semaphores of the host.
//!
//! `sem-undo`: processes with operations that are undone when they end. `sem-blocked`: a process that waits for one.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Gate, Guest, same, until, wait_blocked};
use std::fs;

pub(crate) const GUESTS: &[Entry] = &[Entry("sem-undo", undo), Entry("sem-blocked", blocked)];

/// A set of this guest's, removed at the end.
pub(crate) struct Set {
    id: i32,
    owner: u32,
}

impl Set {
    pub(crate) fn new(values: &[u16]) -> Check<Self> {
        let count = i32::try_from(values.len()).unwrap_or(0);
        let id = os!(libc::semget(libc::IPC_PRIVATE, count, 0o600))?;
        let owner = std::process::id();
        let set = Self { id, owner };
        os!(libc::semctl(id, 0, libc::SETALL, values.as_ptr()))?;
        Ok(set)
    }

    pub(crate) fn change(&self, number: u16, by: i16, flags: i32) -> Check {
        let mut operation = libc::sembuf {
            sem_num: number,
            sem_op: by,
            sem_flg: flags as i16,
        };
        os!(libc::semop(self.id, &raw mut operation, 1))?;
        Ok(())
    }

    pub(crate) fn values<const N: usize>(&self) -> Check<[u16; N]> {
        let mut values = [0; N];
        os!(libc::semctl(self.id, 0, libc::GETALL, values.as_mut_ptr()))?;
        Ok(values)
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            // SAFETY: numbers are passed.
            unsafe { libc::semctl(self.id, 0, libc::IPC_RMID) };
        }
    }
}

pub(crate) fn undo(guest: &Guest) -> Check {
    const UNDO: i32 = libc::SEM_UNDO;
    let set = Set::new(&[5, 0, 300, 32767, 32767])?;
    let gate = Gate::new()?;
    let kid = guest.fork("kid", |guest| {
        set.change(0, -2, UNDO)?;
        set.change(1, 7, UNDO)?;
        set.change(3, -32767, UNDO)?;
        gate.arrive()?;
        until("the end", || Ok(guest.path("end").exists()))
    })?;
    gate.wait(1)?;
    set.change(0, -1, UNDO)?;
    set.change(2, -17, UNDO)?;
    // Nothing is left of it.
    set.change(4, -3, UNDO)?;
    set.change(4, 3, UNDO)?;
    same!("before", set.values()?, [2, 7, 283, 0, 32767]);
    guest.hold()?;
    same!("after", set.values()?, [2, 7, 283, 0, 32767]);
    fs::write(guest.path("end"), "")?;
    kid.join(guest)?;
    same!("undone", set.values()?, [4, 0, 283, 32767, 32767]);
    // What is to be undone of our own is as it was: exactly so much more can be added to it.
    let most = 32767 - 17;
    set.change(2, most - 283, 0)?;
    set.change(2, -most, UNDO)?;
    let more = set
        .change(2, 1, 0)
        .and_then(|()| set.change(2, -1, UNDO | libc::IPC_NOWAIT));
    same!("one more", more.is_err(), true);
    Ok(())
}

fn blocked(guest: &Guest) -> Check {
    let set = Set::new(&[0])?;
    let kid = guest.fork("kid", |_| set.change(0, -1, 0))?;
    wait_blocked(kid.pid, libc::SYS_semtimedop)?;
    guest.hold()?;
    set.change(0, 1, 0)?;
    kid.join(guest)?;
    same!("value", set.values()?, [0]);
    Ok(())
}
