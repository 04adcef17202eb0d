//! The tree's root as the one whose namespaces mounts are made in.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use gelid_image::Dir;
use gelid_sys::Errno;
use gelid_sys::namespace::{inside, make_files_as};
use gelid_sys::proc::ns::Kind;
use gelid_sys::syscall::nr;
use rustix::mount::{FsOpenFlags, fsopen};
use rustix::process::{getegid, geteuid};

use super::{Leader, Place, Whose, failed, put_together};
use crate::Error;
use crate::files::{Mounted, Networks};
use crate::plan::births::Who;
use crate::plan::namespaces::mnt::Mounts;
use crate::plan::namespaces::user::Users;
use crate::play::namespaces::Stage;
use crate::play::namespaces::further::Made;
use crate::play::script::{Object, Script};

/// Makes the mount namespaces of a tree whose root is in the first one. What the tasks are to join is at descriptors
/// from `base` on.
pub(crate) fn make(
    plan: &Mounts,
    stage: &mut Stage<'_>,
    (dir, base): (&Dir, i32),
    others: (&Networks, &Made),
) -> Result<Mounted, Error> {
    let nested = nested(plan, stage, base)?;
    let mut place = OnStage {
        stage,
        nested,
        others,
    };
    let mut mounted = put_together(plan, &mut place, dir)?;
    let OnStage { stage, nested, .. } = place;
    for (_, automounter) in &mut mounted.automounters {
        let kept = rustix::io::fcntl_dupfd_cloexec(&*automounter, base);
        *automounter = kept.map_err(failed("hold", "an automounter"))?;
    }
    if let Some(root) = mounted.roots.first() {
        // Wherever the restorer's root was.
        let mut script = Script::default();
        script.must(Object::Itself, nr::fchdir, [root.as_raw_fd().into()]);
        let here = script.bytes(b".\0");
        script.must(Object::Itself, nr::chroot, [here.into()]);
        stage.hand(script)?;
    }
    let ids = plan.namespaces.iter().skip(1).map(|namespace| namespace.id);
    mounted.nested = ids.zip(1..).collect();
    mounted.namespaces.push(stage.open(Kind::Mnt)?);
    mounted.namespaces.extend(nested);
    Ok(mounted)
}

/// Has the root make the namespaces that it is not to be in.
fn nested(plan: &Mounts, stage: &mut Stage<'_>, base: i32) -> Result<Vec<OwnedFd>, Error> {
    let mut nested = Vec::new();
    if plan.namespaces.len() < 2 {
        return Ok(nested);
    }
    let first = stage.open(Kind::Mnt)?;
    for namespace in plan.namespaces.iter().skip(1) {
        let made = stage.make(Kind::Mnt, namespace.id, &first)?;
        let made = rustix::io::fcntl_dupfd_cloexec(made, base);
        nested.push(made.map_err(failed("hold", "a mount namespace"))?);
    }
    Ok(nested)
}

impl OnStage<'_, '_> {
    /// Opens a file system that shows a namespace of a kind.
    fn fsopen_in(&self, kind: Kind, id: u32, name: &CStr) -> Result<OwnedFd, Error> {
        let (networks, further) = self.others;
        let namespace = match kind {
            Kind::Net => networks.get(id),
            _ => further.one(kind, id),
        };
        let lost = |errno| failed("open a file system of", format!("namespace {id}"))(errno);
        let namespace = namespace.ok_or_else(|| lost(Errno::NOENT))?;
        let open = || fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).map_err(lost);
        inside(namespace, kind, lost, open)
    }
}

struct OnStage<'a, 's> {
    stage: &'a mut Stage<'s>,
    /// Namespaces beyond the first.
    nested: Vec<OwnedFd>,
    /// Network and IPC namespaces.
    others: (&'a Networks, &'a Made),
}

impl Place for OnStage<'_, '_> {
    fn fsopen(&mut self, name: &CStr, whose: Whose) -> Result<OwnedFd, Error> {
        if let Some((kind, id)) = whose.shown {
            return self.fsopen_in(kind, id, name);
        }
        if let Some(users) = whose.users {
            return self.stage.fsopen_in(users, name);
        }
        let Some(pid_ns) = whose.pid_ns else {
            return self.stage.fsopen(name);
        };
        let mut nodes = self.stage.plan.nodes.iter();
        let first = nodes.position(|node| node.begins(pid_ns));
        let first = first.ok_or_else(|| failed("make", "a procfs of nobody")(Errno::SRCH))?;
        self.stage.leave_mounts(first)?;
        self.stage.fsopen_by(Who::Task(first), name)
    }

    fn make_files_in(&self, users: Option<u32>) -> Result<(), Error> {
        let namespaces = &self.stage.plan.namespaces;
        let first = |users: &Users| {
            let first = (users.first_uid(), users.first_gid());
            (first.0.unwrap_or_default(), first.1.unwrap_or_default())
        };
        let below = users.and_then(|users| namespaces.first_user_of(users));
        let own = namespaces.outside().map(first);
        let (uid, gid) = match below.or(own) {
            Some((uid, gid)) => self.owner(uid, gid),
            None => (geteuid().as_raw(), getegid().as_raw()),
        };
        make_files_as(uid, gid).map_err(failed("make", "files of a user namespace"))
    }

    fn lead(&mut self) -> Result<Leader, Error> {
        let leader = Leader::born(self.stage, 0)?;
        let mut script = Script::default();
        script.must(Object::Itself, nr::setpgid, [0.into(), 0.into()]);
        script.must(Object::Itself, nr::umask, [0.into()]);
        leader.play(self.stage, script)?;
        Ok(leader)
    }

    fn by(&mut self, leader: Leader, script: Script) -> Result<(), Error> {
        leader.play(self.stage, script)
    }

    fn dismiss(&mut self, leader: Leader) -> Result<(), Error> {
        leader.end(self.stage)
    }

    fn inside<T: Send>(
        &self,
        namespace: usize,
        job: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let Some(at) = namespace.checked_sub(1) else {
            return self.stage.inside(&[Kind::Mnt], job);
        };
        let lost = |errno| failed("join", "a mount namespace of the tree")(errno);
        let nested = self
            .nested
            .get(at)
            .ok_or_else(|| lost(Errno::NOENT))?
            .as_fd();
        inside(nested, Kind::Mnt, lost, job)
    }

    fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self.stage.plan.namespaces.outside() {
            Some(users) => (users.uid(uid), users.gid(gid)),
            None => (uid, gid),
        }
    }
}
