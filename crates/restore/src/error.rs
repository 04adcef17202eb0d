//! Why a restore failed. Whatever had been made by then is gone again.

use std::path::PathBuf;

use gelid_image::manifest::{Damage, ManifestError};
use gelid_pages::{FillError, ReadError as PagesError, SetError};
use gelid_sys::{Errno, Pid, proc};

use crate::hook::Hook;
use crate::phase::Phase;
use crate::plan::PlanError;
use crate::play::ipc::IpcObject;
use crate::play::namespaces::net::NetError;
use crate::play::script::Object;
use crate::{files, state};

/// A restore that did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A namespace that the caller gives cannot be joined.
    #[error("--join-ns: cannot {operation} the {kind} namespace {}: {errno}", .path.display())]
    Given {
        /// What was tried.
        operation: &'static str,
        /// Its kind.
        kind: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The pid namespace of the tree is to come from the caller.
    #[error(
        "the pid namespace {key} is not given: --inherit-fd 'fd[N]:{key}', or --join-ns pid:PATH"
    )]
    NotGiven {
        /// The key that the dump has recorded.
        key: String,
    },
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An image is not what the dump wrote.
    #[error("{directory}: {damage}; take another copy of the images")]
    Damaged {
        /// The image directory.
        directory: String,
        /// What is wrong.
        damage: Damage,
    },
    /// Files could not be opened.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// The state of a task could not be set.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A network namespace could not be made.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Pages could not be opened.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// A file of pages is missing or cannot be opened, here or in an earlier set.
    #[error(transparent)]
    Sets(#[from] SetError),
    /// An image is missing or cannot be opened.
    #[error(transparent)]
    Image(#[from] gelid_image::ReadError),
    /// Pages could not be put in place.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// A pid of the image is in use.
    #[error("pid {pid} is taken by {comm:?}; end that, or restore in a pid namespace")]
    PidTaken {
        /// The pid.
        pid: i32,
        /// Who has it.
        comm: String,
        /// Nobody seems to, or a zombie that is yet to be reaped: it may be free in a moment.
        passing: bool,
    },
    /// A task could not be created or taken under control.
    #[error("{operation} for task {pid} failed: {errno}")]
    Task {
        /// What was tried.
        operation: &'static str,
        /// The task.
        pid: i32,
        /// Why.
        errno: Errno,
    },
    /// A system call in a task failed.
    #[error("task {pid}: {call} for {object} failed: {errno}")]
    Call {
        /// The task.
        pid: i32,
        /// Name of the system call.
        call: String,
        /// What it was for.
        object: Object,
        /// Why.
        errno: Errno,
    },
    /// A task could not play its tape.
    #[error("task {pid}: {source}")]
    Tape {
        /// The task.
        pid: i32,
        /// Why.
        source: gelid_tape::Error,
    },
    /// A file of procfs could not be read.
    #[error(transparent)]
    Proc(#[from] proc::Error),
    /// A task ended while it was being built.
    #[error("task {pid} ended while it was being restored ({status:?})")]
    Ended {
        /// The task.
        pid: Pid,
        /// How.
        status: gelid_sys::wait::Status,
    },
    /// This machine's vDSO cannot stand in for the one of the image.
    #[error("task {pid}: {what}; restore on a machine with the kernel of the dump")]
    Vdso {
        /// The task.
        pid: i32,
        /// What does not fit.
        what: &'static str,
    },
    /// The images name a file that was not opened.
    #[error("task {pid} refers to file {id}, which files.img does not have")]
    NoSuchFile {
        /// The task.
        pid: i32,
        /// Its id.
        id: u32,
    },
    /// A cgroup could not be made, entered or set up.
    #[error(
        "cannot {operation} cgroup {path} of hierarchy {hierarchy:?}: {errno}; --manage-cgroups says what is done \
         with groups, =ignore leaves tasks in those of the restore"
    )]
    Cgroup {
        /// What was tried.
        operation: &'static str,
        /// The hierarchy, as `/proc/PID/cgroup` calls it.
        hierarchy: String,
        /// Path of the group.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// An object of System V IPC could not be brought back.
    #[error("cannot {operation} {object}: {errno}{}", ipc_remedy(*.errno))]
    Ipc {
        /// What was tried.
        operation: &'static str,
        /// The object.
        object: IpcObject,
        /// Why.
        errno: Errno,
    },
    /// An object of System V IPC is there, and cannot be the one of the images.
    #[error("{object} {what}; {remedy}")]
    IpcTaken {
        /// The object.
        object: IpcObject,
        /// What is the matter with it.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A mount of the tree could not be made.
    #[error("cannot {operation} {object}: {errno}")]
    Mount {
        /// What was tried.
        operation: &'static str,
        /// With what.
        object: String,
        /// Why.
        errno: Errno,
    },
    /// The directory that is the root for paths cannot be opened.
    #[error("cannot open the root directory {path}: {errno}")]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// Somebody who was told objected.
    #[error("{hook}: {source}")]
    Hook {
        /// Of what.
        hook: Hook,
        /// The objection.
        source: std::io::Error,
    },
    /// A fault that was asked for.
    #[error("stopped on purpose in the phase {phase}")]
    Fault {
        /// The phase.
        phase: Phase,
    },
}

/// What to do about an errno of System V IPC, as the end of a sentence.
fn ipc_remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::EXIST => "; its id or key is taken: see ipcs, or restore in an IPC namespace",
        Errno::NOSPC | Errno::INVAL => "; see the limits of the system (ipcs -l)",
        Errno::ACCESS | Errno::PERM => "; run the restore as root",
        _ => "",
    }
}
