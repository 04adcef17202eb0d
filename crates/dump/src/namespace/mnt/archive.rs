//! An archive of a file system, as `tar(1)` understands it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use flate2::Compression;
use flate2::write::GzEncoder;
use gelid_sys::Errno;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat, fgetxattr, flistxattr,
    major, minor, openat2, readlinkat, seek, statat,
};
use tar::{Builder, EntryType, GnuExtSparseHeader, Header};

use crate::namespace::Census;

/// What extended attributes are called in an archive.
const XATTR: &str = "SCHILY.xattr.";
/// What a socket in a directory is called there, since an archive has no entries of that type.
const SOCKET: &str = "GELID.socket";
/// Bytes that a name in a header has.
const SHORT: usize = 100;
/// Pieces of a sparse file that the first header tells, and each further one.
const PIECES: (usize, usize) = (4, 21);

/// Archives all that is below a directory on its file system.
pub(super) fn write(root: BorrowedFd<'_>, file: File, census: &Census) -> io::Result<()> {
    let packed = GzEncoder::new(BufWriter::new(file), Compression::fast());
    let mut writer = Writer {
        root,
        census,
        device: rustix::fs::fstat(root)?.st_dev,
        tar: Builder::new(packed),
        links: HashMap::new(),
    };
    writer.all()?;
    writer
        .tar
        .into_inner()?
        .finish()?
        .into_inner()?
        .sync_data()
        .or(Ok(()))
}

struct Writer<'a, W: Write> {
    root: BorrowedFd<'a>,
    census: &'a Census,
    device: u64,
    tar: Builder<W>,
    /// The first name of files with several.
    links: HashMap<u64, Vec<u8>>,
}

impl<W: Write> Writer<'_, W> {
    fn all(&mut self) -> io::Result<()> {
        let mut waiting: Vec<Vec<u8>> = vec![b".".to_vec()];
        while let Some(path) = waiting.pop() {
            let dir = self.open(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let stat = rustix::fs::fstat(&dir)?;
            let mut members = Vec::new();
            for name in names(&dir)? {
                let stat = statat(&dir, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
                // Something else may be mounted there, that could not be left out.
                if stat.st_dev == self.device {
                    members.push((name, stat));
                }
            }
            let sockets = members.iter().filter(|(_, stat)| is_socket(stat));
            let sockets = sockets.map(|(name, stat)| self.socket(name, stat));
            self.extend(&stat, Some(dir.as_fd()), sockets.collect())?;
            let mut header = self.header(&stat, EntryType::Directory);
            let name = [&*path, b"/"].concat();
            self.put(&mut header, &name, b"", io::empty())?;
            let mut below = Vec::new();
            for (name, stat) in members {
                let path = [&*path, b"/", &*name].concat();
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => below.push(path),
                    _ => self.file(&dir, &name, &path, &stat)?,
                }
            }
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    fn open(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(openat2(self.root, path, flags, Mode::empty(), resolve)?)
    }

    fn file(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> io::Result<()> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryType::Regular,
            FileType::Symlink => EntryType::Symlink,
            FileType::Fifo => EntryType::Fifo,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            // Sockets are told with their directory.
            _ => return Ok(()),
        };
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino) {
                let first = first.clone();
                let mut header = self.header(stat, EntryType::Link);
                return self.put(&mut header, path, &first, io::empty());
            }
            self.links.insert(stat.st_ino, path.to_vec());
        }
        match kind {
            EntryType::Regular => {
                let file = self.open(path, OFlags::RDONLY | OFlags::NOATIME)?;
                self.extend(stat, Some(file.as_fd()), Vec::new())?;
                self.regular(path, stat, file)
            }
            EntryType::Symlink => {
                self.extend(stat, None, Vec::new())?;
                let target = readlinkat(dir, name, Vec::new())?.into_bytes();
                let mut header = self.header(stat, kind);
                self.put(&mut header, path, &target, io::empty())
            }
            _ => {
                self.extend(stat, None, Vec::new())?;
                let mut header = self.header(stat, kind);
                if kind != EntryType::Fifo {
                    header.set_device_major(major(stat.st_rdev))?;
                    header.set_device_minor(minor(stat.st_rdev))?;
                }
                self.put(&mut header, path, b"", io::empty())
            }
        }
    }

    /// The contents of a file, of which holes are left out.
    fn regular(&mut self, path: &[u8], stat: &Stat, file: OwnedFd) -> io::Result<()> {
        let size = stat.st_size.unsigned_abs();
        let pieces = pieces(&file, size)?;
        let stored = pieces.iter().map(|(_, len)| len).sum();
        let mut header = self.header(stat, EntryType::Regular);
        header.set_size(stored);
        let mut more = Vec::new();
        if stored != size {
            header.set_entry_type(EntryType::GNUSparse);
            more = sparse(&mut header, &pieces, size)?;
        }
        let data = Pieces {
            file: File::from(file),
            pieces: pieces.into_iter(),
            at: 0,
            left: 0,
        };
        self.put(&mut header, path, b"", more.as_slice().chain(data))
    }

    fn header(&self, stat: &Stat, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(self.census.users.uid(stat.st_uid).into());
        header.set_gid(self.census.users.gid(stat.st_gid).into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
        header.set_size(0);
        header
    }

    /// What a header cannot tell: exact times, extended attributes, and sockets in a directory.
    fn extend(
        &mut self,
        stat: &Stat,
        file: Option<BorrowedFd<'_>>,
        sockets: Vec<String>,
    ) -> io::Result<()> {
        let mut extensions = vec![
            (
                "mtime".to_owned(),
                time(stat.st_mtime, stat.st_mtime_nsec).into_bytes(),
            ),
            (
                "atime".to_owned(),
                time(stat.st_atime, stat.st_atime_nsec).into_bytes(),
            ),
        ];
        if let Some(file) = file {
            for name in attributes(file)? {
                let value = value(file, &name)?;
                extensions.push((format!("{XATTR}{name}"), value));
            }
        }
        let sockets = sockets.into_iter();
        extensions.extend(sockets.map(|socket| (SOCKET.to_owned(), socket.into_bytes())));
        let extensions = extensions.iter();
        let extensions = extensions.map(|(key, value)| (key.as_str(), value.as_slice()));
        self.tar.append_pax_extensions(extensions)
    }

    /// A socket, which is there again if nobody binds it: mode, owner, group, times, name.
    fn socket(&self, name: &[u8], stat: &Stat) -> String {
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "{:o} {} {} {} {} {name}",
            stat.st_mode & 0o7777,
            self.census.users.uid(stat.st_uid),
            self.census.users.gid(stat.st_gid),
            time(stat.st_mtime, stat.st_mtime_nsec),
            time(stat.st_atime, stat.st_atime_nsec),
        )
    }

    /// Writes an entry, with its names before it if they do not fit.
    fn put(
        &mut self,
        header: &mut Header,
        path: &[u8],
        target: &[u8],
        data: impl Read,
    ) -> io::Result<()> {
        for (name, kind) in [
            (path, EntryType::GNULongName),
            (target, EntryType::GNULongLink),
        ] {
            if name.len() > SHORT {
                let mut long = Header::new_gnu();
                long.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
                long.set_entry_type(kind);
                long.set_size(name.len() as u64 + 1);
                long.set_mtime(0);
                long.set_cksum();
                self.tar.append(&long, name.chain(&b"\0"[..]))?;
            }
        }
        let old = header.as_old_mut();
        let (name, link) = (path.len().min(SHORT), target.len().min(SHORT));
        old.name[..name].copy_from_slice(&path[..name]);
        old.linkname[..link].copy_from_slice(&target[..link]);
        header.set_cksum();
        self.tar.append(header, data)
    }
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

