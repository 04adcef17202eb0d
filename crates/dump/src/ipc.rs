//! System V IPC, and POSIX message queues of namespaces. Section 19.5 of the format.
//!
//! An IPC namespace of the tree's own is recorded with everything that is in it.
//!
//! In the dumper's own IPC namespace an object belongs to the host, as a file does. A segment that the tree alone is
//! attached to is recorded with its contents, since it may go with the tree; semaphores and queues stay where they are.

mod posix;
mod queues;
mod segments;
mod sets;
mod variables;

use std::fmt;

use gelid_image::messages::IpcDescEntry;
use gelid_image::{ImageKind, Staging};
use gelid_sys::ipc::Perm;
use gelid_sys::ipc::shm::{self, Segment};
use gelid_sys::{Errno, Pid};

use crate::Error as DumpError;
use crate::namespace::Users;
pub(crate) use posix::device_of;
pub(crate) use segments::Segments;

/// Why System V IPC of a tree cannot be dumped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {operation} {object}: {errno}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What it was tried with.
        object: Object,
        /// What the kernel said.
        errno: Errno,
    },
    /// A mapping looks like one of a segment, and is none.
    #[error(
        "task {pid}: mapping {start:x}-{end:x} is called like System V shared memory, but is none of this IPC \
         namespace: unmap it first"
    )]
    NoSegment {
        /// The task.
        pid: Pid,
        /// First address.
        start: u64,
        /// Address behind the last.
        end: u64,
    },
    /// What is in a queue cannot be looked at.
    #[error(
        "{object} holds {count} messages, which cannot be looked at without being taken: let the program receive \
         them first"
    )]
    Unread {
        /// The queue.
        object: Object,
        /// Messages in it.
        count: u64,
    },
    /// A message is longer than one may be by now.
    #[error(
        "message queue {id} holds a message that is longer than kernel.msgmax of its IPC namespace; the kernel shows no \
         such message: raise that setting first"
    )]
    Long {
        /// The queue.
        id: i32,
    },
    /// A look at a segment would be its end.
    #[error(
        "{object} would be gone with the next who detaches from it, as kernel.shm_rmid_forced is set and nobody is \
         attached: attach to it, or clear that setting first"
    )]
    Forced {
        /// The segment.
        object: Object,
    },
    /// Somebody else is attached to a segment.
    #[error(
        "{}{object} has {attached} attachments, {own} of them in the tree: end the other processes that are \
         attached (ipcs -mp), or choose a root above all of them",
        .pid.map(|pid| format!("task {pid}: ")).unwrap_or_default()
    )]
    Outside {
        /// A task of the tree that is attached to it.
        pid: Option<Pid>,
        /// The segment.
        object: Object,
        /// Attachments of everybody.
        attached: u64,
        /// Those of the tree.
        own: u64,
    },
}

/// An object of System V IPC.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// A segment, by its id.
    Segment(i32),
    /// A set of semaphores, by its id.
    Set(i32),
    /// A message queue, by its id.
    Queue(i32),
    /// A POSIX message queue, by its name without a slash.
    Posix(String),
    /// A setting of the namespace, by its name in `/proc/sys`.
    Setting(&'static str),
    /// All of a kind.
    Every(&'static str),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(id) => write!(f, "shared memory segment {id}"),
            Self::Set(id) => write!(f, "the set {id} of semaphores"),
            Self::Queue(id) => write!(f, "message queue {id}"),
            Self::Posix(name) => write!(f, "the POSIX message queue /{name}"),
            Self::Setting(name) => write!(f, "the setting {name} of the IPC namespace"),
            Self::Every(kind) => write!(f, "the {kind} of the IPC namespace"),
        }
    }
}

/// What makes an error of an errno.
fn failed(operation: &'static str, object: Object) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::System {
        operation,
        object,
        errno,
    }
}

/// Records everything that is in the namespace that the calling thread is in, but for the contents of segments; gives
/// these.
pub(crate) fn record(
    staging: &Staging,
    namespace: u32,
    users: &Users,
) -> Result<Vec<Segment>, DumpError> {
    let every = Object::Every("shared memory segments");
    let segments = shm::all().map_err(failed("list", every))?;
    let mut variables = variables::read()?;
    if variables.shm_rmid_forced != 0
        && let Some(segment) = segments.iter().find(|segment| segment.attached == 0)
    {
        let object = Object::Segment(segment.id);
        return Err(Error::Forced { object }.into());
    }
    variables.mqueue = posix::list(users)?;
    staging.put(ImageKind::IpcVar, namespace, &variables)?;
    let mut writer = staging.writer(ImageKind::IpcnsSem, namespace)?;
    sets::record(&mut writer, users)?;
    writer.finish()?;
    let mut writer = staging.writer(ImageKind::IpcnsMsg, namespace)?;
    queues::record(&mut writer, users)?;
    writer.finish()?;
    Ok(segments)
}

/// What all objects have.
fn description(perm: &Perm, id: i32, users: &Users) -> IpcDescEntry {
    IpcDescEntry {
        key: perm.key.cast_unsigned(),
        uid: users.uid(perm.uid),
        gid: users.gid(perm.gid),
        cuid: users.uid(perm.cuid),
        cgid: users.gid(perm.cgid),
        mode: perm.mode,
        id: id.cast_unsigned(),
    }
}
