//! Signals as a file: `signalfd(2)`. Section 15 of the format.

use gelid_image::messages::{FdTypes, FileEntry, SignalfdEntry};
use gelid_sys::proc::fdinfo::FdInfo;

use super::regfile::Opening;
use super::{Collector, Error, Object};

impl Collector<'_> {
    /// Records a signalfd. The signals themselves wait with the tasks.
    pub(super) fn signalfd(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
        info: &FdInfo,
    ) -> Result<(FdTypes, u32), Error> {
        let sigmask = info.signalfd().map_err(object.odd())?;
        let id = self.new_id()?;
        self.push(FileEntry {
            r#type: FdTypes::Signalfd.into(),
            id,
            sgfd: Some(SignalfdEntry {
                id,
                flags: opening.flags,
                fown: opening.fown,
                sigmask,
            }),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Signalfd, id))
    }
}
