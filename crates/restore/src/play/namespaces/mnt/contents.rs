//! What was in a file system in memory: `tmpfs-dev-*.tar.gz.img`. Section 20.3 of the format.

mod extended;

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use flate2::read::MultiGzDecoder;
use gelid_image::{Dir, ImageKind, ReadError};
use gelid_sys::Errno;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid, chmodat, chownat, fchmod, fchown,
    ftruncate, futimens, linkat, makedev, mkdirat, mknodat, openat, statat, symlinkat, utimensat,
};
use tar::{Archive, Entry, EntryType};

use self::extended::{Extended, Socket};
use super::{Place, beneath, failed};
use crate::Error;

/// More bytes than a file system in memory holds.
const LARGEST: u64 = 1 << 40;
/// Bytes copied at once; where all of them are zero nothing is written.
const PIECE: usize = 64 << 10;

/// Fills a file system from its archive. One without an archive is empty.
pub(super) fn extract(
    dir: &Dir,
    key: u32,
    mount: BorrowedFd<'_>,
    place: &impl Place,
    label: &str,
) -> Result<(), Error> {
    let Some(name) = ImageKind::TmpfsDev.file_name(key) else {
        return Ok(());
    };
    let file = match dir.raw(&name) {
        Err(error) if is_missing(&error) => return Ok(()),
        file => file?,
    };
    let filler = Filler {
        root: mount,
        owner: &|uid, gid| place.owner(uid, gid),
        late: Vec::new(),
        left: LARGEST,
    };
    let filled = filler.fill(MultiGzDecoder::new(io::BufReader::new(file)));
    filled.map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::INVAL);
        failed("fill", format!("{label} from {name} ({error})"))(errno)
    })
}

fn is_missing(error: &ReadError) -> bool {
    error.is_missing()
}

/// Puts what an archive has into a directory, and nowhere else.
struct Filler<'a> {
    root: BorrowedFd<'a>,
    owner: &'a dyn Fn(u32, u32) -> (u32, u32),
    /// Directories that get their times when all is in them.
    late: Vec<(Vec<u8>, Timestamps)>,
    /// Bytes that may still come.
    left: u64,
}

/// Where something goes.
struct At {
    dir: OwnedFd,
    name: Vec<u8>,
}

impl Filler<'_> {
    fn fill(mut self, stream: impl Read) -> io::Result<()> {
        let mut archive = Archive::new(stream);
        for entry in archive.entries()? {
            self.entry(entry?)?;
        }
        for (path, times) in self.late.iter().rev() {
            let dir = beneath(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            futimens(&dir, times)?;
        }
        Ok(())
    }

    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        let path = clean(&entry.path_bytes())?;
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
        let owner = self.owner_of(&entry)?;
        let xattrs = Extended::read(&mut entry)?;
        let times = xattrs.times(entry.header().mtime()?);
        if path.is_empty() {
            let root = beneath(self.root, b"", OFlags::RDONLY | OFlags::DIRECTORY)?;
            return self.dress(root, path, (owner, mode), times, &xattrs);
        }
        let at = self.at(&path)?;
        match kind {
            EntryType::Directory => {
                match mkdirat(&at.dir, &*at.name, Mode::RWXU) {
                    Err(Errno::EXIST) => {}
                    made => made?,
                }
                let dir = beneath(at.dir.as_fd(), &at.name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                self.dress(dir, path, (owner, mode), times, &xattrs)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let flags = flags | OFlags::CLOEXEC;
                let file = openat(&at.dir, &*at.name, flags, Mode::RUSR | Mode::WUSR)?;
                self.copy(&mut entry, &file)?;
                fchown(&file, Some(owner.0), Some(owner.1))?;
                fchmod(&file, mode)?;
                xattrs.set(file.as_fd())?;
                Ok(futimens(&file, &times)?)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = self.at(&clean(&target)?)?;
                let none = AtFlags::empty();
                Ok(linkat(
                    &target.dir,
                    &*target.name,
                    &at.dir,
                    &*at.name,
                    none,
                )?)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                symlinkat(&*target, &at.dir, &*at.name)?;
                self.dress_at(&at, owner, None, times)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let header = entry.header();
                let device = || -> io::Result<u64> {
                    let major = header.device_major()?.unwrap_or_default();
                    let minor = header.device_minor()?.unwrap_or_default();
                    Ok(makedev(major, minor))
                };
                let (kind, device) = match kind {
                    EntryType::Char => (FileType::CharacterDevice, device()?),
                    EntryType::Block => (FileType::BlockDevice, device()?),
                    _ => (FileType::Fifo, 0),
                };
                mknodat(&at.dir, &*at.name, kind, mode, device)?;
                self.dress_at(&at, owner, Some(mode), times)
            }
            _ => Err(io::Error::other(format!("an entry of type {kind:?}"))),
        }
    }

    /// Opens the directory that something is in.
    fn at(&self, path: &[u8]) -> io::Result<At> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        Ok(At {
            dir: beneath(self.root, parent, OFlags::PATH | OFlags::DIRECTORY)?,
            name: name.to_vec(),
        })
    }

    fn owner_of(&self, entry: &Entry<'_, impl Read>) -> io::Result<(Uid, Gid)> {
        let small = |id: u64| u32::try_from(id).map_err(|_| io::Error::other("an owner"));
        self.owner((small(entry.header().uid()?)?, small(entry.header().gid()?)?))
    }

    fn owner(&self, (uid, gid): (u32, u32)) -> io::Result<(Uid, Gid)> {
        let (uid, gid) = (self.owner)(uid, gid);
        if uid == u32::MAX || gid == u32::MAX {
            return Err(io::Error::other("an owner that the user namespace lacks"));
        }
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn dress(
        &mut self,
        dir: OwnedFd,
        path: Vec<u8>,
        ((uid, gid), mode): ((Uid, Gid), Mode),
        times: Timestamps,
        xattrs: &Extended,
    ) -> io::Result<()> {
        fchown(&dir, Some(uid), Some(gid))?;
        fchmod(&dir, mode)?;
        xattrs.set(dir.as_fd())?;
        for socket in &xattrs.sockets {
            self.socket(dir.as_fd(), socket)?;
        }
        self.late.push((path, times));
        Ok(())
    }

    /// Makes a socket that nobody has. Whoever has it binds it anew.
    fn socket(&self, dir: BorrowedFd<'_>, socket: &Socket) -> io::Result<()> {
        let (uid, gid) = self.owner(socket.owner)?;
        mknodat(dir, &*socket.name, FileType::Socket, socket.mode, 0)?;
        let at = At {
            dir: dir.try_clone_to_owned()?,
            name: socket.name.clone(),
        };
        self.dress_at(&at, (uid, gid), Some(socket.mode), socket.times.clone())
    }

    fn dress_at(
        &self,
        at: &At,
        (uid, gid): (Uid, Gid),
        mode: Option<Mode>,
        times: Timestamps,
    ) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(&at.dir, &*at.name, Some(uid), Some(gid), flags)?;
        if let Some(mode) = mode {
            // It was made a moment ago in a place that nobody else knows, so it is no link.
            statat(&at.dir, &*at.name, flags)?;
            chmodat(&at.dir, &*at.name, mode, AtFlags::empty())?;
        }
        Ok(utimensat(&at.dir, &*at.name, &times, flags)?)
    }

    /// Writes the contents of a file, without what is zero.
    fn copy(&mut self, entry: &mut Entry<'_, impl Read>, file: &OwnedFd) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            let mut len = 0;
            while len < PIECE {
                match entry.read(&mut piece[len..])? {
                    0 => break,
                    read => len += read,
                }
            }
            let left = self.left.checked_sub(len as u64);
            self.left = left.ok_or_else(|| io::Error::other("too much of it"))?;
            let is_zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
            let pages = piece[..len].chunks(gelid_sys::PAGE_SIZE);
            for (page, offset) in pages.zip((at..).step_by(gelid_sys::PAGE_SIZE)) {
                let (mut rest, mut to) = (page, offset);
                while !rest.is_empty() && !is_zero(page) {
                    let written = rustix::io::pwrite(file, rest, to)?;
                    (rest, to) = (&rest[written..], to + written as u64);
                }
            }
            at += len as u64;
            if len < PIECE {
                break;
            }
        }
        Ok(ftruncate(file, at)?)
    }
}

