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
use super::super::crew::{Body, identity};
use super::super::script::{Object, Script};
use super::Stage;
use super::keeper::{child_of_the_root, end_child};
use crate::Error;
use crate::plan::births::Who;

/// Is there until it is [ended](Self::end).
#[derive(Debug)]
pub(super) struct Maker {
    number: i32,
    pub(super) pid: Pid,
}

/// How the crew knows it; there is never another one.
const MAKER: Who = Who::Helper(usize::MAX);

impl Maker {
    /// Comes to be.
    pub(super) fn born(stage: &mut Stage<'_>) -> Result<Self, Error> {
        let (number, task) = child_of_the_root(stage)?;
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
        crew.bodies.insert(MAKER, body);
        Ok(Self { number, pid })
    }

    /// Makes a namespace. It is in it then, or its children would be if it is one of clocks.
    pub(super) fn make(&self, stage: &mut Stage<'_>, kind: Kind) -> Result<(), Error> {
        let mut script = Script::default();
        script.must(Object::Itself, nr::unshare, [namespace::flag(kind).into()]);
        stage.crew.play(&[(MAKER, script)]).map(drop)
    }

    /// Opens the one that it has made last.
    pub(super) fn open(&self, kind: Kind) -> Result<OwnedFd, Error> {
        let kind = match kind {
            Kind::Time => Kind::TimeForChildren,
            kind => kind,
        };
        Ok(ns::open(&TaskDir::open(self.pid)?, kind)?)
    }

    /// Is needed no more.
    pub(super) fn end(self, stage: &mut Stage<'_>) -> Result<(), Error> {
        stage.crew.bodies.remove(&MAKER);
        end_child(stage.crew, self.pid, self.number)
    }
}
