//! A look at a table before anything is disturbed.

mod large;

use std::cell::LazyCell;
use std::ffi::CString;
use std::os::fd::{OwnedFd, RawFd};

use gelid_sys::pidfd;
use gelid_sys::proc::{TaskDir, fd, fdinfo};
use gelid_sys::sockopt::{self, IntOption};
use rustix::fs::{AtFlags, FileType, OFlags, Stat, statat};

use super::kind::{self, Kind};
use super::{Error, Name, Place, Unsupported, bpf_map, fanotify, inet, socket};
use crate::Options;

/// Refuses what a dump of this table would refuse, as far as names and inodes tell. What comes and goes
/// meanwhile does not matter: the dump looks again.
pub(crate) fn check(options: &Options, task: &TaskDir) -> Result<(), Error> {
    if let Some(table) = large::Table::of(options, task) {
        return table.check();
    }
    let numbers = match fd::list(task) {
        Err(error) if error.is_gone() => return Ok(()),
        numbers => numbers?,
    };
    let pidfd = LazyCell::new(|| pidfd::open(task.pid()).ok());
    for fd in numbers {
        let Ok(link) = fd::link(task, fd) else {
            continue;
        };
        let Ok(stat) = statat(task, format!("fd/{fd}"), AtFlags::empty()) else {
            continue;
        };
        // `/proc/locks` would tell of all at once, after a grace period of RCU: 5 to 25 ms.
        if !options.file_locks && is_lockable(&stat) {
            unlocked(task, fd, || Some(link.clone()))?;
        }
        let duplicate = || pidfd::getfd(pidfd.as_ref()?, fd).ok();
        look(options, task, fd, link.into_bytes(), &stat, duplicate)?;
    }
    Ok(())
}

/// Whether programs lock files of this kind.
fn is_lockable(stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    matches!(kind, FileType::RegularFile | FileType::Directory)
}

/// Refuses a descriptor that has part in a lock.
fn unlocked(
    task: &TaskDir,
    fd: RawFd,
    link: impl FnOnce() -> Option<CString>,
) -> Result<(), Error> {
    let Ok(info) = fdinfo::read(task, fd) else {
        return Ok(());
    };
    let Some((lock, link)) = info.value("lock").and_then(|lock| Some((lock, link()?))) else {
        return Ok(());
    };
    let pid = task.pid();
    Err(Error::Locked {
        place: Place::Descriptor { pid, fd },
        name: Name(link.into_bytes()),
        lock: Name(lock.to_vec()),
    })
}

fn look(
    options: &Options,
    task: &TaskDir,
    fd: RawFd,
    link: Vec<u8>,
    stat: &Stat,
    duplicate: impl FnOnce() -> Option<OwnedFd>,
) -> Result<(), Error> {
    let kind = match kind::of(&link, stat, false) {
        Kind::Path | Kind::Pipe | Kind::Fifo | Kind::Memory => return Ok(()),
        Kind::Eventfd | Kind::Eventpoll | Kind::Signalfd | Kind::Timerfd | Kind::Inotify => {
            return Ok(());
        }
        Kind::Fanotify => match fdinfo::read(task, fd) {
            Ok(info) if fanotify::decides(&info) => Kind::Refused(Unsupported::FanotifyPermission),
            _ => return Ok(()),
        },
        Kind::BpfMap => match duplicate().and_then(bpf_map::refused) {
            Some(why) => Kind::Refused(why),
            None => return Ok(()),
        },
        // Of whom it is can be told when the tree is known.
        Kind::Pidfd => return Ok(()),
        Kind::Socket => {
            let Some(socket) = duplicate() else {
                return Ok(());
            };
            let Ok(family) = sockopt::int(&socket, IntOption::DOMAIN) else {
                return Ok(());
            };
            if socket::is_inet(family)
                && let Some(why) = inet::unexpected(options, &socket)
            {
                let (pid, name) = (task.pid(), Name(link));
                let place = Place::Descriptor { pid, fd };
                return Err(Error::Internet { place, name, why });
            }
            match socket::refused(family, socket) {
                Ok(Some(why)) => Kind::Refused(why),
                _ => return Ok(()),
            }
        }
        Kind::Namespace(_) | Kind::Tun => return Ok(()),
        // Whether its other end is in the tree is seen when that is frozen.
        Kind::Terminal(_) => return Ok(()),
        _ => {
            // A path to a device is no open device.
            let Ok(info) = fdinfo::read(task, fd) else {
                return Ok(());
            };
            kind::of(&link, stat, info.flags & OFlags::PATH.bits() != 0)
        }
    };
    let place = Place::Descriptor {
        pid: task.pid(),
        fd,
    };
    let name = Name(link);
    match kind {
        Kind::Refused(why) => Err(Error::Unsupported { place, name, why }),
        _ => Ok(()),
    }
}
