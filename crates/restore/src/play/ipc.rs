//! Objects of System V IPC, and POSIX message queues: found again or made under their ids, filled, and given back if
//! the restore fails.

mod posix;
mod queues;
mod segments;
mod sets;
mod settings;
mod undo;

use std::fmt;

use gelid_image::Dir;
use gelid_image::manifest::Manifest;
use gelid_pages::{Filler, Filling};
use gelid_sys::Errno;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use crate::Error;
use crate::plan::ipc::Ipc;
use segments::Segments;
pub(crate) use undo::redo;

/// An object of System V IPC, or something like it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpcObject {
    /// A segment of shared memory, by its id.
    Segment(i32),
    /// A set of semaphores, by its id.
    Set(i32),
    /// A message queue, by its id.
    Queue(i32),
    /// A POSIX message queue, by its name without a slash.
    Posix(String),
    /// A setting of the namespace, by its name in `/proc/sys`.
    Setting(&'static str),
}

impl fmt::Display for IpcObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(id) => write!(f, "shared memory segment {id}"),
            Self::Set(id) => write!(f, "the set {id} of semaphores"),
            Self::Queue(id) => write!(f, "message queue {id}"),
            Self::Posix(name) => write!(f, "the POSIX message queue /{name}"),
            Self::Setting(name) => write!(f, "the setting {name} of the IPC namespace"),
        }
    }
}

fn failed(operation: &'static str, object: IpcObject) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Ipc {
        operation,
        object,
        errno,
    }
}

/// Refuses an object that has got another id than it was to have.
fn under_its_id(id: i32, made: i32, object: IpcObject) -> Result<(), Error> {
    match made == id {
        true => Ok(()),
        false => Err(failed("make under its id", object)(Errno::EXIST)),
    }
}

/// All objects, on their way back. Segments that were made go again when this is dropped, unless they are kept.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    segments: Segments,
}

impl Objects {
    /// Finds or makes everything, in the namespace that the calling thread is in.
    pub(crate) fn make(plan: &Ipc) -> Result<Self, Error> {
        if plan.variables.is_some() {
            settings::widen(plan.root)?;
        }
        sets::make(&plan.sets)?;
        queues::make(&plan.queues)?;
        let variables = plan.variables.iter();
        for variables in variables {
            posix::make(&variables.posix)?;
        }
        let segments = Segments::make(&plan.segments)?;
        Ok(Self { segments })
    }

    /// Starts filling the segments.
    pub(crate) fn fill(
        &self,
        plan: &Ipc,
        images: (&Dir, Option<&Manifest>),
        filler: &Filler,
    ) -> Result<Vec<Filling>, Error> {
        self.segments.fill(&plan.segments, images, filler)
    }

    /// Does what must wait until segments are filled and all tasks are attached.
    pub(crate) fn complete(&self, plan: &Ipc) -> Result<(), Error> {
        segments::complete(&plan.segments)?;
        match &plan.variables {
            Some(variables) => settings::restore(variables, plan.root),
            None => Ok(()),
        }
    }

    /// They stay.
    pub(crate) fn keep(self) {
        self.segments.keep();
    }
}

/// Does something as a user and group, but with all capabilities. Objects know for ever by whom they were made.
fn as_user<T: Send>(
    (uid, gid): (u32, u32),
    act: impl FnOnce() -> Result<T, Errno> + Send,
) -> Result<T, Errno> {
    if (uid, gid) == (geteuid().as_raw(), getegid().as_raw()) {
        return act();
    }
    // These belong to a thread, whatever the C library says; this one has no other purpose.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
            set_thread_res_gid(getegid(), gid, getegid())?;
            set_thread_res_uid(geteuid(), uid, geteuid())?;
            act()
        });
        thread.join().unwrap_or(Err(Errno::CHILD))
    })
}
