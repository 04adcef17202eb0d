//! Files in `/proc` of processes that have ended: opened while somebody else has the number, who ends then.

use gelid_sys::clone::fork_sleeper;
use gelid_sys::{Errno, Pid};
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};

use super::Error;
use crate::play::namespaces::Birthplace;

/// Somebody with the number of a process that has ended, for a while.
#[derive(Debug)]
pub(super) struct StandIn(Pid);

impl StandIn {
    /// Comes to be.
    pub(super) fn born(
        number: u32,
        place: Option<&Birthplace>,
        object: &str,
    ) -> Result<Self, Error> {
        let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else {
            let rule = "no process has such a number";
            return Err(Error::invalid(object, "remap_id", number, rule));
        };
        let inside = place.map(Birthplace::enter).transpose();
        let born = inside.and_then(|_inside| fork_sleeper(Some(pid), false));
        match born {
            Ok(pid) => Ok(Self(pid)),
            Err(Errno::EXIST) => Err(Error::NumberTaken {
                object: object.to_owned(),
                pid: number,
            }),
            Err(errno) => Err(Error::system("stand in for the process of", object)(errno)),
        }
    }
}

impl StandIn {
    /// As this process sees it.
    pub(super) fn pid(&self) -> i32 {
        self.0.as_raw_pid()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // It is a child of this process that does nothing: it can be ended and waited for.
        let _ = kill_process(self.0, Signal::KILL);
        while let Err(Errno::INTR) = waitpid(Some(self.0), WaitOptions::empty()) {}
    }
}
