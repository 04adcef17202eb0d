//! Signals as a file: `signalfd(2)`.

use std::fmt;
use std::os::fd::AsFd;

use gelid_image::messages::SignalfdEntry;
use gelid_sys::signal::SigSet;
use gelid_sys::signalfd;

use super::open::{Opener, set_status};
use super::{Error, Kind};

/// The signals that a signalfd takes from whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signalfd(pub SigSet);

impl fmt::Display for Signalfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signals {:#x}", self.0.0)
    }
}

/// Takes a record; the kernel leaves out what no task can take.
pub(super) fn plan(entry: &SignalfdEntry) -> Signalfd {
    Signalfd(SigSet(entry.sigmask))
}

/// Makes all of them.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Signalfd(Signalfd(signals)) = description.kind else {
            continue;
        };
        let label = description.label();
        let fd = signalfd::create(signals);
        let fd = fd.map_err(|errno| opener.failed("make", &label, errno))?;
        let fd = opener.raise(fd, &label)?;
        set_status(fd.as_fd(), description.flags.status(), &label)?;
        opener.add(description.id, fd);
    }
    Ok(())
}
