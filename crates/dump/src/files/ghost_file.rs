//! Files without a name, contents and all. Section 12.3 of the format.

use std::os::fd::OwnedFd;

use gelid_image::messages::{GhostChunkEntry, GhostFileEntry, Timeval};
use gelid_image::{ImageKind, ImageWriter, Staging};
use gelid_sys::Errno;
use rustix::fs::{FileType, OFlags, SeekFrom, major, minor};

use super::{Error, Object, Stat, rdev};

/// Files from this size on are stored by their extents.
const CHUNKED: u64 = 12288;
/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// Writes the image of a file.
pub(super) fn write(staging: &Staging, id: u32, object: &Object<'_>) -> Result<(), Error> {
    let mut writer = staging.writer(ImageKind::GhostFile, id)?;
    let mut entry = entry(object.stat);
    match object.file_type() {
        FileType::RegularFile => {
            let file = object.reopen(OFlags::RDONLY)?;
            contents(&mut writer, entry, object, &file)?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(object.file, "", Vec::new());
            let target = target.map_err(object.failed("read the link"))?;
            entry.symlnk_target = Some(target.into_bytes());
            writer.push(&entry)?;
        }
        _ => {
            writer.push(&entry)?;
        }
    }
    Ok(writer.finish()?)
}

fn entry(stat: &Stat) -> GhostFileEntry {
    let device = matches!(
        FileType::from_raw_mode(stat.st_mode),
        FileType::CharacterDevice | FileType::BlockDevice
    );
    let time = |seconds: i64, nanoseconds: u64| {
        // Times before the epoch have no representation.
        Some(Timeval {
            tv_sec: u64::try_from(seconds).unwrap_or(0),
            tv_usec: nanoseconds / 1000,
        })
    };
    GhostFileEntry {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode,
        dev: Some(major(stat.st_dev) << 20 | minor(stat.st_dev) & 0xf_ffff),
        ino: Some(stat.st_ino),
        rdev: device.then(|| rdev(stat.st_rdev)),
        atim: time(stat.st_atime, stat.st_atime_nsec),
        mtim: time(stat.st_mtime, stat.st_mtime_nsec),
        ..GhostFileEntry::default()
    }
}

fn contents(
    writer: &mut ImageWriter,
    mut entry: GhostFileEntry,
    object: &Object<'_>,
    file: &OwnedFd,
) -> Result<(), Error> {
    let size = object.stat.st_size.unsigned_abs();
    if size < CHUNKED {
        writer.push(&entry)?;
        return copy(writer, object, file, 0, size);
    }
    (entry.chunks, entry.size) = (Some(true), Some(size));
    writer.push(&entry)?;
    let mut at = 0;
    while let Some((off, end)) = extent(object, file, at, size)? {
        let len = end - off;
        writer.push(&GhostChunkEntry { len, off })?;
        copy(writer, object, file, off, len)?;
        at = end;
    }
    Ok(())
}

/// The next range of data at or behind `at`.
fn extent(
    object: &Object<'_>,
    file: &OwnedFd,
    at: u64,
    size: u64,
) -> Result<Option<(u64, u64)>, Error> {
    if at >= size {
        return Ok(None);
    }
    let seek = |to| rustix::fs::seek(file, to);
    let start = match seek(SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // The file system does not know about holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, size))),
        Err(errno) => return Err(object.failed("look for data in")(errno)),
    };
    let end = seek(SeekFrom::Hole(start)).map_err(object.failed("look for holes in"))?;
    let (start, end) = (start.max(at), end.min(size));
    Ok((start < end).then_some((start, end)))
}

/// Copies exactly `len` bytes; what the file has lost meanwhile is zero.
fn copy(
    writer: &mut ImageWriter,
    object: &Object<'_>,
    file: &OwnedFd,
    mut at: u64,
    mut len: u64,
) -> Result<(), Error> {
    let mut buffer = vec![0; PIECE.min(usize::try_from(len).unwrap_or(PIECE))];
    while len > 0 {
        let want = usize::try_from(len).unwrap_or(PIECE).min(buffer.len());
        let read = match rustix::io::pread(file, &mut buffer[..want], at) {
            Ok(0) => {
                buffer.fill(0);
                want
            }
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(object.failed("read")(errno)),
        };
        writer.push_payload(&buffer[..read])?;
        at += read as u64;
        len -= read as u64;
    }
    Ok(())
}