/// Seconds with their fraction.
fn time(seconds: i64, nanos: u64) -> String {
    match seconds {
        0.. => format!("{seconds}.{nanos:09}"),
        // Before 1970 nobody counts nanoseconds.
        _ => seconds.to_string(),
    }
}

/// Names in a directory, sorted.
fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(&*name, b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut list = vec![0; 64 << 10];
    let len = match flistxattr(file, &mut list) {
        Err(Errno::OPNOTSUPP) => 0,
        len => len?,
    };
    let names = list.get(..len).unwrap_or_default().split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    Ok(names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

fn value(file: BorrowedFd<'_>, name: &str) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 64 << 10];
    let len = fgetxattr(file, name, &mut value)?;
    value.truncate(len);
    match value.contains(&b'\n') {
        // Whoever reads archives takes it for the end of the value.
        true => Err(io::Error::other(format!(
            "the attribute {name} of a file has a byte 10, which no archive can tell: remove it"
        ))),
        false => Ok(value),
    }
}

/// Where a file has data, and how much.
fn pieces(file: &OwnedFd, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            start => start?.min(size),
        };
        at = seek(file, SeekFrom::Hole(start))?.min(size);
        if start < at {
            pieces.push((start, at - start));
        }
    }
    Ok(pieces)
}

/// Tells in a header where the data of a file belong, and in what follows it; gives the latter.
fn sparse(header: &mut Header, pieces: &[(u64, u64)], size: u64) -> io::Result<Vec<u8>> {
    // Ends the list, as the last hole is not told otherwise.
    let pieces = pieces
        .iter()
        .copied()
        .chain([(size, 0)])
        .collect::<Vec<_>>();
    let gnu = header
        .as_gnu_mut()
        .ok_or_else(|| io::Error::other("no GNU header"))?;
    gnu.set_real_size(size);
    let (first, rest) = pieces.split_at(pieces.len().min(PIECES.0));
    for (slot, (offset, len)) in gnu.sparse.iter_mut().zip(first) {
        slot.set_offset(*offset);
        slot.set_length(*len);
    }
    gnu.set_is_extended(!rest.is_empty());
    let mut more = Vec::new();
    let mut chunks = rest.chunks(PIECES.1).peekable();
    while let Some(chunk) = chunks.next() {
        let mut extended = GnuExtSparseHeader::new();
        for (slot, (offset, len)) in extended.sparse_mut().iter_mut().zip(chunk) {
            slot.set_offset(*offset);
            slot.set_length(*len);
        }
        extended.set_is_extended(chunks.peek().is_some());
        more.extend_from_slice(extended.as_bytes());
    }
    Ok(more)
}

/// The data of a file, without its holes.
struct Pieces {
    file: File,
    pieces: std::vec::IntoIter<(u64, u64)>,
    at: u64,
    left: u64,
}

impl Read for Pieces {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            match self.pieces.next() {
                None => return Ok(0),
                Some((at, len)) => (self.at, self.left) = (at, len),
            }
        }
        let want = to
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = match rustix::io::pread(&self.file, &mut to[..want], self.at)? {
            // It has shrunk meanwhile: what is gone is zero.
            0 => {
                to[..want].fill(0);
                want
            }
            read => read,
        };
        (self.at, self.left) = (self.at + read as u64, self.left - read as u64);
        Ok(read)
    }
}
