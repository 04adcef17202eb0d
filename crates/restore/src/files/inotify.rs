//! Watches of the file system: `inotify(7)`.
//!
//! Descriptors are made early. Their watches come last, when nothing is opened, closed or removed any more that
//! they could tell of.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gelid_image::messages::{FhEntry, InotifyFileEntry, InotifyWdEntry};
use gelid_sys::proc::mountinfo::{self, MountInfo};
use gelid_sys::proc::{TaskDir, fdinfo};
use gelid_sys::{Errno, handle, inotify};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags, statx};

use super::fanotify::{self, Marked};
use super::open::{Opener, set_status};
use super::opened::OpenFiles;
use super::place::Names;
use super::{Description, Error, FilesPlan, Kind, Name, Remap};
use crate::files::Roots;

/// Events, and what else of a mask a watch is added with: it ends with the first event, or ignores files
/// that were unlinked.
const MASK: u32 = 0xfff | 0x0400_0000 | 0x8000_0000;

/// An inotify descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inotify {
    /// Its watches, the newest first.
    pub watches: Vec<Notified>,
}

/// A watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notified {
    /// Its number.
    pub wd: i32,
    /// Events and flags.
    pub mask: u32,
    /// What is watched.
    pub target: WatchedFile,
}

/// How a watched file is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchedFile {
    /// It is open, under this id.
    File(u32),
    /// By its path.
    Path(Name),
    /// By a handle of its file system.
    Handle {
        /// Device of the file system, major << 20 | minor.
        dev: u32,
        /// Inode, for messages.
        inode: u64,
        /// Type of the handle.
        kind: u32,
        /// The handle.
        bytes: Vec<u8>,
    },
}

/// Checks a record.
pub(super) fn plan(object: &str, entry: &InotifyFileEntry) -> Result<Inotify, Error> {
    let watches = entry.wd.iter().map(|watch| Notified::read(object, watch));
    let watches = watches.collect::<Result<_, _>>()?;
    Ok(Inotify { watches })
}

impl Notified {
    fn read(object: &str, entry: &InotifyWdEntry) -> Result<Self, Error> {
        let Some(wd) = i32::try_from(entry.wd).ok().filter(|wd| *wd > 0) else {
            let rule = "no watch has such a number";
            return Err(Error::invalid(object, "wd", entry.wd, rule));
        };
        Ok(Self {
            wd,
            mask: entry.mask & MASK,
            target: WatchedFile::read(
                object,
                &entry.f_handle,
                entry.file,
                (entry.s_dev, entry.i_ino),
            )?,
        })
    }
}

impl WatchedFile {
    /// `file` is the id of an open file that it is; device and inode are what messages tell.
    pub(super) fn read(
        object: &str,
        handle: &FhEntry,
        file: Option<u32>,
        (dev, inode): (u32, u64),
    ) -> Result<Self, Error> {
        if let Some(path) = &handle.path {
            let name = Name::new(path).map_err(|rule| {
                Error::invalid(object, "f_handle.path", path.escape_ascii(), rule)
            })?;
            let mount = handle.mnt_id.and_then(|mount| i32::try_from(mount).ok());
            return Ok(Self::Path(name.on(mount)));
        }
        if let Some(id) = file {
            return Ok(Self::File(id));
        }
        let words = handle.handle.iter().flat_map(|word| word.to_le_bytes());
        let bytes: Vec<u8> = words.take(handle.bytes as usize).collect();
        if bytes.is_empty() || bytes.len() != handle.bytes as usize || bytes.len() > handle::MAX {
            let rule = "a handle is 1 to 128 bytes long";
            return Err(Error::invalid(object, "f_handle.bytes", handle.bytes, rule));
        }
        Ok(Self::Handle {
            dev,
            inode,
            kind: handle.r#type,
            bytes,
        })
    }
}

