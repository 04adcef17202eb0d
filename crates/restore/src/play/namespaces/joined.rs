//! Namespaces that the caller gives.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use gelid_sys::proc::ns::Kind;
use gelid_sys::syscall::nr;
use gelid_sys::{Errno, namespace, pidfd};
use rustix::fs::{Mode, OFlags};

use super::super::script::{Object, Script};
use super::{Birthplace, Stage};
use crate::plan::Plan;
use crate::plan::namespaces::joined::JoinOptions;
use crate::plan::namespaces::net::Given;
use crate::{Error, Options};

fn failed(operation: &'static str, kind: Kind, path: &Path) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Given {
        operation,
        kind: kind.name(),
        path: path.to_owned(),
        errno,
    }
}

fn open(kind: Kind, path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open", kind, path))
}

/// Has this thread join those that it can, so that the root is born in them.
pub(crate) fn enter(options: &JoinOptions) -> Result<(), Error> {
    let alone = |kind: Kind| matches!(kind, Kind::Uts | Kind::Ipc);
    for (kind, path) in options.all().filter(|(kind, _)| alone(*kind)) {
        let namespace = open(kind, path)?;
        namespace::join(namespace, kind).map_err(failed("join", kind, path))?;
    }
    Ok(())
}

/// Brings the root to its clocks, which no process with several threads can join, and to its mounts, which this thread
/// must not: its own procfs is not there.
pub(super) fn bring(options: &JoinOptions, stage: &mut Stage<'_>) -> Result<(), Error> {
    let late = |kind: Kind| matches!(kind, Kind::Time | Kind::Mnt);
    for (kind, path) in options.all().filter(|(kind, _)| late(*kind)) {
        let namespace = open(kind, path)?;
        let mut script = Script::default();
        let args = [namespace.as_raw_fd().into(), namespace::flag(kind).into()];
        script.must(Object::Itself, nr::setns, args);
        stage.hand(script)?;
    }
    Ok(())
}

/// The directory that paths of the tree start from: in a mount namespace that the caller gives, or where this process is.
pub(crate) fn root(options: &Options) -> Result<OwnedFd, Error> {
    let Some(path) = &options.join.mnt else {
        return options.root();
    };
    let namespace = open(Kind::Mnt, path)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            namespace::join(&namespace, Kind::Mnt).map_err(failed("join", Kind::Mnt, path))?;
            options.root()
        });
        let lost = |_| Err(failed("join", Kind::Mnt, path)(Errno::IO));
        thread.join().unwrap_or_else(lost)
    })
}

/// The pid namespace that the caller gives.
pub(crate) fn pids(plan: &Plan, options: &Options) -> Result<Option<Birthplace>, Error> {
    let namespace = match &plan.namespaces.given_pids {
        None => return Ok(None),
        Some(Given::Path(path)) => open(Kind::Pid, path)?,
        Some(Given::Key(key)) => {
            let missing = || Error::NotGiven { key: key.clone() };
            let number = options.files.inherited(key.as_bytes());
            let number = number.ok_or_else(missing)?;
            let myself = pidfd::open(rustix::process::getpid());
            let taken = myself.and_then(|myself| pidfd::getfd(myself, number));
            let path = format!("/proc/self/fd/{number}");
            taken.map_err(failed("take", Kind::Pid, Path::new(&path)))?
        }
    };
    Birthplace::at(namespace, plan).map(Some)
}
