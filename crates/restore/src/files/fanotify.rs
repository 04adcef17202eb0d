//! Watches of the file system: `fanotify(7)`.
//!
//! As with inotify, descriptors are made early, and marks come last. What they are on is opened before the first of
//! them is set, as that would be an event.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

use gelid_image::messages::{
    FANOTIFY_FILE_SYSTEM, FanotifyFileEntry, FanotifyMarkEntry, FanotifyMountMarkEntry, MarkType,
};
use gelid_sys::Errno;
use gelid_sys::fanotify::{
    self, MARK_ADD, MARK_EVICTABLE, MARK_FILESYSTEM, MARK_IGNORE, MARK_IGNORED_MASK,
    MARK_IGNORED_SURV_MODIFY, MARK_MOUNT, PERMISSION,
};

use super::inotify::{Found, WatchedFile, Watcher};
use super::open::{Opener, set_status};
use super::opened::OpenFiles;
use super::{Error, Kind, Name};

/// Flags that a mark keeps.
const FLAGS: u32 = MARK_EVICTABLE | MARK_IGNORE | MARK_IGNORED_SURV_MODIFY;

/// A fanotify group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fanotify {
    /// Flags it is made with.
    pub flags: u32,
    /// Flags that files of events are opened with.
    pub event_flags: u32,
    /// Its marks.
    pub marks: Vec<Mark>,
}

/// A mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What it is on.
    pub on: Marked,
    /// Flags of the mark itself.
    pub flags: u32,
    /// Events and flags.
    pub mask: u32,
    /// Events that are ignored.
    pub ignored: u32,
}

/// What a mark is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marked {
    /// An inode.
    Inode(WatchedFile),
    /// The mount that a path leads to.
    Mount(Name),
    /// The mount with this number.
    MountId(u32),
    /// The file system that a path leads to.
    FileSystem(Name),
}

/// Checks a record.
pub(super) fn plan(object: &str, entry: &FanotifyFileEntry) -> Result<Fanotify, Error> {
    let marks = entry.mark.iter().map(|mark| Mark::read(object, mark));
    Ok(Fanotify {
        flags: entry.faflags,
        event_flags: entry.evflags,
        marks: marks.collect::<Result<_, _>>()?,
    })
}

impl Mark {
    fn read(object: &str, entry: &FanotifyMarkEntry) -> Result<Self, Error> {
        if entry.mask & PERMISSION != 0 {
            // Whoever opens a file meanwhile, this process too, would wait for an answer.
            let rule = "events that wait for an answer cannot be restored";
            return Err(Error::invalid(object, "mark.mask", entry.mask, rule));
        }
        let on = match entry.r#type {
            kind if kind == MarkType::Inode as i32 => {
                let missing = || {
                    let rule = "the mark of an inode says which one";
                    Error::invalid(object, "mark.ie", "nothing", rule)
                };
                let inode = entry.ie.as_ref().ok_or_else(missing)?;
                let found = (entry.s_dev, inode.i_ino);
                let file = WatchedFile::read(object, &inode.f_handle, entry.file, found)?;
                Marked::Inode(file)
            }
            kind if kind == MarkType::Mount as i32 => match mount(object, entry)? {
                (_, Some(name)) => Marked::Mount(name),
                (id, None) => Marked::MountId(id),
            },
            FANOTIFY_FILE_SYSTEM => match mount(object, entry)? {
                (_, Some(name)) => Marked::FileSystem(name),
                (_, None) => {
                    let rule = "the mark of a file system has a path";
                    return Err(Error::invalid(object, "mark.me.path", "nothing", rule));
                }
            },
            other => {
                let rule = "there is no such kind of mark";
                return Err(Error::invalid(object, "mark.type", other, rule));
            }
        };
        Ok(Self {
            on,
            flags: entry.mflags & FLAGS,
            mask: entry.mask,
            ignored: entry.ignored_mask,
        })
    }

    /// What a mark is on, in flags.
    fn on(&self) -> u32 {
        match self.on {
            Marked::Inode(_) => 0,
            Marked::Mount(_) | Marked::MountId(_) => MARK_MOUNT,
            Marked::FileSystem(_) => MARK_FILESYSTEM,
        }
    }

    /// Flags and masks of the calls that set it.
    fn calls(&self) -> impl Iterator<Item = (u32, u32)> {
        let on = MARK_ADD | self.on();
        let evictable = self.flags & MARK_EVICTABLE;
        let ignore = match self.flags & MARK_IGNORE {
            0 => MARK_IGNORED_MASK,
            ignore => ignore,
        };
        let survives = self.flags & MARK_IGNORED_SURV_MODIFY;
        let calls = [
            (on | evictable, self.mask),
            (on | evictable | ignore | survives, self.ignored),
        ];
        calls.into_iter().filter(|(_, mask)| *mask != 0)
    }
}