impl FilesPlan {
    /// Finds watched files among those that had no name, which are made anew, and looks whether those that
    /// are told by their ids are there.
    pub(super) fn resolve_notified(&mut self) -> Result<(), Error> {
        let watching = |it: &Description| matches!(it.kind, Kind::Inotify(_) | Kind::Fanotify(_));
        if !self.descriptions.values().any(watching) {
            return Ok(());
        }
        let origins: HashMap<_, _> = self
            .descriptions
            .values()
            .filter_map(|description| Some((self.origin(description)?, description.id)))
            .collect();
        let ids: BTreeSet<u32> = self.descriptions.keys().copied().collect();
        let all = Arc::make_mut(&mut self.descriptions).values_mut();
        for description in all.filter(|it| watching(it)) {
            let label = description.label();
            for target in targets(&mut description.kind) {
                if let WatchedFile::Handle { dev, inode, .. } = target
                    && let Some(id) = origins.get(&(*dev, *inode))
                {
                    *target = WatchedFile::File(*id);
                }
                if let WatchedFile::File(id) = *target
                    && !ids.contains(&id)
                {
                    return Err(Error::Missing {
                        by: label,
                        what: "watched file",
                        id: id.into(),
                        image: "the image set",
                    });
                }
            }
        }
        Ok(())
    }

    /// Device and inode of a file that had no name.
    fn origin(&self, description: &Description) -> Option<(u32, u64)> {
        let file = match &description.kind {
            Kind::Regular(file) => file,
            Kind::Fifo(fifo) => &fifo.file,
            _ => return None,
        };
        match &file.remap {
            Some(Remap::Ghost(ghost)) => self.ghosts.get(ghost)?.origin,
            _ => None,
        }
    }
}

/// What a file watches, as far as those are inodes.
fn targets(kind: &mut Kind) -> Vec<&mut WatchedFile> {
    match kind {
        Kind::Inotify(queue) => {
            let watches = queue.watches.iter_mut();
            watches.map(|watch| &mut watch.target).collect()
        }
        Kind::Fanotify(group) => {
            let marks = group.marks.iter_mut();
            let inodes = marks.filter_map(|mark| match &mut mark.on {
                Marked::Inode(file) => Some(file),
                _ => None,
            });
            inodes.collect()
        }
        _ => Vec::new(),
    }
}

/// Makes all descriptors.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Inotify(_) = &description.kind else {
            continue;
        };
        let label = description.label();
        let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let fd = fd.map_err(|errno| opener.failed("make", &label, errno))?;
        let fd = opener.raise(fd, &label)?;
        set_status(fd.as_fd(), description.flags.status(), &label)?;
        opener.add(description.id, fd);
    }
    Ok(())
}

impl FilesPlan {
    /// Open files that are watched.
    pub(super) fn watched_files(&self) -> impl Iterator<Item = u32> {
        let files = self.descriptions.values();
        let watched = files.flat_map(|file| {
            let (queue, group) = match &file.kind {
                Kind::Inotify(queue) => (Some(queue), None),
                Kind::Fanotify(group) => (None, Some(group)),
                _ => (None, None),
            };
            let watches = queue.into_iter().flat_map(|queue| &queue.watches);
            let marks = group.into_iter().flat_map(|group| &group.marks);
            let marked = marks.filter_map(|mark| match &mark.on {
                Marked::Inode(file) => Some(file),
                _ => None,
            });
            watches.map(|watch| &watch.target).chain(marked)
        });
        watched.filter_map(|file| match file {
            WatchedFile::File(id) => Some(*id),
            _ => None,
        })
    }
}

