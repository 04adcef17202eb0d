//! System V IPC: the segments, semaphores and queues of an IPC namespace, as `ipcns-*.img` tell it. Section 19.5 of the
//! format.

mod queues;
mod segments;
mod sets;
pub(crate) mod undo;
mod variables;

use gelid_image::messages::{InventoryEntry, IpcDescEntry};
use gelid_image::{Dir, ImageKind};
use gelid_sys::ipc::Perm;
use gelid_sys::proc::ns::Kind;

use super::PlanError;
use super::namespaces::Namespaces;
use super::namespaces::user::Users;
use super::space::Space;
pub(crate) use queues::Queue;
#[cfg(test)]
pub(crate) use segments::Known;
pub(crate) use segments::Segment;
pub(crate) use sets::Set;
pub(crate) use undo::Undo;
pub(crate) use variables::{Posix, Variables};

/// What there is in a namespace.
#[derive(Debug, Default)]
pub(crate) struct Ipc {
    /// Who is root there, as the restorer knows it.
    pub(crate) root: (u32, u32),
    /// By id.
    pub(crate) segments: Vec<Segment>,
    pub(crate) sets: Vec<Set>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) variables: Option<Variables>,
}

/// Identity and owner of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: i32,
    pub(crate) perm: Perm,
}

/// What makes an error of what is wrong with an object.
fn wrong(kind: ImageKind, id: u32) -> impl Fn(&'static str) -> PlanError {
    move |what| PlanError::Ipc { kind, id, what }
}

impl Ipc {
    /// Reads the images of the namespace that the tree is in: its own, or that of the host. Finds the segments that
    /// address spaces are attached to.
    pub(crate) fn read(
        dir: &Dir,
        inventory: &InventoryEntry,
        namespaces: &Namespaces,
        spaces: &mut [Space],
    ) -> Result<Self, PlanError> {
        let host = inventory.root_ids.as_ref().and_then(|ids| ids.ipc_ns_id);
        let own = namespaces.root(Kind::Ipc).or(host);
        let mut ipc = Self::read_one(dir, own.unwrap_or_default())?;
        if let Some(users) = &namespaces.user {
            ipc.leave(users);
        }
        for space in spaces {
            segments::attach(&ipc.segments, space)?;
        }
        Ok(ipc)
    }

    fn read_one(dir: &Dir, id: u32) -> Result<Self, PlanError> {
        Ok(Self {
            root: (0, 0),
            segments: segments::read(dir, id)?,
            sets: sets::read(dir, id)?,
            queues: queues::read(dir, id)?,
            variables: variables::read(dir, id)?,
        })
    }

    /// From users of a namespace to those that the restorer knows.
    fn leave(&mut self, users: &Users) {
        self.root = (users.uid(0), users.gid(0));
        let segments = self
            .segments
            .iter_mut()
            .map(|segment| &mut segment.identity);
        let sets = self.sets.iter_mut().map(|set| &mut set.identity);
        let queues = self.queues.iter_mut().map(|queue| &mut queue.identity);
        for Identity { perm, .. } in segments.chain(sets).chain(queues) {
            *perm = Perm {
                uid: users.uid(perm.uid),
                gid: users.gid(perm.gid),
                cuid: users.uid(perm.cuid),
                cgid: users.gid(perm.cgid),
                ..*perm
            };
        }
        for queue in self.variables.iter_mut().flat_map(|all| &mut all.posix) {
            let (uid, gid) = queue.owner;
            queue.owner = (users.uid(uid), users.gid(gid));
        }
    }
}

impl Identity {
    /// Checks what all objects have.
    fn read(kind: ImageKind, desc: &IpcDescEntry) -> Result<Self, PlanError> {
        let id = desc.id;
        let wrong = wrong(kind, id);
        Ok(Self {
            id: i32::try_from(desc.id).map_err(|_| wrong("has an id that no object has"))?,
            perm: Perm {
                key: desc.key.cast_signed(),
                uid: desc.uid,
                gid: desc.gid,
                cuid: desc.cuid,
                cgid: desc.cgid,
                mode: desc.mode,
            },
        })
    }
}