fn mount(object: &str, entry: &FanotifyMarkEntry) -> Result<(u32, Option<Name>), Error> {
    let none = FanotifyMountMarkEntry::default();
    let entry = entry.me.as_ref().unwrap_or(&none);
    let name = entry.path.as_ref().map(|path| {
        let found = path.escape_ascii();
        Name::new(path).map_err(|rule| Error::invalid(object, "mark.me.path", found, rule))
    });
    Ok((entry.mnt_id, name.transpose()?))
}

/// Makes all descriptors.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Fanotify(group) = &description.kind else {
            continue;
        };
        let label = description.label();
        let fd = fanotify::init(group.flags, group.event_flags);
        let fd = fd.map_err(|errno| opener.failed("make", &label, errno))?;
        let fd = opener.raise(fd, &label)?;
        set_status(fd.as_fd(), description.flags.status(), &label)?;
        opener.add(description.id, fd);
    }
    Ok(())
}

/// The groups of a plan, with what messages call them.
pub(super) fn groups(files: &OpenFiles) -> Vec<(u32, String, Fanotify)> {
    let all = files.plan.descriptions.values();
    let groups = all.filter_map(|description| match &description.kind {
        Kind::Fanotify(group) => Some((description.id, description.label(), group.clone())),
        _ => None,
    });
    groups.collect()
}

/// Sets all marks.
pub(super) fn mark(
    groups: &[(u32, String, Fanotify)],
    files: &OpenFiles,
    watcher: &mut Watcher<'_>,
) -> Result<(), Error> {
    let mut found: Vec<(u32, &str, &Mark, Found<'_>)> = Vec::new();
    for (id, label, group) in groups {
        // They were told the newest first.
        for mark in group.marks.iter().rev() {
            let on = match &mark.on {
                Marked::Inode(file) => watcher.found(file, files),
                Marked::Mount(name) | Marked::FileSystem(name) => {
                    watcher.root_of(name).map(Found::Own)
                }
                Marked::MountId(id) => watcher.mount_with(*id).map(Found::Own),
            };
            let on = on.map_err(Error::system("find what is watched by", label))?;
            found.push((*id, label, mark, on));
        }
    }
    for (id, label, mark, on) in &found {
        let failed = |errno| Error::system("set a mark of", *label)(errno);
        let path = format!("/proc/self/fd/{}", on.as_fd().as_raw_fd());
        let path = CString::new(path).map_err(|_| failed(Errno::INVAL))?;
        let group = files.fd(*id).ok_or(Errno::BADF).map_err(failed)?;
        for (flags, mask) in mark.calls() {
            fanotify::mark(group, flags, mask.into(), &path).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::{FanotifyInodeMarkEntry, FhEntry};

    fn read(entry: &FanotifyMarkEntry) -> Result<Mark, Error> {
        Mark::read("fanotify", entry)
    }

    #[test]
    fn masks_are_set_one_by_one() {
        let entry = FanotifyMarkEntry {
            r#type: MarkType::Mount.into(),
            mflags: 0x40,
            mask: 8,
            ignored_mask: 3,
            me: Some(FanotifyMountMarkEntry {
                mnt_id: 7,
                path: None,
            }),
            ..FanotifyMarkEntry::default()
        };
        let mark = read(&entry).unwrap();
        assert_eq!(mark.on, Marked::MountId(7));
        let calls: Vec<_> = mark.calls().collect();
        assert_eq!(calls, [(0x11, 8), (0x71, 3)]);
    }

    #[test]
    fn records_that_cannot_be_are_refused() {
        let inode = FanotifyMarkEntry {
            r#type: MarkType::Inode.into(),
            ie: Some(FanotifyInodeMarkEntry {
                i_ino: 1,
                f_handle: FhEntry {
                    bytes: 8,
                    handle: vec![1],
                    ..FhEntry::default()
                },
            }),
            ..FanotifyMarkEntry::default()
        };
        read(&inode).unwrap();
        let spoilt: [fn(&mut FanotifyMarkEntry); 5] = [
            |mark| mark.ie = None,
            |mark| mark.r#type = 9,
            |mark| mark.r#type = FANOTIFY_FILE_SYSTEM,
            |mark| mark.mask = 0x1_0000,
            |mark| {
                mark.r#type = MarkType::Mount.into();
                let path = Some(b"a\0b".to_vec());
                mark.me = Some(FanotifyMountMarkEntry { mnt_id: 1, path });
            },
        ];
        for spoil in spoilt {
            let mut mark = inode.clone();
            spoil(&mut mark);
            read(&mark).unwrap_err();
        }
    }
}
