//! A look at what a task has mapped while it still runs, so that less is left to do when it stands still.

use gelid_sys::proc::TaskDir;
use gelid_sys::proc::maps::{self, Mapping};
use gelid_sys::procmap::Query;
use rustix::fs::{AtFlags, FileType, OFlags, Stat, statat};

use super::{Collector, build_id};

impl Collector<'_> {
    /// Asks for the build ids of mapped files, as far as their names lead to them. What comes and goes meanwhile
    /// does not matter: they are taken only for files that have not changed by then. The kernel is asked, since
    /// somebody may watch who opens and closes the files.
    pub(crate) fn foresee(&mut self, task: &TaskDir) {
        if !self.options.build_ids {
            return;
        }
        let Ok(mut mappings) = maps::read(task) else {
            return;
        };
        let Ok(query) = task.open_file("maps", OFlags::RDONLY).map(Query::new) else {
            return;
        };
        mappings.dedup_by(|next, last| next.inode == last.inode && next.path == last.path);
        for mapping in mappings.iter().filter(|mapping| mapping.has_file()) {
            let Some(stat) = self.stat_by_name(mapping) else {
                continue;
            };
            match query.build_id(mapping.start) {
                Ok((inode, id)) if inode == stat.st_ino => {
                    self.note_build_id(&stat, build_id::words(&id.unwrap_or_default()));
                }
                // Something else is mapped there by now.
                Ok(_) => {}
                // An old kernel, or a task that has ended.
                Err(_) => return,
            }
        }
    }

    fn stat_by_name(&self, mapping: &Mapping) -> Option<Stat> {
        let path = mapping.path.strip_prefix(b"/")?;
        let stat = statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_it = stat.st_ino == mapping.inode
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        is_it.then_some(stat)
    }
}
