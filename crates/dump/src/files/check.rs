//! A look at a table before anything is disturbed.

use std::os::fd::RawFd;

use gelid_sys::pidfd;
use gelid_sys::proc::{TaskDir, fd, fdinfo};
use rustix::fs::{AtFlags, OFlags, Stat, statat};

use super::kind::{self, Kind};
use super::{Error, Name, Place, Unsupported, socket};
use crate::Options;

/// Refuses what a dump of this table would refuse, as far as names and inodes tell. What comes and goes
/// meanwhile does not matter: the dump looks again.
pub(crate) fn check(options: &Options, task: &TaskDir) -> Result<(), Error> {
    let numbers = match fd::list(task) {
        Err(error) if error.is_gone() => return Ok(()),
        numbers => numbers?,
    };
    for fd in numbers {
        let Ok(link) = fd::link(task, fd) else {
            continue;
        };
        let Ok(stat) = statat(task, format!("fd/{fd}"), AtFlags::empty()) else {
            continue;
        };
        look(options, task, fd, link.into_bytes(), &stat)?;
    }
    Ok(())
}

fn look(
    options: &Options,
    task: &TaskDir,
    fd: RawFd,
    link: Vec<u8>,
    stat: &Stat,
) -> Result<(), Error> {
    let kind = match kind::of(&link, stat, false) {
        Kind::Path | Kind::Pipe | Kind::Fifo | Kind::Memory => return Ok(()),
        Kind::Eventfd | Kind::Eventpoll | Kind::Signalfd | Kind::Timerfd | Kind::Inotify => {
            return Ok(());
        }
        Kind::Socket => match family(task, fd) {
            Some(why) => Kind::Refused(why),
            None => return Ok(()),
        },
        Kind::Terminal | Kind::ControllingTerminal if options.shell_job => return Ok(()),
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
        Kind::Terminal | Kind::ControllingTerminal => Err(Error::Terminal { place, name }),
        _ => Ok(()),
    }
}

/// Why a socket would be refused.
fn family(task: &TaskDir, fd: RawFd) -> Option<Unsupported> {
    let task = pidfd::open(task.pid()).ok()?;
    let socket = pidfd::getfd(task, fd).ok()?;
    socket::refused(socket).ok()?
}
