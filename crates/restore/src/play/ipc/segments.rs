//! System V shared memory.

use std::fs::File;
use std::sync::Arc;

use gelid_pages::{FillRequest, Filler, Filling, Owner, Sets};
use gelid_sys::Errno;
use gelid_sys::ipc::Kind;
use gelid_sys::ipc::shm::{self, Attached};
use rustix::fs::{FallocateFlags, fallocate};

use super::{IpcObject, failed, under_its_id};
use crate::Error;
use crate::files::MemoryTarget;
use crate::plan::ipc::Segment;

/// Segments on their way back. Those that were made go again when this is dropped, unless they are kept.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    made: Vec<i32>,
    /// Others have these, and what is in them is theirs as well.
    common: Vec<i32>,
    /// In the order of the plan.
    files: Vec<File>,
    /// The namespace they are in goes anyway, and is not that of the calling thread.
    is_elsewhere: bool,
}

impl Segments {
    /// Finds or makes all segments.
    pub(super) fn make(planned: &[Segment]) -> Result<Self, Error> {
        let mut segments = Self::default();
        for segment in planned {
            segments.one(segment)?;
        }
        Ok(segments)
    }

    /// They were made in a namespace that the calling thread is going to leave.
    pub(super) fn leave(&mut self) {
        self.is_elsewhere = true;
    }

    fn one(&mut self, segment: &Segment) -> Result<(), Error> {
        let (id, perm) = (segment.identity.id, &segment.identity.perm);
        let object = || IpcObject::Segment(id);
        let found = match shm::stat(id) {
            Ok(found) => Some(found),
            Err(Errno::INVAL | Errno::IDRM) => None,
            Err(errno) => return Err(failed("look for", object())(errno)),
        };
        match found {
            Some(found) if segment.is_common => {
                check_common(segment, &found)?;
                if found.attached != 0 {
                    self.common.push(id);
                }
            }
            Some(found) => check(segment, &found)?,
            None => {
                let make = || {
                    Kind::Shm.choose_id(id)?;
                    shm::create(perm.key, segment.size, perm.mode, segment.huge)
                };
                under_its_id((id, object), (perm.cuid, perm.cgid), make, shm::remove)?;
                self.made.push(id);
            }
        }
        let is_changed = |found: shm::Segment| belonging(&found.perm) != belonging(perm);
        if found.is_none_or(|found| is_changed(found) && !segment.is_common) {
            shm::own(id, perm).map_err(failed("give its owners to", object()))?;
        }
        let file = Attached::new(id, true).and_then(|attached| attached.open(true));
        let file = file.map_err(failed("open the memory of", object()))?;
        self.files.push(File::from(file));
        Ok(())
    }

