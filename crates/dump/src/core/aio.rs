//! Contexts of kernel AIO, `io_setup(2)`. Section 8.1 of the format.
//!
//! A ring is a mapping; a `fork(2)` leaves it to the child, without the context. Whether a process has one only it can
//! ask. How many requests are under way nobody tells: they are noticed when one of them ends.

use gelid_image::messages::AioRingEntry;
use gelid_sys::Pid;
use gelid_sys::aio::{HEADER, Header};
use gelid_sys::proc::smaps::Area;
use gelid_sys::syscall::nr;
use gelid_sys::vm::Mem;
use gelid_tape::{Op, Tape};

use super::call::Answers;
use super::{Cores, Error};
use crate::vma::{self, Kind};

/// The rings of a process, and whether it has their contexts.
#[derive(Debug)]
pub(super) struct AskedRings(Vec<(u64, Header, Op)>);

/// The rings that a process has mapped, and what they are like.
pub(super) fn look(pid: Pid, areas: &[Area]) -> Result<Vec<(u64, Header)>, Error> {
    let areas = areas.iter().filter(|area| vma::kind(area) == Kind::Aio);
    let rings = areas.map(|area| {
        let start = area.map.start;
        let header = header(pid, start)?;
        match header.size() == area.map.size() {
            true => Ok((start, header)),
            false => Err(odd(pid)),
        }
    });
    rings.collect()
}

impl AskedRings {
    pub(super) fn ask(rings: Vec<(u64, Header)>, tape: &mut Tape) -> Self {
        let rings = rings.into_iter().map(|(start, header)| {
            // Not a single event is asked for.
            let args = [start.into(), 0.into(), 0.into(), 0.into(), 0.into()];
            (start, header, tape.call(nr::io_getevents, args))
        });
        Self(rings.collect())
    }

    pub(super) fn answer(&self, answers: Answers<'_>) -> Result<Vec<Ring>, Error> {
        let rings = self.0.iter().map(|(start, before, context)| {
            if answers.may(*context, "io_getevents")?.is_none() {
                return Err(Error::Unsupported {
                    tid: answers.tid,
                    what: "the ring of an AIO context that it has not, since a fork",
                    remedy: "unmap it, or exec",
                });
            }
            Ok(Ring {
                start: *start,
                header: *before,
            })
        });
        rings.collect()
    }
}

/// A ring, and what it was like when it was first looked at.
#[derive(Debug)]
pub(crate) struct Ring {
    start: u64,
    header: Header,
}

impl Ring {
    /// Its record.
    pub(crate) fn entry(&self) -> AioRingEntry {
        AioRingEntry {
            id: self.start,
            nr_req: self.header.requests(),
            ring_len: self.header.size() as u32,
        }
    }
}

/// Refuses rings that an event has come to since: there are requests under way, and what was read of the ring may be
/// older or newer than that.
pub(crate) fn settled(cores: &[Cores]) -> Result<(), Error> {
    for process in cores {
        for ring in &process.rings {
            if header(process.living, ring.start)? != ring.header {
                return Err(Error::Unsupported {
                    tid: process.living,
                    what: "AIO requests that are under way",
                    remedy: "try again",
                });
            }
        }
    }
    Ok(())
}

fn header(pid: Pid, start: u64) -> Result<Header, Error> {
    let mut bytes = [0; HEADER];
    let read = Mem::open(pid).and_then(|mem| mem.read(start, &mut bytes));
    read.map_err(|errno| Error::Thread {
        tid: pid,
        object: "the ring of an AIO context",
        errno,
    })?;
    Header::read(&bytes).ok_or_else(|| odd(pid))
}

fn odd(pid: Pid) -> Error {
    Error::Unsupported {
        tid: pid,
        what: "the ring of an AIO context, which makes no sense",
        remedy: "io_destroy it first",
    }
}