impl OpenFiles {
    /// Adds all watches, after whatever else is open has been closed. Paths start at `roots`.
    pub(super) fn watch(&mut self, roots: Roots<'_>) -> Result<(), Error> {
        let mut queues = Vec::new();
        for description in self.plan.descriptions.values() {
            if let Kind::Inotify(queue) = &description.kind {
                queues.push((description.id, description.label(), queue.clone()));
            }
        }
        let groups = fanotify::groups(self);
        if queues.is_empty() && groups.is_empty() {
            return Ok(());
        }
        let watches = queues.iter().flat_map(|(_, _, queue)| &queue.watches);
        let marks = groups.iter().flat_map(|(_, _, group)| &group.marks);
        let marked = marks.filter_map(|mark| match &mark.on {
            Marked::Inode(file) => Some(file),
            _ => None,
        });
        let files = watches.map(|watch| &watch.target).chain(marked);
        let watched = files.filter_map(|file| match file {
            WatchedFile::File(id) => Some(*id),
            _ => None,
        });
        let own = queues.iter().map(|(id, ..)| *id);
        let own = own.chain(groups.iter().map(|(id, ..)| *id));
        self.close_all_but(&watched.chain(own).collect());
        let mut watcher = Watcher::new(roots);
        for (id, label, queue) in &queues {
            let Some(fd) = self.fd(*id) else { continue };
            for watch in queue.watches.iter().rev() {
                watcher.add(label, fd, watch, self)?;
            }
        }
        fanotify::mark(&groups, self, &mut watcher)
    }
}

/// A watched file, opened.
pub(super) enum Found<'f> {
    Open(BorrowedFd<'f>),
    Own(OwnedFd),
}

impl AsFd for Found<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) => *fd,
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

/// Adds watches, and finds what they are of.
pub(super) struct Watcher<'a> {
    names: Names<'a>,
    roots: Roots<'a>,
    mounts: Option<Vec<MountInfo>>,
    /// By device, a file on a mount of it.
    open: HashMap<u32, OwnedFd>,
}

impl<'a> Watcher<'a> {
    fn new(roots: Roots<'a>) -> Self {
        Self {
            names: Names::new(roots),
            roots,
            mounts: None,
            open: HashMap::new(),
        }
    }

    fn add(
        &mut self,
        object: &str,
        fd: BorrowedFd<'_>,
        watch: &Notified,
        files: &OpenFiles,
    ) -> Result<(), Error> {
        let failed = |operation| {
            move |errno| Error::System {
                operation,
                object: format!("watch {} of {object}", watch.wd),
                errno,
            }
        };
        let found = self.found(&watch.target, files);
        let found = found.map_err(failed("find the file of"))?;
        match inotify::set_next(fd, watch.wd) {
            // A kernel that cannot be told counts, which may do.
            Ok(()) | Err(Errno::NOTTY) => {}
            Err(errno) => return Err(failed("number")(errno)),
        }
        let path = format!("/proc/self/fd/{}", found.as_fd().as_raw_fd());
        let mask = WatchFlags::from_bits_retain(watch.mask);
        let wd = add_watch(fd, path, mask).map_err(failed("add"))?;
        if wd == watch.wd {
            return Ok(());
        }
        let rule = "another watch of the same descriptor has this number, or the same file";
        Err(Error::invalid(object, "wd", watch.wd, rule))
    }

