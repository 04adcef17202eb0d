//! Namespaces that the caller gives.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use gelid_sys::Errno;
use gelid_sys::clone::flags::NEWTIME;
use gelid_sys::namespace;
use gelid_sys::proc::ns::Kind;
use gelid_sys::syscall::nr;
use rustix::fs::{Mode, OFlags};

use super::super::script::{Object, Script};
use super::Stage;
use crate::Error;
use crate::plan::namespaces::joined::JoinOptions;

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
    for (kind, path) in options.all().filter(|(kind, _)| *kind != Kind::Time) {
        let namespace = open(kind, path)?;
        namespace::join(namespace, kind).map_err(failed("join", kind, path))?;
    }
    Ok(())
}

/// Brings the root to its clocks, which no process with several threads can join.
pub(super) fn clocks(options: &JoinOptions, stage: &mut Stage<'_>) -> Result<(), Error> {
    for (kind, path) in options.all().filter(|(kind, _)| *kind == Kind::Time) {
        let namespace = open(kind, path)?;
        let mut script = Script::default();
        let args = [namespace.as_raw_fd().into(), NEWTIME.into()];
        script.must(Object::Itself, nr::setns, args);
        stage.hand(script)?;
    }
    Ok(())
}
