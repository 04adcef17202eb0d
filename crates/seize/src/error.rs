//! What can go wrong, with the task, the errno and the remedy in every message.

use std::path::PathBuf;
use std::time::Duration;

use gelid_sys::{Errno, Pid, proc};

/// Why a tree could not be frozen. Whatever the reason, the tree runs on as before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such process, or it ended while being frozen.
    #[error("process {pid} does not exist (any more)")]
    Gone {
        /// The root of the tree.
        pid: Pid,
    },
    /// The root is a zombie: there is nothing left of it to freeze.
    #[error("process {pid} ({comm}) has ended and waits for its parent to reap it")]
    RootIsZombie {
        /// The root of the tree.
        pid: Pid,
        /// Its name.
        comm: String,
    },
    /// The id given is that of a thread.
    #[error("{tid} is a thread of process {pid}: name the process")]
    NotAProcess {
        /// The id given.
        tid: Pid,
        /// The process it belongs to.
        pid: i32,
    },
    /// The tree contains the process that is to freeze it.
    #[error(
        "the tree of process {root} ({comm}) contains the freezing process {own} itself: \
         start it from outside the tree (setsid, another shell)"
    )]
    ContainsSelf {
        /// The root of the tree.
        root: Pid,
        /// Its name.
        comm: String,
        /// The caller's process.
        own: Pid,
    },
    /// A kernel thread cannot be traced.
    #[error("task {pid} ({comm}) is a kernel thread, which cannot be frozen: choose another root")]
    KernelThread {
        /// The thread.
        pid: Pid,
        /// Its name.
        comm: String,
    },
    /// Somebody else traces the task.
    #[error(
        "task {tid} ({comm}) is traced by {tracer} ({tracer_comm}): \
         end that debugger or tracer, or let it detach"
    )]
    Traced {
        /// The thread.
        tid: Pid,
        /// Its name.
        comm: String,
        /// The tracer's thread.
        tracer: i32,
        /// The tracer's name.
        tracer_comm: String,
    },
    /// The kernel refused to attach.
    #[error(
        "cannot trace task {tid} ({comm}): {errno}; needs CAP_SYS_PTRACE or the task's user id, \
         and a permissive kernel.yama.ptrace_scope"
    )]
    Seize {
        /// The thread.
        tid: Pid,
        /// Its name.
        comm: String,
        /// `EPERM`, most of the time.
        errno: Errno,
    },
    /// Another `ptrace(2)` or `wait4(2)` call failed.
    #[error("{operation} of task {tid} failed: {errno}")]
    Ptrace {
        /// The call.
        operation: &'static str,
        /// The thread.
        tid: Pid,
        /// What the kernel said.
        errno: Errno,
    },
    /// A task did not stop, or the tree did not stop growing, in time.
    #[error(
        "task {tid} ({comm}, state {state}, {wchan}) of process {pid} has not stopped within {timeout:?}: \
         wait until it has left the kernel, or raise the timeout"
    )]
    Timeout {
        /// Its process.
        pid: Pid,
        /// The thread.
        tid: Pid,
        /// Its name.
        comm: String,
        /// State letter as in `/proc/PID/stat`, `?` if it could not be read.
        state: char,
        /// Where in the kernel it waits, as far as the kernel tells.
        wchan: String,
        /// The limit.
        timeout: Duration,
    },
    /// New tasks kept appearing.
    #[error(
        "the tree of process {pid} has not come to rest within {timeout:?}, {rounds} rounds: it creates tasks \
         faster than they can be caught; raise the timeout or use a cgroup freezer"
    )]
    Restless {
        /// The root of the tree.
        pid: Pid,
        /// Rounds made.
        rounds: u32,
        /// The limit.
        timeout: Duration,
    },
    /// A parent in `vfork` cannot stop before its child has called `execve` or ended.
    #[error(
        "task {tid} ({comm}) waits in vfork for process {child} ({child_comm}), which has neither called execve nor \
         ended within {timeout:?}: wait until it has, or raise the timeout"
    )]
    Vfork {
        /// The thread that waits.
        tid: Pid,
        /// Its name.
        comm: String,
        /// The child it waits for.
        child: Pid,
        /// The child's name.
        child_comm: String,
        /// The limit.
        timeout: Duration,
    },
    /// A file of procfs could not be read.
    #[error(transparent)]
    Proc(#[from] proc::Error),
    /// The cgroup freezer could not be used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// Why a cgroup could not be frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The directory has neither `freezer.state` nor `cgroup.freeze`.
    #[error("{} is no cgroup with a freezer: it has neither freezer.state nor cgroup.freeze", path.display())]
    NoFreezer {
        /// The directory.
        path: PathBuf,
    },
    /// The caller itself would freeze.
    #[error("cgroup {} contains the freezing process itself: move it to another cgroup", path.display())]
    ContainsSelf {
        /// The directory of the group that has the process.
        path: PathBuf,
    },
    /// A file of the cgroup could not be read or written.
    #[error("cannot {operation} {}: {errno}", path.display())]
    File {
        /// `read` or `write`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// Not all tasks froze in time.
    #[error(
        "cgroup {} has not frozen within {timeout:?}: a task of it is stuck in the kernel; \
         raise the timeout or freeze without the cgroup", path.display()
    )]
    Timeout {
        /// The directory.
        path: PathBuf,
        /// The limit.
        timeout: Duration,
    },
}

/// Why a tree could not be let go completely. The kernel lets go of the rest when the tracing thread ends.
#[derive(Debug, thiserror::Error)]
pub enum ThawError {
    /// Tasks that had been set running did not stop again, so they could not be detached.
    #[error(
        "task {tid} ({comm}) has not stopped again, {others} more like it: still traced until this thread ends"
    )]
    Straggler {
        /// The first of them.
        tid: Pid,
        /// Its name.
        comm: String,
        /// How many more.
        others: usize,
    },
    /// A call that lets go of a task failed.
    #[error("{operation} of task {tid} failed: {errno}")]
    Ptrace {
        /// The call.
        operation: &'static str,
        /// The thread.
        tid: Pid,
        /// What the kernel said.
        errno: Errno,
    },
    /// A killed task did not die in time.
    #[error(
        "process {pid} ({comm}) has been killed but is still there after {timeout:?}: stuck in the kernel"
    )]
    Undead {
        /// The process.
        pid: Pid,
        /// Its name.
        comm: String,
        /// The limit.
        timeout: Duration,
    },
    /// The cgroup that was found frozen could not be frozen again.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl Error {
    /// Whether there is no such process, or nothing left of it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::RootIsZombie { .. })
    }

    /// Whether the caller itself is in the tree.
    #[must_use]
    pub fn is_caller(&self) -> bool {
        matches!(self, Self::ContainsSelf { .. })
    }
}