/// A path of an archive, relative to its root, of which it may not lead out.
fn clean(path: &[u8]) -> io::Result<Vec<u8>> {
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(io::Error::other("a path that leads upwards")),
            part if part.contains(&0) => return Err(io::Error::other("a path with a zero byte")),
            part => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, kind, data) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            header.set_uid(7);
            header.set_gid(8);
            header.set_mtime(1_000_000);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name_literal(data).unwrap();
                header.set_size(0);
            } else {
                header.set_size(data.len() as u64);
            }
            // As a hostile writer would, without looking at the path.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            let data = if header.size().unwrap() == 0 {
                &[][..]
            } else {
                data
            };
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn fill(dir: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
        let own = std::fs::File::open(dir).unwrap();
        let me = (rustix::process::getuid(), rustix::process::getgid());
        let filler = Filler {
            root: own.as_fd(),
            owner: &|_, _| (me.0.as_raw(), me.1.as_raw()),
            late: Vec::new(),
            left: LARGEST,
        };
        filler.fill(MultiGzDecoder::new(bytes))
    }

    #[test]
    fn what_is_archived_appears() {
        let dir = tempfile::tempdir().unwrap();
        let zeros = vec![0; 3 * PIECE];
        let bytes = archive(&[
            ("./", EntryType::Directory, b""),
            ("./d/", EntryType::Directory, b""),
            ("./d/f", EntryType::Regular, b"text"),
            ("./zeros", EntryType::Regular, &zeros),
            ("./l", EntryType::Symlink, b"d/f"),
            ("./h", EntryType::Link, b"./d/f"),
            ("./p", EntryType::Fifo, b""),
        ]);
        std::fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .unwrap();
        fill(dir.path(), &bytes).unwrap();
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(dir.path().join("d/f")).unwrap();
        assert_eq!((file.nlink(), file.mode() & 0o7777), (2, 0o640));
        assert_eq!(file.mtime(), 1_000_000);
        assert_eq!(std::fs::read(dir.path().join("l")).unwrap(), b"text");
        let zeros = std::fs::metadata(dir.path().join("zeros")).unwrap();
        assert_eq!((zeros.len(), zeros.blocks()), (3 * PIECE as u64, 0));
    }

    #[test]
    fn nothing_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().to_str().unwrap().as_bytes().to_vec();
        for entries in [
            vec![("../x", EntryType::Regular, &b"x"[..])],
            vec![
                ("./l", EntryType::Symlink, &*target),
                ("./l/x", EntryType::Regular, b"x"),
            ],
            vec![("./h", EntryType::Link, b"../../etc/passwd")],
            vec![("./x", EntryType::XGlobalHeader, b"")],
        ] {
            let dir = tempfile::tempdir().unwrap();
            let _ = fill(dir.path(), &archive(&entries));
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
            assert!(!dir.path().join("h").exists());
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(fill(dir.path(), b"no archive").is_err());
    }
}
