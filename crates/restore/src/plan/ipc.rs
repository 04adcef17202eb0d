//! System V IPC: the segments, semaphores and queues of an IPC namespace, as `ipcns-*.img` tell it. Section 19.5 of the
//! format.

mod queues;
mod segments;
mod sets;
pub(crate) mod undo;
mod variables;

use std::collections::BTreeMap;

use gelid_image::ImageKind;
use gelid_image::messages::{InventoryEntry, IpcDescEntry};
use gelid_pages::Sets;
use gelid_sys::ipc::Perm;
use gelid_sys::proc::ns::Kind;

use super::namespaces::Namespaces;
use super::namespaces::user::Users;
use super::space::Space;
use super::{Alive, PlanError};
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
    /// Namespaces of tasks beyond the root's, by their numbers in the images.
    pub(crate) nested: BTreeMap<u32, Ipc>,
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
        images: &mut Sets,
        inventory: &InventoryEntry,
        namespaces: &Namespaces,
        spaces: &mut [Space],
    ) -> Result<Self, PlanError> {
        let host = inventory.root_ids.as_ref().and_then(|ids| ids.ipc_ns_id);
        let own = namespaces.root(Kind::Ipc).or(host);
        let mut ipc = Self::read_one(images, own.unwrap_or_default())?;
        for id in namespaces.further.of(Kind::Ipc).flatten() {
            let nested = Self::read_one(images, id)?;
            if nested.variables.is_none() {
                return Err(PlanError::Namespace {
                    pid: 0,
                    kind: Kind::Ipc.name(),
                });
            }
            ipc.nested.insert(id, nested);
        }
        if let Some(users) = namespaces.outside() {
            let nested = ipc.nested.values_mut();
            nested.for_each(|nested| nested.leave(users));
            ipc.leave(users);
        }
        for (id, nested) in &mut ipc.nested {
            if let Some(root) = namespaces.root_of_owner(*id) {
                nested.root = root;
            }
        }
        let mut by_key = BTreeMap::new();
        for one in ipc.nested.values().chain([&ipc]) {
            for segment in &one.segments {
                if by_key.insert(segment.key, segment).is_some() {
                    let what = "has memory that another one has too";
                    return Err(wrong(ImageKind::IpcnsShm, segment.key)(what));
                }
            }
        }
        for space in spaces {
            segments::attach(&by_key, space)?;
        }
        Ok(ipc)
    }

    /// That of a task.
    pub(crate) fn of_task(&self, alive: &Alive) -> &Self {
        let mut further = alive.further.iter();
        let own = further.find(|(kind, _)| *kind == Kind::Ipc);
        let nested = own.and_then(|(_, id)| self.nested.get(&(*id)?));
        nested.unwrap_or(self)
    }

    fn read_one(images: &mut Sets, id: u32) -> Result<Self, PlanError> {
        Ok(Self {
            root: (0, 0),
            segments: segments::read(images, id)?,
            sets: sets::read(images.dir(), id)?,
            queues: queues::read(images.dir(), id)?,
            variables: variables::read(images.dir(), id)?,
            nested: BTreeMap::new(),
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
