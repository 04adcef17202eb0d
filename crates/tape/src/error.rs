//! What can go wrong while a tape is set up or played.

use gelid_sys::{Errno, Pid};

/// Failure of an operation on the task that carries a tape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The task was killed meanwhile.
    #[error("task {tid} was killed while it carried a tape")]
    Gone {
        /// Thread id as the tracer sees it.
        tid: Pid,
    },
    /// A ptrace or memory operation on the task failed.
    #[error("{operation} of task {tid} failed: {errno}")]
    Task {
        /// What was tried.
        operation: &'static str,
        /// Thread id as the tracer sees it.
        tid: Pid,
        /// Why.
        errno: Errno,
    },
    /// The task has its system calls turned into signals, a tape's too.
    #[error(
        "task {tid} diverts system calls (PR_SET_SYSCALL_USER_DISPATCH) of all code but a range, and is in code whose calls \
         are diverted: try again when it is in a call that passes"
    )]
    Diverted {
        /// Thread id as the tracer sees it.
        tid: Pid,
    },
    /// A thread is still on its way back from the tape of a tracer that has died.
    #[error(
        "a thread of task {tid} has not come back yet from a dump that was killed; send it SIGCONT, and stop it \
         again afterwards"
    )]
    Away {
        /// Thread id as the tracer sees it.
        tid: Pid,
    },
    /// No executable mapping has unused bytes at its end to put the stub in.
    #[error(
        "task {tid} has no executable page with {need} unused bytes at its end (no vDSO?); \
         start it with the vDSO mapped"
    )]
    NoCave {
        /// Thread id as the tracer sees it.
        tid: Pid,
        /// Bytes wanted.
        need: usize,
    },
    /// Neither a new mapping nor the spare range given holds the tape.
    #[error(
        "task {tid} has no room for {need} bytes of tape: mapping failed ({errno}), no spare range is large enough"
    )]
    NoRoom {
        /// Thread id as the tracer sees it.
        tid: Pid,
        /// Bytes wanted.
        need: usize,
        /// Why the mapping was refused.
        errno: Errno,
    },
    /// The tape is larger than the room the carrier was given.
    #[error("a tape of {size} bytes does not fit the {room} bytes that task {tid} has for it")]
    TooLong {
        /// Thread id as the tracer sees it.
        tid: Pid,
        /// Bytes of the tape.
        size: usize,
        /// Bytes of room.
        room: usize,
    },
    /// A lone system call in the task failed.
    #[error("system call {nr} in task {tid} failed: {errno}")]
    Call {
        /// Thread id as the tracer sees it.
        tid: Pid,
        /// Number of the system call.
        nr: usize,
        /// Why.
        errno: Errno,
    },
}
