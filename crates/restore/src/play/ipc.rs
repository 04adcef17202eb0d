//! Objects of System V IPC, and POSIX message queues: found again or made under their ids, filled, and given back if
//! the restore fails.

mod posix;
mod queues;
mod segments;
mod sets;
mod settings;
mod undo;

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gelid_pages::{Filler, Filling, Sets};
use gelid_sys::Errno;
use gelid_sys::proc::ns::Kind;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use super::namespaces::further::Made;
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

/// How often an object is made that gets another id than it was to have.
const TRIES: usize = 64;

/// Makes an object under its id, as `creator`. The id that was chosen is that of whoever makes the next one: if somebody
/// else has come between, what was made instead is removed, and it is made once more.
fn under_its_id(
    (id, object): (i32, impl Fn() -> IpcObject),
    creator: (u32, u32),
    make: impl Fn() -> Result<i32, Errno> + Sync,
    remove: impl Fn(i32) -> Result<(), Errno>,
) -> Result<(), Error> {
    for _ in 0..TRIES {
        let made = as_user(creator, &make).map_err(failed("make", object()))?;
        if made == id {
            return Ok(());
        }
        remove(made).map_err(failed("remove what is not under the id of", object()))?;
        back_off();
    }
    Err(failed("make under its id", object())(Errno::EXIST))
}

/// Waits for up to a millisecond, so that two who are in each other's way do not stay so.
fn back_off() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = now.unwrap_or_default().subsec_nanos();
    std::thread::sleep(Duration::from_micros(u64::from(nanoseconds % 1000)));
}

/// All objects, on their way back. Segments that were made go again when this is dropped, unless they are kept.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    segments: Segments,
    nested: BTreeMap<u32, (OwnedFd, Segments)>,
}

impl Objects {
    /// Finds or makes everything, in the namespace that the calling thread is in and in those of other tasks.
    pub(crate) fn make(plan: &Ipc, further: &Made) -> Result<Self, Error> {
        let mut objects = Self {
            segments: make(plan)?,
            nested: BTreeMap::new(),
        };
        for (id, namespace) in further.of(Kind::Ipc) {
            let Some(nested) = plan.nested.get(&id) else {
                continue;
            };
            let segments = inside(namespace, || {
                let mut segments = make(nested)?;
                segments.leave();
                Ok(segments)
            })?;
            let namespace = namespace.try_clone_to_owned();
            let namespace = namespace.map_err(|_| lost(Errno::MFILE))?;
            objects.nested.insert(id, (namespace, segments));
        }
        Ok(objects)
    }

    /// Starts filling the segments.
    pub(crate) fn fill(
        &self,
        plan: &Ipc,
        images: &Sets,
        filler: &Filler,
    ) -> Result<Vec<Filling>, Error> {
        let mut filling = self.segments.fill(&plan.segments, images, filler)?;
        for (id, (_, segments)) in &self.nested {
            if let Some(nested) = plan.nested.get(id) {
                filling.extend(segments.fill(&nested.segments, images, filler)?);
            }
        }
        Ok(filling)
    }

    /// Does what must wait until segments are filled and all tasks are attached.
    pub(crate) fn complete(&self, plan: &Ipc) -> Result<(), Error> {
        complete(plan)?;
        for (id, (namespace, _)) in &self.nested {
            if let Some(nested) = plan.nested.get(id) {
                inside(namespace.as_fd(), || complete(nested))?;
            }
        }
        Ok(())
    }

    /// They stay.
    pub(crate) fn keep(self) {
        self.segments.keep();
    }
}

fn make(plan: &Ipc) -> Result<Segments, Error> {
    if plan.variables.is_some() {
        settings::widen(plan.root)?;
    }
    sets::make(&plan.sets)?;
    queues::make(&plan.queues)?;
    let variables = plan.variables.iter();
    for variables in variables {
        posix::make(&variables.posix)?;
    }
    Segments::make(&plan.segments)
}

fn complete(plan: &Ipc) -> Result<(), Error> {
    segments::complete(&plan.segments)?;
    match &plan.variables {
        Some(variables) => settings::restore(variables, plan.root),
        None => Ok(()),
    }
}

/// Does something in a thread that has joined a namespace.
fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    job: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    gelid_sys::namespace::inside(namespace, Kind::Ipc, lost, job)
}

fn lost(errno: Errno) -> Error {
    Error::Task {
        operation: "joining the IPC namespace of a task",
        pid: 0,
        errno,
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use gelid_sys::ipc::{self, shm};

    use super::*;

    #[test]
    fn whoever_else_makes_objects_meanwhile_every_one_gets_its_id() {
        let both = Barrier::new(2);
        // At places far above those that are in use.
        let make_some = |first: i32| {
            both.wait();
            for id in (first..).step_by(1 << 15).take(200) {
                let make = || {
                    ipc::Kind::Shm.choose_id(id)?;
                    std::thread::yield_now();
                    shm::create(0, 4096, 0o600, None)
                };
                let creator = (geteuid().as_raw(), getegid().as_raw());
                let object = || IpcObject::Segment(id);
                under_its_id((id, object), creator, make, shm::remove).unwrap();
                shm::remove(id).unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| make_some(30_001));
            make_some(30_002);
        });
    }

    #[test]
    fn an_id_that_is_taken_stays_taken() {
        let removed = std::cell::Cell::new(0);
        let remove = |_| {
            removed.set(removed.get() + 1);
            Ok(())
        };
        let creator = (geteuid().as_raw(), getegid().as_raw());
        let made = under_its_id((7, || IpcObject::Set(7)), creator, || Ok(8), remove);
        let error = made.unwrap_err().to_string();
        assert!(
            error.contains("the set 7") && error.contains("taken"),
            "{error}"
        );
        assert_eq!(removed.get(), TRIES);
    }
}
