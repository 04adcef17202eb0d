//! Why the state of a task could not be had.

use gelid_sys::{Errno, Pid, proc};

/// A failure to learn the state of a task or thread, which runs on as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something that images cannot tell.
    #[error(transparent)]
    Refused(#[from] crate::Refusal),
    /// A task could not play its tape.
    #[error("task {tid}: {source}")]
    Tape {
        /// Task or thread.
        tid: Pid,
        /// Why.
        source: gelid_tape::Error,
    },
    /// A call that the task itself made failed.
    #[error("{call} in task {tid} failed: {errno}")]
    Call {
        /// Task or thread.
        tid: Pid,
        /// What was asked for.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// A thread could not be asked from outside.
    #[error("cannot read {object} of thread {tid}: {errno}")]
    Thread {
        /// The thread.
        tid: Pid,
        /// What was to be read.
        object: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The dumper could not find out about itself or the machine.
    #[error("cannot find out {what}: {errno}")]
    Own {
        /// What was wanted.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
    /// Something that images cannot tell.
    #[error("task {tid} uses {what}, which is not dumped yet: {remedy}")]
    Unsupported {
        /// Task or thread.
        tid: Pid,
        /// What it is.
        what: &'static str,
        /// What can be done.
        remedy: &'static str,
    },
    /// A thread is not there that was stopped.
    #[error("thread {tid} was killed while it was dumped")]
    Gone {
        /// The thread.
        tid: Pid,
    },
    /// A file of procfs could not be read.
    #[error(transparent)]
    Proc(#[from] proc::Error),
}
