//! Why the state of a task cannot be brought back.

use gelid_image::messages::March;
use gelid_sys::{Errno, proc};

/// State that is damaged, that this machine does not have, or that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An image lacks something.
    #[error("core-{tid}.img: {what} is missing; take another copy of the images")]
    Missing {
        /// Task or thread.
        tid: i32,
        /// What is missing.
        what: &'static str,
    },
    /// An image says what cannot be.
    #[error("core-{tid}.img: {what}; take another copy of the images")]
    Wrong {
        /// Task or thread.
        tid: i32,
        /// What cannot be.
        what: &'static str,
    },
    /// The images were made on another kind of machine.
    #[error("core-{tid}.img is of a machine of type {found:?}; restore it on such a machine")]
    Architecture {
        /// Task or thread.
        tid: i32,
        /// The type.
        found: March,
    },
    /// Something cannot be restored yet.
    #[error("task {tid}: {what} cannot be restored yet; {remedy}")]
    Unsupported {
        /// Task or thread.
        tid: i32,
        /// What it is.
        what: &'static str,
        /// What can be done.
        remedy: &'static str,
    },
    /// The processor lacks registers.
    #[error(
        "task {tid} uses {component}, which this processor does not have; restore on a machine that has it"
    )]
    Processor {
        /// Task or thread.
        tid: i32,
        /// Which registers.
        component: String,
    },
    /// The kernel lacks a call.
    #[error("task {tid} has {what}, which this kernel does not know; restore on {since} or later")]
    Kernel {
        /// The task.
        tid: i32,
        /// What it has.
        what: &'static str,
        /// The first kernel that knows it.
        since: &'static str,
    },
    /// A label of a security module that is not at work here.
    #[error(
        "task {tid} is under the label {label:?} of {module}, which is not at work on this machine; restore where it \
         is, or with --lsm-profile none: or one of the module that is"
    )]
    Label {
        /// Task or thread.
        tid: i32,
        /// The label.
        label: String,
        /// The module.
        module: String,
    },
    /// Rights are missing.
    #[error(
        "task {tid} has capabilities in its {set} set that this process lacks ({names}); restore with them"
    )]
    Capability {
        /// Task or thread.
        tid: i32,
        /// Which set.
        set: &'static str,
        /// Their names.
        names: String,
    },
    /// Somebody else could not give it to the task either.
    #[error("cannot set {what} of task {tid}: {errno}; restore as root")]
    Refused {
        /// Task or thread.
        tid: i32,
        /// What was to be set.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// A limit cannot be raised.
    #[error(
        "task {pid} has a limit of {wanted} for {resource}, this process one of {have}; restore with \
         CAP_SYS_RESOURCE, or raise the limit of this process"
    )]
    Limit {
        /// The task.
        pid: i32,
        /// The resource.
        resource: &'static str,
        /// The hard limit wanted.
        wanted: u64,
        /// What there is.
        have: u64,
    },
    /// A file of procfs did not take a value.
    #[error("cannot write {value} to /proc/{pid}/{file}: {errno}; {remedy}")]
    Outside {
        /// The task.
        pid: i32,
        /// The file.
        file: &'static str,
        /// What was to be written.
        value: String,
        /// Why.
        errno: Errno,
        /// What can be done.
        remedy: &'static str,
    },
    /// A ptrace operation failed.
    #[error("{operation} of thread {tid} failed: {errno}")]
    Thread {
        /// What was tried.
        operation: &'static str,
        /// The thread.
        tid: i32,
        /// Why.
        errno: Errno,
    },
    /// What this process has itself could not be found out.
    #[error("cannot find out {what} of this process: {errno}")]
    Own {
        /// What was wanted.
        what: &'static str,
        /// Why.
        errno: Errno,
    },
    /// A file of procfs could not be read.
    #[error(transparent)]
    Proc(#[from] proc::Error),
}
