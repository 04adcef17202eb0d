//! A look at what a task has mapped while it still runs, so that less is left to do when it stands still.

use std::os::fd::OwnedFd;

use gelid_sys::proc::maps::Mapping;
use gelid_sys::proc::{TaskDir, fd};
use gelid_sys::procmap::{Found, Query};
use rustix::fs::{AtFlags, FileType, OFlags, Stat, statat};

use super::{Collector, build_id};

/// Descriptors of a table for which it is worth while to know all locks of the machine.
const WORTH_A_LIST: u64 = 512;

impl Collector<'_> {
    /// Asks for the build ids of mapped files, as far as their names lead to them. What comes and goes meanwhile
    /// does not matter: they are taken only for files that have not changed by then. The kernel is asked, since
    /// somebody may watch who opens and closes the files.
    pub(crate) fn foresee(&mut self, task: &TaskDir) {
        if fd::count(task).is_ok_and(|count| count >= WORTH_A_LIST) {
            self.lock_list.prepare();
        }
        if !self.options.build_ids {
            return;
        }
        let Ok(mut query) = task.open_file("maps", OFlags::RDONLY).map(Query::new) else {
            return;
        };
        let mut at = 0;
        let mut last: Option<Mapping> = None;
        // On an old kernel, or of a task that has ended, nothing is found.
        while let Ok(Some(Found { map, .. })) = query.next_file_from(at) {
            at = map.end;
            let is_same = |last: &Mapping| last.inode == map.inode && last.path == map.path;
            if !last.as_ref().is_some_and(is_same) {
                self.ask_for_build_id(&query, &map);
                last = Some(map);
            }
        }
    }

    fn ask_for_build_id(&mut self, query: &Query<OwnedFd>, map: &Mapping) {
        let Some(stat) = self.stat_by_name(map) else {
            return;
        };
        // Something else may be mapped there by now.
        if let Ok((inode, id)) = query.build_id(map.start)
            && inode == stat.st_ino
        {
            self.note_build_id(&stat, build_id::words(&id.unwrap_or_default()));
        }
    }

    /// The regular file of the same number that a mapping's name leads to.
    pub(super) fn stat_by_name(&self, mapping: &Mapping) -> Option<Stat> {
        let path = mapping.path.strip_prefix(b"/")?;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = statat(&self.root, path, flags).ok()?;
        let is_it = stat.st_ino == mapping.inode
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        is_it.then_some(stat)
    }
}
