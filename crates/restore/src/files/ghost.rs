//! Files without a name: made again from `ghost-file-*.img`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use gelid_image::messages::{GhostChunkEntry, GhostFileEntry, Timeval};
use gelid_image::{Dir, ImageKind, ReadError};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::place::{Entry, Names};
use super::{Error, Name};

/// A file that had no name any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ghost {
    /// Key of its image.
    pub id: u32,
    /// Device (major << 20 | minor) and inode it had.
    pub origin: Option<(u32, u64)>,
    /// `st_mode`.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Device of a device node, as `st_rdev`.
    pub rdev: u32,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Full size, if the contents are stored in pieces.
    pub pieces: Option<u64>,
    /// Times of last access and change; seconds and microseconds.
    pub times: Option<[(i64, u32); 2]>,
}

/// Reads the head of a ghost's image.
pub(super) fn read(dir: &Dir, id: u32, by: &str) -> Result<Ghost, Error> {
    let mut reader = match dir.reader(ImageKind::GhostFile, id) {
        Err(error) if error.is_missing() => {
            return Err(Error::Missing {
                by: by.to_owned(),
                what: "ghost",
                id: id.into(),
                image: "the image set",
            });
        }
        reader => reader?,
    };
    let entry: GhostFileEntry = reader.read_one()?;
    plan(id, entry)
}

fn plan(id: u32, entry: GhostFileEntry) -> Result<Ghost, Error> {
    let object = || format!("ghost-file-{id:x}.img");
    match FileType::from_raw_mode(entry.mode) {
        FileType::RegularFile | FileType::Directory | FileType::Fifo => {}
        FileType::CharacterDevice | FileType::BlockDevice => {}
        FileType::Symlink if entry.symlnk_target.is_some() => {}
        _ => {
            let rule = "a file without a name is a file, directory, FIFO, device or link";
            return Err(Error::invalid(
                object(),
                "mode",
                format!("{:#o}", entry.mode),
                rule,
            ));
        }
    }
    let pieces = match entry.chunks {
        Some(true) => {
            let size = entry.size.unwrap_or_default();
            if i64::try_from(size).is_err() {
                return Err(Error::invalid(
                    object(),
                    "size",
                    size,
                    "no file is that large",
                ));
            }
            Some(size)
        }
        _ => None,
    };
    let times = match (&entry.atim, &entry.mtim) {
        (Some(atim), Some(mtim)) => Some([time(object, atim)?, time(object, mtim)?]),
        _ => None,
    };
    Ok(Ghost {
        id,
        origin: entry.dev.zip(entry.ino),
        mode: entry.mode,
        owner: (entry.uid, entry.gid),
        rdev: entry.rdev.unwrap_or_default(),
        target: entry.symlnk_target,
        pieces,
        times,
    })
}

fn time(object: impl Fn() -> String, time: &Timeval) -> Result<(i64, u32), Error> {
    let micros = u32::try_from(time.tv_usec)
        .ok()
        .filter(|micros| *micros < 1_000_000);
    match micros {
        // A time before 1970 is stored as it is.
        Some(micros) => Ok((time.tv_sec.cast_signed(), micros)),
        None => {
            let rule = "a second has a million microseconds";
            Err(Error::invalid(object(), "tv_usec", time.tv_usec, rule))
        }
    }
}

impl Ghost {
    /// Type of the file.
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Makes it at its path, or beside it.
    pub(crate) fn make(
        &self,
        dir: &Dir,
        names: &mut Names<'_>,
        name: &Name,
        object: &str,
    ) -> Result<Entry, Error> {
        let directory = self.file_type() == FileType::Directory;
        let made = names.make(name, directory, |entry| self.make_node(entry));
        let entry = made.map_err(Error::system("make again", object))?;
        match self.file_type() {
            FileType::RegularFile => {
                let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.furnish(dir, open(&entry, flags, object)?, object)?;
            }
            FileType::Directory => {
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.dress(open(&entry, flags, object)?.as_fd(), object)?;
            }
            FileType::Fifo => {
                let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.dress(open(&entry, flags, object)?.as_fd(), object)?;
            }
            // Devices and links are not to be opened for that.
            _ => self.dress_node(&entry, object)?,
        }
        Ok(entry)
    }

    /// Gives a regular file its contents, and all that is known of it.
    pub(crate) fn furnish(&self, dir: &Dir, file: OwnedFd, object: &str) -> Result<(), Error> {
        let mut file = File::from(file);
        self.fill(dir, &mut file, object)?;
        self.dress(file.as_fd(), object)
    }

