//! Watches of the file system: `fanotify(7)`. Section 15 of the format.
//!
//! Inodes are found as those of inotify are. A mount, or a file system, is recorded by the path of its root.

use gelid_image::messages::{
    FANOTIFY_FILE_SYSTEM, FanotifyFileEntry, FanotifyInodeMarkEntry, FanotifyMarkEntry,
    FanotifyMountMarkEntry, FdTypes, FileEntry, MarkType,
};
use gelid_sys::fanotify::PERMISSION;
use gelid_sys::proc::fdinfo::{FdInfo, Group, Mark, Marked, Notified};

use super::inotify::{Mounts, Queue};
use super::regfile::Opening;
use super::{Collector, Error, Name, Object, Unsupported};

/// A group whose record waits until all files are known.
#[derive(Debug)]
pub(super) struct Waiting {
    queue: Queue,
    group: Group,
}

/// Whether somebody waits for the group's answers, or may: the dumper, say.
pub(super) fn decides(info: &FdInfo) -> bool {
    let group = info.fanotify();
    group.is_ok_and(|group| {
        let masks = group.marks.iter().map(|mark| mark.mask);
        masks.into_iter().any(|mask| mask & PERMISSION != 0)
    })
}

impl Collector<'_> {
    /// Notes a fanotify group.
    pub(super) fn fanotify(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
        info: &FdInfo,
    ) -> Result<(FdTypes, u32), Error> {
        if decides(info) {
            return Err(object.unsupported(Unsupported::FanotifyPermission));
        }
        let group = info.fanotify().map_err(object.odd())?;
        let bytes = rustix::io::ioctl_fionread(object.file);
        let bytes = bytes.map_err(object.failed("ask for the events of"))?;
        let inode = |mark: &Mark| matches!(mark.on, Marked::Inode { .. });
        if bytes > 0 && group.marks.iter().all(inode) {
            return Err(Error::Events {
                place: object.place,
                name: Name(object.link.clone()),
                bytes,
            });
        }
        if bytes > 0 {
            // There are always some where all of a mount is watched: a dump makes them too.
            tracing::warn!(
                "{}: {bytes} bytes of fanotify events are lost",
                object.place
            );
        }
        let id = self.new_id()?;
        let queue = Queue::new(id, opening, object);
        self.groups.push(Waiting { queue, group });
        Ok((FdTypes::Fanotify, id))
    }

    /// Records the groups.
    pub(super) fn finish_groups(&mut self) -> Result<(), Error> {
        let groups = std::mem::take(&mut self.groups);
        if groups.is_empty() {
            return Ok(());
        }
        let mut mounts = Mounts::new(&self.mounts)?;
        for Waiting { queue, group } in groups {
            let mut marks = Vec::with_capacity(group.marks.len());
            for mark in group.marks {
                marks.push(self.mark(&queue, mark, &mut mounts)?);
            }
            let (id, opening) = queue.into_parts();
            self.push(FileEntry {
                r#type: FdTypes::Fanotify.into(),
                id,
                ffy: Some(FanotifyFileEntry {
                    id,
                    flags: opening.flags,
                    fown: opening.fown,
                    faflags: group.flags,
                    evflags: group.event_flags,
                    mark: marks,
                }),
                ..FileEntry::default()
            })?;
        }
        Ok(())
    }

    fn mark(
        &mut self,
        queue: &Queue,
        mark: Mark,
        mounts: &mut Mounts,
    ) -> Result<FanotifyMarkEntry, Error> {
        let mut entry = FanotifyMarkEntry {
            mflags: mark.flags,
            mask: mark.mask,
            ignored_mask: mark.ignored_mask,
            ..FanotifyMarkEntry::default()
        };
        match mark.on {
            Marked::Inode { inode, dev, handle } => {
                let watch = Notified {
                    wd: 0,
                    inode,
                    dev,
                    mask: mark.mask,
                    ignored_mask: mark.ignored_mask,
                    handle,
                };
                let (f_handle, file) = self.watched_file(queue, &watch, mounts)?;
                entry.r#type = MarkType::Inode.into();
                (entry.s_dev, entry.file) = (dev, file);
                let i_ino = inode;
                entry.ie = Some(FanotifyInodeMarkEntry { i_ino, f_handle });
            }
            Marked::Mount(mnt_id) => {
                entry.r#type = MarkType::Mount.into();
                let path = mounts.point(|mount| mount.id.unsigned_abs() == mnt_id);
                let path = Some(path.ok_or_else(|| queue.unmounted())?);
                entry.me = Some(FanotifyMountMarkEntry { mnt_id, path });
            }
            Marked::FileSystem(dev) => {
                entry.r#type = FANOTIFY_FILE_SYSTEM;
                entry.s_dev = dev;
                let of_device = |mount: &gelid_sys::proc::mountinfo::MountInfo| {
                    mount.dev.major << 20 | mount.dev.minor == dev
                };
                let path = Some(mounts.point(of_device).ok_or_else(|| queue.unmounted())?);
                entry.me = Some(FanotifyMountMarkEntry { mnt_id: 0, path });
            }
        }
        Ok(entry)
    }
}