    /// Finds what is watched.
    pub(super) fn found<'f>(
        &mut self,
        target: &WatchedFile,
        files: &'f OpenFiles,
    ) -> Result<Found<'f>, Errno> {
        match target {
            WatchedFile::File(id) => Ok(Found::Open(files.fd(*id).ok_or(Errno::BADF)?)),
            target => Ok(Found::Own(self.find(target)?)),
        }
    }

    /// The root of a mount, by its path.
    pub(super) fn root_of(&mut self, name: &Name) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = super::place::Place::Path(name.clone());
        let opened = self.names.open(&place, flags)?;
        let found = statx(&opened, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let is_root = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        is_root.then_some(opened).ok_or(Errno::NODEV)
    }

    /// The root of a mount, by its number.
    pub(super) fn mount_with(&mut self, id: u32) -> Result<OwnedFd, Errno> {
        let all = self.mounts()?;
        let mount = all.iter().find(|mount| mount.id.unsigned_abs() == id);
        let point = mount.ok_or(Errno::NODEV)?.mount_point.clone();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&*point, flags, Mode::empty())
    }

    /// The mounts that this process sees.
    fn mounts(&mut self) -> Result<&[MountInfo], Errno> {
        if self.mounts.is_none() {
            let own = TaskDir::open(rustix::process::getpid()).map_err(|error| error.errno())?;
            self.mounts = Some(mountinfo::read(&own).map_err(|error| error.errno())?);
        }
        Ok(self.mounts.as_deref().unwrap_or_default())
    }

    fn find(&mut self, target: &WatchedFile) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match target {
            WatchedFile::File(_) => Err(Errno::BADF),
            WatchedFile::Path(name) => {
                let place = super::place::Place::Path(name.clone());
                self.names.open(&place, flags)
            }
            WatchedFile::Handle {
                dev, kind, bytes, ..
            } => {
                let mount = self.mount(*dev)?;
                handle::open(mount, *kind, bytes, flags)
            }
        }
    }

    /// A file on a mount of a device.
    fn mount(&mut self, dev: u32) -> Result<BorrowedFd<'_>, Errno> {
        if let Some(mount) = self.roots.device(dev) {
            return Ok(mount);
        }
        if !self.open.contains_key(&dev) {
            let opened = self.open_mount(dev)?;
            self.open.insert(dev, opened);
        }
        let opened = self.open.get(&dev).ok_or(Errno::NODEV)?;
        Ok(opened.as_fd())
    }

    fn open_mount(&mut self, dev: u32) -> Result<OwnedFd, Errno> {
        let own = TaskDir::open(rustix::process::getpid()).map_err(|error| error.errno())?;
        let of_device = |mount: &&MountInfo| mount.dev.major << 20 | mount.dev.minor == dev;
        let open = |mount: &MountInfo| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(&*mount.mount_point, flags, Mode::empty()).ok()?;
            let info = fdinfo::read(&own, opened.as_raw_fd()).ok()?;
            // Another mount may cover it.
            (info.mnt_id == Some(mount.id)).then_some(opened)
        };
        let found = self.mounts()?.iter().filter(of_device).find_map(open);
        found.ok_or(Errno::NODEV)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(handle: FhEntry) -> InotifyWdEntry {
        InotifyWdEntry {
            wd: 1,
            mask: u32::MAX,
            f_handle: handle,
            ..InotifyWdEntry::default()
        }
    }

    fn read(watch: &InotifyWdEntry) -> Result<Notified, Error> {
        Notified::read("inotify", watch)
    }

    #[test]
    fn a_file_is_found_by_path_id_or_handle() {
        let by_handle = FhEntry {
            bytes: 9,
            r#type: 1,
            handle: vec![0x0807_0605_0403_0201, 9],
            ..FhEntry::default()
        };
        let found = read(&watch(by_handle.clone())).unwrap();
        assert_eq!(found.mask, MASK);
        let WatchedFile::Handle { bytes, .. } = found.target else {
            panic!("{found:?}");
        };
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let mut deleted = watch(by_handle.clone());
        deleted.file = Some(7);
        assert_eq!(read(&deleted).unwrap().target, WatchedFile::File(7));
        let by_path = FhEntry {
            path: Some(b"/a".to_vec()),
            ..by_handle
        };
        let name = Name::new(b"/a").unwrap();
        assert_eq!(
            read(&watch(by_path)).unwrap().target,
            WatchedFile::Path(name)
        );
    }

    #[test]
    fn records_that_cannot_be_are_refused() {
        let handle = |bytes, words| FhEntry {
            bytes,
            handle: vec![0; words],
            ..FhEntry::default()
        };
        for bad in [
            handle(0, 16),
            handle(9, 1),
            handle(129, 17),
            handle(u32::MAX, 16),
        ] {
            assert!(read(&watch(bad)).is_err());
        }
        let mut odd = watch(handle(8, 1));
        assert!(read(&odd).is_ok());
        for wd in [0, 1 << 31, u32::MAX] {
            odd.wd = wd;
            assert!(read(&odd).is_err());
        }
        let upward = FhEntry {
            path: Some(b"/a/../b".to_vec()),
            ..handle(8, 1)
        };
        assert!(read(&watch(upward)).is_err());
    }
}
