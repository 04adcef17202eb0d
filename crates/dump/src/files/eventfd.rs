//! Counters: `eventfd(2)`. Section 15 of the format.

use gelid_image::messages::{EventfdFileEntry, FdTypes, FileEntry};
use gelid_sys::proc::fdinfo::FdInfo;

use super::regfile::Opening;
use super::{Collector, Error, Object};

impl Collector<'_> {
    /// Records an eventfd.
    pub(super) fn eventfd(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
        info: &FdInfo,
    ) -> Result<(FdTypes, u32), Error> {
        let told = info.eventfd().map_err(object.odd())?;
        let id = self.new_id()?;
        self.push(FileEntry {
            r#type: FdTypes::Eventfd.into(),
            id,
            efd: Some(EventfdFileEntry {
                id,
                flags: opening.flags,
                fown: opening.fown,
                counter: told.count,
                semaphore: told.semaphore.then_some(true),
            }),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Eventfd, id))
    }
}
