//! Somebody who makes namespaces that the root is not to be in, as a child of it that ends again.

use std::os::fd::OwnedFd;

use gelid_sys::Pid;
use gelid_sys::namespace;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::signal::SigSet;
use gelid_sys::syscall::nr;
use gelid_tape::closing_signal;

use super::super::births::{LEADER_ROOM, tape_error};
use super::super::crew::{Body, Crew, identity};
use super::super::script::{Object, Script};
use super::Stage;
use super::keeper::child_of_the_root;
use crate::Error;
use crate::plan::births::Who;

/// Is there until it is [ended](Self::end).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maker {
    number: i32,
    pub(super) pid: Pid,
    /// How the crew knows it.
    pub(super) who: Who,
}

impl Maker {
    /// Comes to be; of those that are there at the same time each has another `place`.
    pub(super) fn born(stage: &mut Stage<'_>, place: usize) -> Result<Self, Error> {
        let who = Who::Helper(usize::MAX - place);
        let (number, task) = child_of_the_root(stage, place)?;
        let crew = &mut *stage.crew;
        let pid = task.pid();
        let above = crew.body(Who::Task(0))?.host;
        let host = crew.hosts[above].forked();
        crew.hosts.push(host);
        let host = crew.hosts.len() - 1;
        let signal = closing_signal(SigSet::EMPTY, SigSet::EMPTY);
        let boarded = crew.hosts[host].board(task, identity(number, number, signal), LEADER_ROOM);
        let carrier = boarded.map_err(|failed| tape_error(number, failed))?;
        let body = Body {
            pid,
            number,
            carrier,
            host,
        };
        crew.bodies.insert(who, body);
        Ok(Self { number, pid, who })
    }

    /// Makes a namespace. It is in it then, or its children would be if it is one of clocks.
    pub(super) fn make(&self, stage: &mut Stage<'_>, kind: Kind) -> Result<(), Error> {
        let mut script = Script::default();
        script.must(Object::Itself, nr::unshare, [namespace::flag(kind).into()]);
        self.play(stage, script)
    }

    /// Makes system calls.
    pub(super) fn play(&self, stage: &mut Stage<'_>, script: Script) -> Result<(), Error> {
        stage.crew.play(&[(self.who, script)]).map(drop)
    }

    /// Opens the one that it has made last.
    pub(super) fn open(&self, kind: Kind) -> Result<OwnedFd, Error> {
        let kind = match kind {
            Kind::Time => Kind::TimeForChildren,
            kind => kind,
        };
        Ok(ns::open(&TaskDir::open(self.pid)?, kind)?)
    }

    /// Plays nothing any more, but is there.
    pub(super) fn rest(&self, stage: &mut Stage<'_>) {
        stage.crew.bodies.remove(&self.who);
    }

    /// Is needed no more.
    pub(super) fn end(self, stage: &mut Stage<'_>) -> Result<(), Error> {
        self.rest(stage);
        self.end_resting(stage.crew)
    }

    /// The same after it has come to rest.
    pub(super) fn end_resting(self, crew: &mut Crew) -> Result<(), Error> {
        crew.end_child(Who::Task(0), self.pid, self.number)
    }
}
