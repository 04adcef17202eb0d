//! Whose a file system is: the user namespace in which it may be changed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

use crate::aside;
use crate::namespace::join;
use crate::proc::ns::Kind;
use crate::syscall::call;

/// `_IOWR('X', 119, int)`
const FIFREEZE: usize = 0xc004_5877;

/// How many are asked about by one child.
const AT_ONCE: usize = 32;

/// Of each of some file systems that cannot be frozen, as those in memory, by a directory in it: whether somebody in a
/// user namespace may do with it what he likes. That is so if it belongs to this one, or to one below.
///
/// A file system that can be frozen belongs to nobody but the first user namespace; with that one, this would freeze it.
///
/// # Errors
///
/// As `fork(2)` and `setns(2)`.
pub fn is_ruled_by(users: BorrowedFd<'_>, dirs: &[impl AsFd]) -> Result<Vec<bool>> {
    let mut all = Vec::with_capacity(dirs.len());
    for dirs in dirs.chunks(AT_ONCE) {
        let told = aside::ask(|| {
            join(users, Kind::User)?;
            let mut told = [0; AT_ONCE];
            for (told, dir) in told.iter_mut().zip(dirs) {
                *told = i32::from(may_freeze(dir.as_fd())?);
            }
            Ok(told)
        })?;
        all.extend(told.iter().take(dirs.len()).map(|told| *told != 0));
    }
    Ok(all)
}

/// The kernel looks who asks before it looks whether it can be done.
fn may_freeze(dir: BorrowedFd<'_>) -> Result<bool> {
    let args = [dir.as_raw_fd() as usize, FIFREEZE, 0, 0, 0, 0];
    // SAFETY: the request takes no argument.
    match unsafe { call(libc::SYS_ioctl as usize, args) } {
        Err(Errno::PERM) => Ok(false),
        Ok(_) | Err(Errno::OPNOTSUPP) => Ok(true),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone::{flags, fork_inside};
    use crate::proc::{TaskDir, ns};
    use rustix::process::{Signal, WaitOptions, kill_process, waitpid};

    #[test]
    fn the_machines_are_not_those_of_a_namespace() {
        let Ok(first) = fork_inside(flags::NEWUSER, None, false) else {
            return; // Not allowed here.
        };
        let users = ns::open(&TaskDir::open(first).unwrap(), Kind::User);
        let dirs: [std::fs::File; 0] = [];
        let none = is_ruled_by(users.as_ref().unwrap().as_fd(), &dirs);
        let dirs: Vec<_> = (0..40)
            .map(|_| std::fs::File::open("/proc").unwrap())
            .collect();
        let told = is_ruled_by(users.unwrap().as_fd(), &dirs);
        kill_process(first, Signal::KILL).unwrap();
        waitpid(Some(first), WaitOptions::empty()).unwrap();
        assert_eq!((none, told), (Ok(vec![]), Ok(vec![false; 40])));
    }
}
