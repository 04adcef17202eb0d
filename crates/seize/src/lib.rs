//! Freeze a process tree with all its threads, hold it with a guard, thaw it.
//!
//! **Model.** [`freeze`] seizes every thread of a process and of all its descendants with `ptrace(2)`, asks
//! all of them to stop, waits for all of them, and looks again until a whole listing of the stopped tree
//! shows nothing new. The result is a [`Tree`]: plain lists of [`Process`] and [`Thread`], each thread in an
//! event stop, as a [`gelid_sys::ptrace::Stopped`]. Dropping the tree thaws it; so does the kernel if the
//! caller dies. A cgroup's freezer can be used to hold a tree that breeds faster than it can be caught
//! ([`Options::freeze_cgroup`]).
//!
//! What is left exactly as it was: signals that come in between are delivered or stay pending; processes
//! stopped by job control stay stopped, a `SIGCONT` meanwhile counts; a cgroup found frozen is frozen again.
//!
//! # Limitations
//!
//! - Tasks under another tracer, kernel threads, processes whose main thread has ended, and trees that
//!   contain the caller are refused.
//! - A parent in `vfork(2)` cannot stop before its child has called `execve(2)` or ended: the child is let run
//!   until then, within the timeout.
//! - A [`Tree`] belongs to one thread, and that thread must not wait for "any" child meanwhile: it would
//!   take away reports of the tree's tasks.
//! - A few system calls return `EINTR` after any stop (`epoll_wait(2)`, `semop(2)`, `sigtimedwait(2)`, more in
//!   `signal(7)`). A thaw has those issued again that wait without a timeout; if the caller dies, they return, too.
//! - A stop that a task reports again, because of a `SIGSTOP` or `SIGCONT` that came while it was held, is
//!   seen by whoever sets it running: it must be waited for and passed over.
//! - If the root is a child of the caller and ends while it is being frozen, its exit status is lost.
//!
//! ```
//! let mut child = std::process::Command::new("sleep").arg("60").spawn()?;
//! let pid = rustix::process::Pid::from_child(&child);
//!
//! let tree = gelid_seize::freeze(&gelid_seize::Options::new(pid))?;
//! assert_eq!(tree.root().pid, pid);
//! let regs = tree.root().threads[0].task().unwrap().regs()?; // asleep in a system call
//! assert!(regs.rip != 0);
//! tree.thaw()?;
//!
//! child.kill()?;
//! child.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod backoff;
mod cgroup;
mod check;
mod error;
mod finish;
mod haste;
mod listing;
mod refuse;
mod release;
mod resume;
mod roundup;
mod scan;
mod settle;
mod stop;
mod tree;
mod vfork;

use std::path::PathBuf;
use std::time::Duration;

use gelid_sys::Pid;

pub use error::{CgroupError, Error, ThawError};
pub use refuse::{Checked, check_root};
pub use tree::{Process, State, Stats, Thread, Tree, Zombie};

/// What to freeze, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The process that is the root of the tree.
    pub root: Pid,
    /// How long the whole may take.
    pub timeout: Duration,
    /// Directory of a cgroup (version 1 freezer or version 2) to freeze while the tree is being seized.
    pub freeze_cgroup: Option<PathBuf>,
    /// What [`check_root`] said of the root, if it was asked already; else the freeze asks it first.
    pub checked: Option<Checked>,
}

impl Options {
    /// The tree of `root`, within 10 s, without a cgroup.
    #[must_use]
    pub fn new(root: Pid) -> Self {
        Self {
            root,
            timeout: Duration::from_secs(10),
            freeze_cgroup: None,
            checked: None,
        }
    }
}

/// Freezes the tree of [`Options::root`].
///
/// # Errors
///
/// See [`Error`]. The tree then runs on as before.
pub fn freeze(options: &Options) -> Result<Tree, Error> {
    if !options.checked.is_some_and(|root| root.is(options.root)) {
        check_root(options.root)?;
    }
    let _haste = haste::Haste::new();
    roundup::run(options)
}
