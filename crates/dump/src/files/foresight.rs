//! A look at what a task has mapped while it still runs, so that less is left to do when it stands still.

use std::os::fd::OwnedFd;

use gelid_sys::proc::TaskDir;
use gelid_sys::proc::maps::{self, Mapping};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};

use super::{Collector, build_id};

impl Collector<'_> {
    /// Reads the build ids of mapped files, as far as their names lead to them. What comes and goes meanwhile does
    /// not matter: they are taken only for files that have not changed by then.
    pub(crate) fn foresee(&mut self, task: &TaskDir) {
        if !self.options.build_ids {
            return;
        }
        let Ok(mut mappings) = maps::read(task) else {
            return;
        };
        mappings.dedup_by(|next, last| next.inode == last.inode && next.path == last.path);
        for mapping in mappings.iter().filter(|mapping| mapping.has_file()) {
            if let Some((file, stat)) = self.open_by_name(mapping) {
                let id = build_id::read(&file).unwrap_or_default();
                self.note_build_id(&stat, id);
            }
        }
    }

    fn open_by_name(&self, mapping: &Mapping) -> Option<(OwnedFd, Stat)> {
        let path = mapping.path.strip_prefix(b"/")?;
        let stat = statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_it = stat.st_ino == mapping.inode
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_it {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.root, path, flags | OFlags::NOFOLLOW, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        Some((file, stat))
    }
}
