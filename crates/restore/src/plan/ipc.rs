//! System V IPC: the segments, semaphores and queues of an IPC namespace, as `ipcns-*.img` tell it. Section 19.5 of the
//! format.

mod segments;

use gelid_image::messages::IpcDescEntry;
use gelid_image::{Dir, ImageKind};
use gelid_sys::ipc::Perm;

use super::PlanError;
use super::space::Space;
#[cfg(test)]
pub(crate) use segments::Known;
pub(crate) use segments::Segment;

/// What there is in a namespace.
#[derive(Debug, Default)]
pub(crate) struct Ipc {
    /// By id.
    pub(crate) segments: Vec<Segment>,
}

/// Identity and owner of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: i32,
    pub(crate) perm: Perm,
}

impl Ipc {
    /// Reads the images of the namespace that has the number `id` in them.
    pub(crate) fn read(dir: &Dir, id: u32) -> Result<Self, PlanError> {
        Ok(Self {
            segments: segments::read(dir, id)?,
        })
    }

    /// Finds the segments that address spaces are attached to.
    pub(crate) fn attach(&self, spaces: &mut [Space]) -> Result<(), PlanError> {
        for space in spaces {
            segments::attach(&self.segments, space)?;
        }
        Ok(())
    }
}

impl Identity {
    /// Checks what all objects have.
    fn read(kind: ImageKind, desc: &IpcDescEntry) -> Result<Self, PlanError> {
        let id = desc.id;
        let wrong = |what| PlanError::Ipc { kind, id, what };
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
