//! Watches of the file system: `inotify(7)`. Section 15 of the format.
//!
//! The kernel tells of a watched inode its number and a handle. A handle opens it; that tells its path, which is
//! recorded if it leads there. An inode without a name is one that the tree has open, or cannot be found again.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use gelid_image::messages::{
    FH_HANDLE_WORDS, FdTypes, FhEntry, FileEntry, InotifyFileEntry, InotifyWdEntry,
};
use gelid_sys::handle;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::fdinfo::{FdInfo, Notified};
use gelid_sys::proc::mountinfo::{self, MountInfo};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, makedev, statat};

use super::descriptions::Inode;
use super::kind::DELETED;
use super::regfile::{Opening, relative};
use super::{Collector, Error, Name, Object, Place, Unsupported, mount};
use crate::namespace::MountTable;

/// A descriptor whose record waits until all files are known.
#[derive(Debug)]
pub(super) struct Queue {
    id: u32,
    opening: Opening,
    place: Place,
    name: Name,
    watches: Vec<Notified>,
}

impl Queue {
    /// One without watches of its own.
    pub(super) fn new(id: u32, opening: Opening, object: &Object<'_>) -> Self {
        Self {
            id,
            opening,
            place: object.place,
            name: Name(object.link.clone()),
            watches: Vec::new(),
        }
    }

    /// Its id, and how it was opened.
    pub(super) fn into_parts(self) -> (u32, Opening) {
        (self.id, self.opening)
    }

    /// The refusal of a mark on what is mounted nowhere.
    pub(super) fn unmounted(&self) -> Error {
        Error::Unsupported {
            place: self.place,
            name: self.name.clone(),
            why: Unsupported::FanotifyUnmounted,
        }
    }
}

impl Collector<'_> {
    /// Notes an inotify descriptor.
    pub(super) fn inotify(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
        info: &FdInfo,
    ) -> Result<(FdTypes, u32), Error> {
        let waiting = rustix::io::ioctl_fionread(object.file);
        let waiting = waiting.map_err(object.failed("ask for the events of"))?;
        if waiting > 0 {
            return Err(Error::Events {
                place: object.place,
                name: Name(object.link.clone()),
                bytes: waiting,
            });
        }
        let id = self.new_id()?;
        self.watchers.push(Queue {
            watches: info.inotify().map_err(object.odd())?,
            ..Queue::new(id, opening, object)
        });
        Ok((FdTypes::Inotify, id))
    }

    /// Records the descriptors.
    pub(super) fn finish_watchers(&mut self) -> Result<(), Error> {
        let queues = std::mem::take(&mut self.watchers);
        if queues.is_empty() {
            return Ok(());
        }
        let mut mounts = Mounts::new(&self.mounts)?;
        for queue in queues {
            let mut wd = Vec::with_capacity(queue.watches.len());
            for watch in &queue.watches {
                wd.push(self.watch(&queue, watch, &mut mounts)?);
            }
            self.push(FileEntry {
                r#type: FdTypes::Inotify.into(),
                id: queue.id,
                ify: Some(InotifyFileEntry {
                    id: queue.id,
                    flags: queue.opening.flags,
                    fown: queue.opening.fown,
                    wd,
                }),
                ..FileEntry::default()
            })?;
        }
        Ok(())
    }

    fn watch(
        &mut self,
        queue: &Queue,
        watch: &Notified,
        mounts: &mut Mounts,
    ) -> Result<InotifyWdEntry, Error> {
        let (f_handle, file) = self.watched_file(queue, watch, mounts)?;
        Ok(InotifyWdEntry {
            id: 0,
            i_ino: watch.inode,
            mask: watch.mask,
            ignored_mask: watch.ignored_mask,
            s_dev: watch.dev,
            wd: watch.wd.cast_unsigned(),
            f_handle,
            file,
        })
    }

    /// How a watched inode is found again: its handle, perhaps with its path, and the id of the open file that it
    /// is, if it has no name.
    pub(super) fn watched_file(
        &mut self,
        queue: &Queue,
        watch: &Notified,
        mounts: &mut Mounts,
    ) -> Result<(FhEntry, Option<u32>), Error> {
        let mut handle = handle_entry(watch.handle.as_ref());
        let found = mounts.open(watch);
        handle.mnt_id = found
            .as_ref()
            .and_then(|found| self.mount_at(found.as_fd()));
        let path = found.as_ref().and_then(path_of);
        let inode = found.as_ref().and_then(stat_of);
        let inode = inode.unwrap_or_else(|| told(watch));
        match path {
            Some(path) if self.is_at(found.as_ref(), &path, inode) => handle.path = Some(path),
            // It has a name, though not here, and is found by its handle again.
            Some(path) if !path.ends_with(DELETED) => {}
            _ => {
                let file = self.descriptions.of_inode(inode);
                let file = file.ok_or_else(|| nameless(queue, watch))?;
                return Ok((handle, Some(file)));
            }
        }
        Ok((handle, None))
    }

    /// Whether a path leads to an inode.
    fn is_at(&self, file: Option<&OwnedFd>, path: &[u8], inode: Inode) -> bool {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let root = file.map_or(self.root.as_fd(), |file| self.root_at(file.as_fd()));
        statat(root, relative(path), flags).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == inode)
    }
}

