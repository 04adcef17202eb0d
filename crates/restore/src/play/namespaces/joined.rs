//! Namespaces that the caller gives.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use gelid_sys::aside::beside;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, Kind};
use gelid_sys::syscall::nr;
use gelid_sys::{Errno, Pid, namespace, pidfd};
use rustix::fs::{Mode, OFlags};

use super::super::script::{Object, Script};
use super::further::Made;
use super::{Birthplace, Stage};
use crate::plan::Plan;
use crate::plan::namespaces::joined::{JoinOptions, USERS};
use crate::plan::namespaces::net::Given;
use crate::plan::namespaces::user::{Users, outside};
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
    let lost = |errno| failed("join", Kind::Mnt, path)(errno);
    namespace::inside(namespace, Kind::Mnt, lost, || options.root())
}

/// Who is who in the user namespace that the caller gives.
pub(crate) fn users(options: &JoinOptions) -> Result<Option<Users>, Error> {
    let Some(path) = &options.user else {
        return Ok(None);
    };
    let namespace = open(Kind::User, path)?;
    let mut seen = None;
    let join = || namespace::join(&namespace, Kind::User);
    beside(join, |member| seen = Some(maps(member))).map_err(failed("join", Kind::User, path))?;
    let unseen = || failed("look at", Kind::User, path)(Errno::CHILD);
    let users = seen.ok_or_else(unseen)??;
    let known = options.ids.is_none_or(|(uid, gid)| {
        outside(&users.uids, uid).is_some() && outside(&users.gids, gid).is_some()
    });
    match known {
        true => Ok(Some(users)),
        false => Err(failed("be that user in", Kind::User, path)(Errno::INVAL)),
    }
}

/// Who is who where somebody is, as this process sees it.
fn maps(member: Pid) -> Result<Users, Error> {
    let task = TaskDir::open(member)?;
    Ok(Users {
        uids: ns::uid_map(&task)?,
        gids: ns::gid_map(&task)?,
        denies_groups: ns::denies_groups(&task)?,
        makers: None,
    })
}

/// The user namespace that the root is to be born in.
pub(crate) fn first_users(plan: &Plan, options: &JoinOptions) -> Result<Option<OwnedFd>, Error> {
    let given = plan.namespaces.given_users.as_ref();
    let path = options.user.as_ref();
    let path = path.filter(|_| given.is_some_and(|given| given.is_early));
    path.map(|path| open(Kind::User, path)).transpose()
}

/// Holds the one that tasks enter when all is made, from `base` on.
pub(super) fn hold_users(
    plan: &Plan,
    options: &JoinOptions,
    base: i32,
    made: &mut Made,
) -> Result<(), Error> {
    let is_late = plan.namespaces.below.contains_key(&USERS);
    let (Some(path), true) = (&options.user, is_late) else {
        return Ok(());
    };
    let added = made.add((Kind::User, USERS), open(Kind::User, path)?, base);
    added.map_err(failed("hold", Kind::User, path))
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
