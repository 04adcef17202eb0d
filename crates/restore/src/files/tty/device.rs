//! Consoles, virtual terminals and serial lines, which are opened again.

use std::os::fd::AsFd;

use gelid_sys::tty::{self, Termios};
use rustix::termios::Winsize;

use super::super::open::{Opener, set_status};
use super::super::place::Place;
use super::super::{Error, Kind};
use super::job::Before;
use super::{Session, Terminal};

/// The state of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Device {
    /// Its number as the kernel encodes it.
    pub(super) rdev: u32,
    pub(super) settings: Option<Termios>,
    pub(super) size: Option<Winsize>,
    pub(super) exclusive: bool,
    pub(super) session: Option<Session>,
}

/// Opens all devices.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    let mut first = None;
    for description in plan.descriptions.values() {
        let Kind::Terminal(Terminal::Device { key, name }) = &description.kind else {
            continue;
        };
        let object = description.label();
        let flags = description.flags;
        let opened = opener
            .names
            .open(&Place::Path(name.clone()), flags.to_open())
            .map_err(|errno| opener.failed("open", &object, errno))?;
        let fd = opener.raise(opened, &object)?;
        set_status(fd.as_fd(), flags.status(), &object)?;
        if let Some(device) = plan.terminals.devices.get(key)
            && first.replace(*key) != Some(*key)
        {
            device.apply(opener, fd.as_fd(), &object)?;
            if let Some(session) = device.session {
                let own = opener.again(fd.as_fd(), &object)?;
                opener.of_sessions.insert(session.sid, own);
            }
        }
        opener.add(description.id, fd);
    }
    Ok(())
}

impl Device {
    fn apply(
        &self,
        opener: &mut Opener<'_>,
        fd: std::os::fd::BorrowedFd<'_>,
        object: &str,
    ) -> Result<(), Error> {
        let stat = rustix::fs::fstat(fd).map_err(Error::system("examine", object))?;
        let (major, minor) = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        if minor & 0xff | major << 8 | (minor & !0xff) << 12 != self.rdev {
            return Err(Error::Changed {
                object: object.to_owned(),
                what: "device",
                recorded: format!("{:x}", self.rdev),
                found: format!("{major:x}:{minor:x}"),
                remedy: "bring that device back",
            });
        }
        let failed = |operation| Error::system(operation, object);
        if let Some(settings) = &self.settings {
            let before = tty::settings(fd).map_err(failed("read the settings of"))?;
            if before != *settings {
                opener
                    .before
                    .push(Before::new(opener.again(fd, object)?, before));
                tty::set_settings(fd, settings).map_err(failed("change the settings of"))?;
            }
        }
        if let Some(size) = self.size
            && rustix::termios::tcgetwinsize(fd).is_ok_and(|now| now != size)
        {
            rustix::termios::tcsetwinsize(fd, size).map_err(failed("set the size of"))?;
        }
        if self.exclusive {
            rustix::termios::ioctl_tiocexcl(fd).map_err(failed("make exclusive"))?;
        }
        Ok(())
    }
}