    fn make_node(&self, entry: &Entry) -> Result<(), Errno> {
        let (dir, name, mode) = (&entry.dir, &*entry.name, Mode::RUSR | Mode::WUSR);
        match self.file_type() {
            FileType::RegularFile => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                rustix::fs::openat(dir, name, flags, mode).map(drop)
            }
            FileType::Directory => rustix::fs::mkdirat(dir, name, Mode::RWXU),
            FileType::Symlink => {
                let target = self.target.as_deref().unwrap_or_default();
                rustix::fs::symlinkat(target, dir, name)
            }
            kind => {
                let (major, minor) = ((self.rdev >> 8) & 0xfff, self.minor());
                let device = rustix::fs::makedev(major, minor);
                rustix::fs::mknodat(dir, name, kind, mode, device)
            }
        }
    }

    fn minor(&self) -> u32 {
        (self.rdev & 0xff) | ((self.rdev >> 12) & 0xfff00)
    }

    /// Copies the contents from the image.
    fn fill(&self, dir: &Dir, file: &mut File, object: &str) -> Result<(), Error> {
        let mut reader = dir.reader(ImageKind::GhostFile, self.id)?;
        let _: GhostFileEntry = reader.read_one()?;
        let failed = |error: io::Error| Error::System {
            operation: "fill",
            object: object.to_owned(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        };
        let Some(size) = self.pieces else {
            let mut rest = reader.rest()?;
            return io::copy(&mut rest, file).map(drop).map_err(failed);
        };
        rustix::fs::ftruncate(&*file, size).map_err(Error::system("fill", object))?;
        while let Some(piece) = reader.next::<GhostChunkEntry>()? {
            if piece
                .off
                .checked_add(piece.len)
                .is_none_or(|end| end > size)
            {
                let object = format!("ghost-file-{:x}.img", self.id);
                let rule = "a piece ends before the file does";
                return Err(Error::invalid(object, "off", piece.off, rule));
            }
            file.seek(SeekFrom::Start(piece.off)).map_err(failed)?;
            let mut payload = reader.payload(piece.len)?;
            let copied = io::copy(&mut payload.by_ref(), file).map_err(failed)?;
            if copied < piece.len {
                return Err(Error::Read(ReadError::Truncated {
                    file: format!("ghost-file-{:x}.img", self.id),
                    offset: piece.off,
                    what: "piece of a file",
                    needed: piece.len,
                    available: copied,
                }));
            }
        }
        file.flush().map_err(failed)
    }

    /// Sets owner, mode and times of an open file.
    fn dress(&self, fd: impl AsFd, object: &str) -> Result<(), Error> {
        let fd = fd.as_fd();
        let (user, group) = self.users();
        rustix::fs::fchown(fd, user, group).map_err(Error::system("set the owner of", object))?;
        let mode = Mode::from_raw_mode(self.mode & 0o7777);
        rustix::fs::fchmod(fd, mode).map_err(Error::system("set the mode of", object))?;
        self.set_times(fd, object)
    }

    /// Sets the times of an open file; once more for directories, which change when others leave them.
    pub(crate) fn set_times(&self, fd: impl AsFd, object: &str) -> Result<(), Error> {
        let Some(times) = self.timestamps() else {
            return Ok(());
        };
        rustix::fs::futimens(fd, &times).map_err(Error::system("set the times of", object))
    }

    fn dress_node(&self, entry: &Entry, object: &str) -> Result<(), Error> {
        let (dir, name) = (&entry.dir, &*entry.name);
        let (user, group) = self.users();
        let there = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(dir, name, user, group, there)
            .map_err(Error::system("set the owner of", object))?;
        if self.file_type() != FileType::Symlink {
            let mode = Mode::from_raw_mode(self.mode & 0o7777);
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty())
                .map_err(Error::system("set the mode of", object))?;
        }
        let Some(times) = self.timestamps() else {
            return Ok(());
        };
        rustix::fs::utimensat(dir, name, &times, there)
            .map_err(Error::system("set the times of", object))
    }

    fn users(&self) -> (Option<Uid>, Option<Gid>) {
        let (user, group) = self.owner;
        // -1 is no user, it leaves the owner as it is.
        let user = (user != u32::MAX).then(|| Uid::from_raw(user));
        (user, (group != u32::MAX).then(|| Gid::from_raw(group)))
    }

    fn timestamps(&self) -> Option<Timestamps> {
        let time = |(seconds, micros): (i64, u32)| Timespec {
            tv_sec: seconds,
            tv_nsec: i64::from(micros) * 1000,
        };
        self.times.map(|[access, change]| Timestamps {
            last_access: time(access),
            last_modification: time(change),
        })
    }
}

fn open(entry: &Entry, flags: OFlags, object: &str) -> Result<OwnedFd, Error> {
    rustix::fs::openat(&entry.dir, &*entry.name, flags, Mode::empty())
        .map_err(Error::system("open", object))
}
