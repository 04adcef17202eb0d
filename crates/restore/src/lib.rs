//! Plan a restore from images, and play the plan.
//!
//! **Model.** [`plan()`] turns an image directory into plain data: every task, address space, open
//! file and the order of everything. It changes nothing and trusts nothing; [`Plan::describe`] prints
//! it. [`restore`] plays it: open file descriptions are made once and inherited, tasks are born under
//! their pids by `clone3(2)`, live by tapes until their registers are set, and are let go all at once. If
//! anything fails before that, all that was made is gone again.
//!
//! **Limitations.** Trees in the namespaces of the caller, without what
//! `SHORTCOMINGS.md` lists. Needs `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN`, and ptrace access. A restore
//! belongs to the thread that plays it, which must have no other tracees.
//!
//! ```no_run
//! use gelid_image::Dir;
//! use gelid_restore::{Options, restore};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = Dir::open("images")?;
//! let outcome = restore(&dir, &Options::default())?;
//! println!("{} tasks run again", outcome.tasks);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod describe;
mod error;
pub mod files;
mod hook;
mod pages;
mod phase;
mod plan;
mod play;
pub mod state;

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use gelid_image::messages::RestoreStatsEntry;
use gelid_image::{Dir, manifest};
use gelid_pages::Sets;
use gelid_sys::Pid;
use rustix::fs::{CWD, Mode, OFlags};

pub use error::Error;
pub use files::FileOptions;
pub use hook::{Hook, Hooks, Listener};
pub use phase::{NoSuchPhase, Phase};
pub use plan::cgroup::{CgroupOptions, ManageCgroups};
pub use plan::labels::{LsmProfile, NoSuchProfile};
pub use plan::namespaces::joined::JoinOptions;
pub use plan::namespaces::mnt::MountOptions;
pub use plan::namespaces::net::NetOptions;
pub use plan::{Plan, PlanError};
pub use play::ipc::IpcObject;
pub use play::namespaces::net::NetError;
pub use play::script::Object;

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// About files.
    pub files: FileOptions,
    /// The label of a security module that tasks get instead of their own.
    pub lsm_profile: Option<LsmProfile>,
    /// About cgroups.
    pub cgroups: CgroupOptions,
    /// About network namespaces.
    pub net: NetOptions,
    /// Other namespaces that the caller gives.
    pub join: JoinOptions,
    /// The root for all paths of the images; `/` if none is given.
    pub root: Option<PathBuf>,
    /// About mounts; their root is the one above.
    pub mounts: MountOptions,
    /// The root task becomes a sibling of the caller, a child of its parent.
    pub sibling: bool,
    /// Leave the tasks stopped by `SIGSTOP`.
    pub leave_stopped: bool,
    /// Threads that put pages in place; one for each core if none is given.
    pub workers: Option<NonZeroUsize>,
    /// Who is told how far the restore has come.
    pub hooks: Hooks,
    /// A phase that is to fail, for tests.
    pub fault: Option<Phase>,
}

/// What a restore has brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The root of the tree.
    pub root: Option<Pid>,
    /// Tasks, zombies included.
    pub tasks: usize,
    /// Threads.
    pub threads: usize,
    /// Pages put in place.
    pub pages: u64,
    /// Time for the births.
    pub forking: Duration,
    /// Time from the plan to the release.
    pub time: Duration,
}

impl Outcome {
    /// The statistics as an image has them.
    #[must_use]
    pub fn stats(&self) -> RestoreStatsEntry {
        let microseconds = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        RestoreStatsEntry {
            pages_restored: Some(self.pages),
            forking_time: microseconds(self.forking),
            restore_time: microseconds(self.time),
            ..Default::default()
        }
    }
}

/// Reads and checks the images, and makes the plan. Nothing is changed.
///
/// # Errors
///
/// [`Error::Damaged`] if an image is not what was written, else [`Error::Plan`].
pub fn plan(dir: &Dir, options: &Options) -> Result<Plan, Error> {
    verified(dir, options).map(|(plan, _)| plan)
}

