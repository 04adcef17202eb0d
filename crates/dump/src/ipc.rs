//! System V IPC: segments that the tree has mapped. Section 19.5 of the format.
//!
//! In the dumper's own IPC namespace an object belongs to the host, as a file does. A segment that the tree alone is
//! attached to is recorded with its contents, since it may go with the tree; semaphores and queues stay where they are.

mod segments;

use std::fmt;

use gelid_sys::{Errno, Pid};

pub(crate) use segments::{Segments, ids};

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
    /// Somebody else is attached to a segment.
    #[error(
        "task {pid} is attached to {object}, which has {attached} attachments, {own} of them in the tree: end the \
         other processes that are attached (ipcs -mp), or choose a root above all of them"
    )]
    Outside {
        /// A task of the tree.
        pid: Pid,
        /// The segment.
        object: Object,
        /// Attachments of everybody.
        attached: u64,
        /// Those of the tree.
        own: u64,
    },
}

/// An object of System V IPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// A segment, by its id.
    Segment(i32),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(id) => write!(f, "shared memory segment {id}"),
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