    /// Starts filling them.
    pub(super) fn fill(
        &self,
        planned: &[Segment],
        sets: &Sets,
        filler: &Filler,
    ) -> Result<Vec<Filling>, Error> {
        let mut filling = Vec::new();
        for (segment, file) in planned.iter().zip(&self.files) {
            let id = segment.identity.id;
            if self.common.contains(&id) {
                continue;
            }
            let failed = || failed("fill", IpcObject::Segment(id));
            if !self.made.contains(&id) {
                // What was in it since counts no more.
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(file, hole, 0, segment.extent()).map_err(failed())?;
            }
            if segment.pages.placements.is_empty() {
                continue;
            }
            let owner = Owner::Shared(segment.key.into());
            let again = file.try_clone();
            let again = again
                .map_err(|error| failed()(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
            filling.push(filler.fill(FillRequest {
                reader: Arc::new(sets.open(owner, &segment.pages)?),
                target: Arc::new(MemoryTarget::new(again, segment.extent())),
                placements: segment.pages.by_page(),
                huge: Vec::new(),
                compared: Vec::new(),
            })?);
        }
        Ok(filling)
    }

    /// They stay.
    pub(super) fn keep(mut self) {
        self.made.clear();
    }
}

/// Does what must wait until segments are filled and all tasks are attached. Those of others are so already.
pub(super) fn complete(planned: &[Segment]) -> Result<(), Error> {
    for segment in planned {
        let (id, mode) = (segment.identity.id, segment.identity.perm.mode);
        let object = || IpcObject::Segment(id);
        if mode & shm::LOCKED != 0 {
            shm::lock(id).map_err(failed("lock", object()))?;
        }
        if mode & shm::DEST != 0 {
            shm::remove(id).map_err(failed("mark for removal", object()))?;
        }
    }
    Ok(())
}

impl Drop for Segments {
    fn drop(&mut self) {
        for id in self.made.iter().filter(|_| !self.is_elsewhere) {
            let _ = shm::remove(*id);
        }
    }
}

/// Owners and permissions, which are set together.
fn belonging(perm: &gelid_sys::ipc::Perm) -> (u32, u32, u32) {
    (perm.uid, perm.gid, perm.mode & gelid_sys::ipc::PERMISSIONS)
}

/// Refuses a segment of others that cannot be the one that the tree was attached to.
fn check_common(segment: &Segment, found: &shm::Segment) -> Result<(), Error> {
    match segment.size == found.size && segment.identity.perm.key == found.perm.key {
        true => Ok(()),
        false => Err(Error::IpcTaken {
            object: IpcObject::Segment(segment.identity.id),
            what: "is another one in the namespace that is joined",
            remedy: "remove that one (ipcrm -m) if nobody needs it, or join another namespace",
        }),
    }
}

/// Refuses a segment that is another by now, or in use.
fn check(segment: &Segment, found: &shm::Segment) -> Result<(), Error> {
    let is_same = segment.known.is_some_and(|known| {
        known.changed == found.changed
            && known.creator == found.creator
            && segment.size == found.size
            && segment.identity.perm.key == found.perm.key
    });
    let object = IpcObject::Segment(segment.identity.id);
    match () {
        () if !is_same => Err(Error::IpcTaken {
            object,
            what: "is another one by now",
            remedy: "remove that one (ipcrm -m) if nobody needs it, or restore in an IPC namespace",
        }),
        () if found.attached != 0 => Err(Error::IpcTaken {
            object,
            what: "is in use by others",
            remedy: "end the processes that are attached to it (ipcs -mp)",
        }),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ipc::{Identity, Known};
    use gelid_pages::Pagemap;
    use gelid_sys::ipc::Perm;

    fn planned(id: i32, known: Option<Known>) -> Vec<Segment> {
        let perm = Perm {
            uid: 3,
            gid: 4,
            cuid: 5,
            cgid: 6,
            mode: 0o604,
            key: 0,
        };
        vec![Segment {
            identity: Identity { id, perm },
            key: id.cast_unsigned(),
            size: 5000,
            huge: None,
            known,
            is_common: false,
            pages: Pagemap::default(),
        }]
    }

    fn make(id: i32, known: Option<Known>) -> Result<Segments, Error> {
        Segments::make(&planned(id, known))
    }

    #[test]
    fn a_segment_comes_back_under_its_id_or_not_at_all() {
        // An id that was free a moment ago.
        let id = shm::create(0, 1, 0, None).unwrap();
        shm::remove(id).unwrap();
        let made = make(id, None).unwrap();
        let found = shm::stat(id).unwrap();
        assert_eq!(found.perm, planned(id, None)[0].identity.perm);
        assert_eq!((found.size, found.attached), (5000, 0));
        let taken = make(id, None).unwrap_err();
        assert!(taken.to_string().contains("another one by now"), "{taken}");
        let known = Known {
            changed: found.changed,
            creator: found.creator,
        };
        drop(make(id, Some(known)).unwrap());
        shm::stat(id).unwrap();
        let attached = Attached::new(id, false).unwrap();
        let used = make(id, Some(known)).unwrap_err();
        assert!(used.to_string().contains("in use"), "{used}");
        drop(attached);
        drop(made);
        shm::stat(id).unwrap_err();
    }
}
