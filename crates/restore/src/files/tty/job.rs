//! The terminal of the restore, which stands in for the one that a shell job was started from.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gelid_sys::proc;
use gelid_sys::tty::{self, Termios};
use rustix::io::Errno;

use super::super::open::{Opener, set_status};
use super::super::place::Place;
use super::super::{Error, Flags, Kind, Name};
use super::{Settings, Terminal};

/// The settings a terminal had before the restore; dropped, it gets them back.
#[derive(Debug)]
pub(in super::super) struct Before {
    terminal: OwnedFd,
    settings: Option<Termios>,
}

impl Before {
    /// To be given back if the restore fails.
    pub(super) fn new(terminal: OwnedFd, settings: Termios) -> Self {
        Self {
            terminal,
            settings: Some(settings),
        }
    }

    /// Leaves the terminal as it is now.
    pub(in super::super) fn forget(mut self) {
        self.settings = None;
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        if let Some(settings) = &self.settings {
            // A terminal that has gone needs no settings.
            let _ = tty::set_settings(&self.terminal, settings);
        }
    }
}

/// Opens what stands in for the terminal of a job.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    let mut wanted = None;
    for description in plan.descriptions.values() {
        let Kind::Terminal(terminal) = &description.kind else {
            continue;
        };
        let label = description.label();
        let opened = match terminal {
            Terminal::Controlling(name) => opener.controlling(name, description.flags, &label)?,
            Terminal::Job(settings) => {
                wanted = wanted.or(*settings);
                own(opener, description.flags, &label)?
            }
            _ => continue,
        };
        opener.add(description.id, opened);
    }
    if let (Some(settings), Some(terminal)) = (wanted, opener.terminal) {
        let before = set(opener, terminal, &settings)?;
        opener.before.extend(before);
    }
    Ok(())
}

/// The terminal of the restore, once more.
pub(super) fn own(opener: &Opener<'_>, flags: Flags, object: &str) -> Result<OwnedFd, Error> {
    let own = opener.terminal.filter(|fd| rustix::termios::isatty(fd));
    let own = own.ok_or_else(|| Error::NoTerminal {
        object: object.to_owned(),
    })?;
    open_own(opener, own, flags, object)
}

/// A description of its own of the terminal, as the tree had one; the same one where it cannot be opened.
fn open_own(
    opener: &Opener<'_>,
    terminal: BorrowedFd<'_>,
    flags: Flags,
    object: &str,
) -> Result<OwnedFd, Error> {
    match opener.reopen(terminal, flags, object) {
        Err(Error::System {
            errno: Errno::IO | Errno::NXIO | Errno::ACCESS | Errno::NOENT | Errno::PERM,
            ..
        }) => opener.again(terminal, object),
        opened => opened,
    }
}

/// Gives the terminal the settings that the tree had made, if the restore is in the foreground: a shell
/// that has put it into the background does so itself later.
fn set(
    opener: &Opener<'_>,
    terminal: BorrowedFd<'_>,
    settings: &Settings,
) -> Result<Option<Before>, Error> {
    let object = "the terminal";
    let own = proc::task_dir(rustix::process::getpid()).and_then(|task| proc::stat::read(&task));
    let foreground = rustix::termios::tcgetpgrp(terminal).map(|group| group.as_raw_pid());
    // The own group is 0 if its leader lives outside the pid namespace: `getpgrp` of rustix cannot say so.
    if !own.is_ok_and(|own| Ok(own.pgrp) == foreground) {
        return Ok(None);
    }
    let before = tty::settings(terminal).map_err(Error::system("read the settings of", object))?;
    tty::set_settings(terminal, &settings.at_speed_of(&before))
        .map_err(Error::system("change the settings of", object))?;
    Ok(Some(Before::new(opener.again(terminal, object)?, before)))
}

impl Opener<'_> {
    /// Opens `/dev/tty`.
    fn controlling(&self, name: &Name, flags: Flags, object: &str) -> Result<OwnedFd, Error> {
        let place = Place::Path(name.clone());
        let opened = self.names.open(&place, flags.to_open());
        let opened = opened.map_err(|errno| match errno {
            Errno::NXIO => Error::NoTerminal {
                object: object.to_owned(),
            },
            errno => self.failed("open", object, errno),
        })?;
        let fd = self.raise(opened, object)?;
        set_status(fd.as_fd(), flags.status(), object)?;
        Ok(fd)
    }
}