fn nameless(queue: &Queue, watch: &Notified) -> Error {
    Error::Nameless {
        place: queue.place,
        name: queue.name.clone(),
        wd: watch.wd,
        inode: watch.inode,
        major: watch.dev >> 20,
        minor: watch.dev & 0xf_ffff,
    }
}

/// The inode as the kernel tells it, which is not always as `stat(2)` does.
fn told(watch: &Notified) -> Inode {
    (makedev(watch.dev >> 20, watch.dev & 0xf_ffff), watch.inode)
}

/// A handle in words; without one, a record that says so.
fn handle_entry(handle: Option<&(u32, Vec<u8>)>) -> FhEntry {
    let mut entry = FhEntry {
        handle: vec![0; FH_HANDLE_WORDS],
        ..FhEntry::default()
    };
    let Some((kind, bytes)) = handle else {
        return entry;
    };
    entry.r#type = *kind;
    entry.bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    for (word, bytes) in entry.handle.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
    entry
}

fn stat_of(file: &OwnedFd) -> Option<Inode> {
    let stat = rustix::fs::fstat(file).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// What the kernel calls a file.
fn path_of(file: &OwnedFd) -> Option<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = rustix::fs::readlinkat(CWD, link, Vec::new()).ok()?;
    Some(path.into_bytes()).filter(|path| path.first() == Some(&b'/'))
}

/// The mounts of the tree, or if it has none of its own those of the dumper, to open files by their handles.
pub(super) struct Mounts {
    all: Vec<(Arc<OwnedFd>, MountInfo)>,
    /// By device, a file on a mount of it.
    open: HashMap<u32, Option<OwnedFd>>,
}

impl Mounts {
    pub(super) fn new(known: &MountTable) -> Result<Self, Error> {
        let mut all: Vec<_> = known.all().collect();
        if !known.is_known() {
            let own = TaskDir::open(rustix::process::getpid())?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open("/", flags, Mode::empty());
            let root = root.map_err(|errno| Error::Own {
                operation: "open the root directory",
                errno,
            })?;
            let root = Arc::new(root);
            let own = mountinfo::read(&own)?.into_iter();
            all.extend(own.map(|mount| (root.clone(), mount)));
        }
        Ok(Self {
            all,
            open: HashMap::new(),
        })
    }

    /// Where the first mount stands that fits, as text.
    pub(super) fn point(&self, fits: impl Fn(&MountInfo) -> bool) -> Option<Vec<u8>> {
        let found = self.all.iter().filter(|(_, mount)| fits(mount));
        // Another mount may cover it.
        let mut open = found.filter(|(root, mount)| mount::open(root.as_fd(), mount).is_some());
        open.next().map(|(_, mount)| mount.mount_point.clone())
    }

    /// Opens a watched file, if its file system can find it.
    fn open(&mut self, watch: &Notified) -> Option<OwnedFd> {
        let (kind, bytes) = watch.handle.as_ref()?;
        let all = &self.all;
        let mount = self.open.entry(watch.dev).or_insert_with(|| {
            let of_device =
                |mount: &MountInfo| mount.dev.major << 20 | mount.dev.minor == watch.dev;
            let mut found = all.iter().filter(|(_, mount)| of_device(mount));
            found.find_map(|(root, mount)| mount::open(root.as_fd(), mount))
        });
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        handle::open(mount.as_ref()?, *kind, bytes, flags).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_words_of_little_end() {
        let entry = handle_entry(Some(&(1, vec![1, 0, 0, 0, 0, 0, 0, 2, 3])));
        assert_eq!((entry.bytes, entry.r#type, entry.handle.len()), (9, 1, 16));
        assert_eq!(entry.handle[..3], [0x0200_0000_0000_0001, 3, 0]);
        assert_eq!(handle_entry(None).bytes, 0);
    }
}