fn verified(dir: &Dir, options: &Options) -> Result<(Plan, Sets), Error> {
    options.phase(Phase::Plan)?;
    let manifest = manifest::read(dir)?;
    if let Some(manifest) = &manifest
        && let Some(damage) = manifest.verify(dir).into_iter().next()
    {
        return Err(Error::Damaged {
            directory: dir.label().into(),
            damage,
        });
    }
    let users = play::namespaces::joined::users(&options.join)?;
    let joined = users.as_ref().map(|users| (&options.join, users));
    let mut sets = Sets::new(dir, manifest)?;
    let mut plan = Plan::read(&mut sets, &options.files, joined)?;
    plan.join(&options.join)?;
    plan.read_mounts(dir, &options.mounts())?;
    plan.read_cgroups(dir, &options.cgroups)?;
    plan.give_labels(options.lsm_profile.as_ref());
    plan.read_networks(dir, &options.net)?;
    Ok((plan, sets))
}

/// Finds what on this machine would be in the way of a restore: files that have changed, numbers that are taken, what the
/// processor or the kernel lack. Nothing is made or changed.
///
/// # Errors
///
/// As [`plan`]; and what keeps this process from looking.
pub fn examine(dir: &Dir, options: &Options) -> Result<Vec<Error>, Error> {
    let (plan, sets) = verified(dir, options)?;
    let root = play::namespaces::joined::root(options)?;
    play::examine::run(&plan, &sets, options, &root)
}

/// Restores the tree of an image directory.
///
/// # Errors
///
/// See [`Error`]; no task, file or mount of the restore is left then.
pub fn restore(dir: &Dir, options: &Options) -> Result<Outcome, Error> {
    let (mut plan, sets) = verified(dir, options)?;
    let root = play::namespaces::joined::root(options)?;
    let mut patience = PATIENCE;
    loop {
        match play(&mut plan, &sets, options, &root) {
            Err(Error::PidTaken { passing: true, .. }) if !patience.is_zero() => {
                let pause = Duration::from_millis(10);
                std::thread::sleep(pause);
                patience = patience.saturating_sub(pause);
            }
            result => return result,
        }
    }
}

/// Plays a plan: for a tree with namespaces of its own in a thread that may join them.
fn play(plan: &mut Plan, sets: &Sets, options: &Options, root: &OwnedFd) -> Result<Outcome, Error> {
    if !plan.namespaces.any() {
        return play::run(plan, sets, options, root);
    }
    let number = plan.root();
    let failed = |source: std::io::Error| Error::Task {
        operation: "starting a thread",
        pid: number,
        errno: gelid_sys::Errno::from_io_error(&source).unwrap_or(gelid_sys::Errno::IO),
    };
    std::thread::scope(|scope| {
        // Whoever is told of something is told by this thread, which stays where it is.
        let (hooks, told) = options.hooks.elsewhere();
        let options = Options {
            hooks,
            ..options.clone()
        };
        let thread = std::thread::Builder::new().name("restore".into());
        let thread = thread.spawn_scoped(scope, move || play::run(plan, sets, &options, root));
        let thread = thread.map_err(failed)?;
        told.listen();
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// How long to wait for a pid that will be free in a moment.
const PATIENCE: Duration = Duration::from_secs(2);

impl Options {
    fn mounts(&self) -> MountOptions {
        MountOptions {
            root: self.root.clone(),
            ..self.mounts.clone()
        }
    }

    /// Enters a phase, which fails if it was asked to.
    fn phase(&self, phase: Phase) -> Result<(), Error> {
        tracing::debug!(%phase);
        match self.fault {
            Some(fault) if fault == phase => Err(Error::Fault { phase }),
            _ => Ok(()),
        }
    }

    fn root(&self) -> Result<OwnedFd, Error> {
        let path = self.root.clone().unwrap_or_else(|| PathBuf::from("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &path, flags, Mode::empty())
            .map_err(|errno| Error::Root { path, errno })
    }
}
