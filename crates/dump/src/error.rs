//! Why a dump failed. Whatever the reason, the tree runs on as it was.

use std::path::PathBuf;

use gelid_image::{ReadError, WriteError};
use gelid_pages::{SetError, StoreError};
use gelid_seize::ThawError;
use gelid_sys::{Errno, Pid, proc};

use crate::{CoreError, FilesError, Hook, IpcError, NetError, Phase, Refusal};

/// A dump that did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tree could not be frozen.
    #[error(transparent)]
    Freeze(#[from] gelid_seize::Error),
    /// Something in the tree cannot be restored faithfully.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file of procfs could not be read.
    #[error(transparent)]
    Proc(#[from] proc::Error),
    /// A file of the system could not be read.
    #[error("cannot read {file}: {source}")]
    System {
        /// The file.
        file: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// What two tasks share could not be found out.
    #[error("cannot compare {object} of tasks {a} and {b}: {errno}")]
    Compare {
        /// What was to be compared.
        object: &'static str,
        /// A task.
        a: Pid,
        /// Another.
        b: Pid,
        /// What `kcmp(2)` said.
        errno: Errno,
    },
    /// A process could not be held by a descriptor.
    #[error("cannot open process {pid} (pidfd_open): {errno}")]
    Pidfd {
        /// The process.
        pid: Pid,
        /// What the kernel said.
        errno: Errno,
    },
    /// The pages of a task could not be listed.
    #[error("cannot scan the pages of task {pid}: {errno}; PAGEMAP_SCAN needs Linux 6.7")]
    Scan {
        /// The task.
        pid: Pid,
        /// What the kernel said.
        errno: Errno,
    },
    /// Memory of a task could not be read.
    #[error("cannot read {object} of task {pid}: {errno}")]
    Memory {
        /// The task.
        pid: Pid,
        /// What was to be read.
        object: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// The extent of shared memory could not be found out.
    #[error("cannot find the data of shared memory object {shmid:#x}: {errno}")]
    Shared {
        /// Its id in the images.
        shmid: u64,
        /// What `lseek(2)` said.
        errno: Errno,
    },
    /// What only a task itself can tell could not be had.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// A descriptor, executable or mapped file could not be dumped.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// System V IPC could not be dumped.
    #[error(transparent)]
    Ipc(#[from] IpcError),
    /// A network namespace could not be dumped.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Pages could not be stored.
    #[error(transparent)]
    Pages(#[from] StoreError),
    /// Earlier images cannot be compared with.
    #[error("earlier images: {0}")]
    Earlier(#[from] SetError),
    /// The directory of earlier images cannot be read.
    #[error("earlier images: {}: {source}", .path.display())]
    EarlierImages {
        /// Where it is, relative to that of the images.
        path: PathBuf,
        /// The cause.
        source: ReadError,
    },
    /// Pages are to be in CRIU's own form, and those of earlier images are not.
    #[error(
        "earlier images: {} has packed pages, which raw ones cannot follow: use --compress=zstd",
        .path.display()
    )]
    EarlierPacked {
        /// Where they are, relative to the images.
        path: PathBuf,
    },
    /// An image could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The tree could not be killed or let go.
    #[error(transparent)]
    Thaw(#[from] ThawError),
    /// A namespace could not be entered to look at it.
    #[error("cannot join the {kind} namespace of task {pid} (setns): {errno}")]
    Join {
        /// The task.
        pid: Pid,
        /// The kind of namespace.
        kind: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// A mount of the tree could not be looked into.
    #[error("cannot {operation} mount {point} of the tree: {errno}")]
    Mount {
        /// What was tried.
        operation: &'static str,
        /// Where it is.
        point: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// What is in a file system of the tree could not be recorded.
    #[error("cannot archive what is in mount {point} of the tree: {source}")]
    Archive {
        /// Where it is.
        point: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A cgroup of the tree could not be recorded.
    #[error(
        "cannot {operation} cgroup {path} of hierarchy {hierarchy:?}: {errno}; --manage-cgroups=ignore leaves \
         cgroups as they are"
    )]
    Cgroup {
        /// What was tried.
        operation: &'static str,
        /// The hierarchy, as `/proc/PID/cgroup` calls it.
        hierarchy: String,
        /// Path of the group.
        path: String,
        /// What the kernel said.
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
    /// A phase was told to fail.
    #[error("phase {phase} was told to fail")]
    Fault {
        /// The phase.
        phase: Phase,
    },
}
