//! Regular files and directories behind descriptors.
//!
//! `regular`: flags and positions of every kind of open. `append`: writes still go to the end. `path-only`: `O_PATH`.
//! `directory`: a position in the middle of a listing. `deleted`: a file without a name, its contents kept,
//! through two descriptors. `deleted-hard-linked`: the name is gone, another is left. `deleted-big`: with holes; `deleted-sparse`: with a terabyte of
//! them.
//! `deleted-directory`. `renamed`: opened under another name than it has now. `tmpfile`: never had a name.
//! `device-elsewhere`: a device of which another node has the name by now.

use crate::Entry;
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, ensure, same};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

pub(crate) const GUESTS: &[Entry] = &[
    Entry("regular", regular),
    Entry("append", append),
    Entry("path-only", path_only),
    Entry("directory", directory),
    Entry("deleted", deleted),
    Entry("deleted-hard-linked", deleted_hard_linked),
    Entry("deleted-big", deleted_big),
    Entry("deleted-sparse", deleted_sparse),
    Entry("deleted-directory", deleted_directory),
    Entry("renamed", renamed),
    Entry("device-elsewhere", device_elsewhere),
    Entry("tmpfile", tmpfile),
];

/// Open file flags as the kernel keeps them.
fn status_flags(file: &File) -> Check<i32> {
    os!(libc::fcntl(file.as_raw_fd(), libc::F_GETFL))
}

fn regular(guest: &Guest) -> Check {
    const LARGE: u64 = 5 << 32;
    let path = guest.path("data");
    fs::write(&path, b"0123456789")?;
    let open = |flags: i32| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(&path)
    };
    let mut files = vec![
        File::open(&path)?,
        OpenOptions::new().write(true).open(&path)?,
        open(0)?,
        open(libc::O_NONBLOCK)?,
        open(libc::O_SYNC)?,
        open(libc::O_DSYNC)?,
        open(libc::O_NOATIME)?,
        open(libc::O_NOFOLLOW)?,
        open(libc::O_DIRECT)?,
    ];
    let mut positions = vec![0, 3, 10, 7, 1, 2, 9, 5, 512];
    fs::write(guest.path("sparse"), b"")?;
    let sparse = OpenOptions::new()
        .read(true)
        .write(true)
        .open(guest.path("sparse"))?;
    sparse.set_len(LARGE + 100)?;
    files.push(sparse);
    positions.push(LARGE);
    for (file, position) in files.iter_mut().zip(&positions) {
        file.seek(SeekFrom::Start(*position))?;
    }
    let flags: Vec<i32> = files.iter().map(status_flags).collect::<Check<_>>()?;
    guest.hold()?;
    for (index, file) in files.iter_mut().enumerate() {
        same!(
            format!("flags of file {index}"),
            format!("{:#o}", status_flags(file)?),
            format!("{:#o}", flags[index])
        );
        same!(
            format!("position of file {index}"),
            file.stream_position()?,
            positions[index]
        );
    }
    let mut byte = [0];
    files[2].seek(SeekFrom::Start(4))?;
    files[2].read_exact(&mut byte)?;
    same!("byte read", byte, *b"4");
    ensure!(
        files[0].write(b"x").is_err() && files[1].read(&mut byte).is_err(),
        "access mode is not kept"
    );
    files[1].write_all(b"x")?;
    same!("contents", fs::read(&path)?, b"012x456789".to_vec());
    Ok(())
}

fn append(guest: &Guest) -> Check {
    let path = guest.path("log");
    let mut log = OpenOptions::new().append(true).create(true).open(&path)?;
    log.write_all(b"before\n")?;
    let mut other = log.try_clone()?;
    guest.hold()?;
    ensure!(
        status_flags(&log)? & libc::O_APPEND != 0,
        "O_APPEND is lost"
    );
    fs::write(&path, b"before\nin between\n")?;
    log.write_all(b"after\n")?;
    other.write_all(b"other\n")?;
    same!(
        "contents",
        fs::read_to_string(&path)?,
        "before\nin between\nafter\nother\n"
    );
    Ok(())
}

fn path_only(guest: &Guest) -> Check {
    fs::write(guest.path("data"), b"hello")?;
    std::os::unix::fs::symlink("data", guest.path("link"))?;
    let open = |name: &str, flags: i32| -> Check<File> {
        let path = std::ffi::CString::new(guest.path(name).into_os_string().into_encoded_bytes())?;
        let fd = os!(libc::open(path.as_ptr(), libc::O_PATH | flags))?;
        // SAFETY: just opened, and owned by nobody else.
        Ok(unsafe { File::from_raw_fd(fd) })
    };
    let file = open("data", libc::O_CLOEXEC)?;
    let directory = open(".", libc::O_DIRECTORY)?;
    guest.hold()?;
    for (what, file) in [("file", &file), ("directory", &directory)] {
        ensure!(
            status_flags(file)? & libc::O_PATH != 0,
            "{what}: O_PATH is lost"
        );
        ensure!((&mut &*file).read(&mut [0]).is_err(), "{what} can be read");
    }
    same!(
        "bytes",
        fs::read(format!("/proc/self/fd/{}", file.as_raw_fd()))?,
        b"hello".to_vec()
    );
    let at = os!(libc::openat(
        directory.as_raw_fd(),
        c"data".as_ptr(),
        libc::O_RDONLY
    ))?;
    os!(libc::close(at))?;
    Ok(())
}

/// Names read by `getdents64` until the end, or at most one buffer full of them.
fn names(directory: &File, whole: bool) -> Check<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut buffer = vec![0_u8; 1024];
    loop {
        let got = os!(libc::syscall(
            libc::SYS_getdents64,
            directory.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len()
        ))?;
        let mut rest = &buffer[..usize::try_from(got).unwrap_or(0)];
        while rest.len() > 19 {
            let len = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
            let name = rest[19..len]
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default();
            names.insert(String::from_utf8_lossy(name).into_owned());
            rest = &rest[len..];
        }
        if got == 0 || !whole {
            return Ok(names);
        }
    }
}

fn directory(guest: &Guest) -> Check {
    fs::create_dir(guest.path("many"))?;
    for index in 0..200 {
        fs::write(guest.path(&format!("many/file-{index}")), b"")?;
    }
    let open = File::open(guest.path("many"))?;
    let first = names(&open, false)?;
    ensure!(
        first.len() > 5 && first.len() < 100,
        "one buffer holds {} names",
        first.len()
    );
    guest.hold()?;
    let rest = names(&open, true)?;
    same!("names given twice", first.intersection(&rest).count(), 0);
    same!("names in all", first.len() + rest.len(), 202);
    Ok(())
}

fn deleted(guest: &Guest) -> Check {
    let path = guest.path("ghost");
    let mut one = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(&path)?;
    let mut other = OpenOptions::new().read(true).open(&path)?;
    one.write_all(b"hello ghost")?;
    other.seek(SeekFrom::Start(6))?;
    std::os::unix::fs::fchown(&one, Some(12), Some(34))?;
    fs::remove_file(&path)?;
    let before = one.metadata()?;
    guest.hold()?;
    ensure!(!path.exists(), "the deleted file is back");
    same!(
        "position",
        (one.stream_position()?, other.stream_position()?),
        (11, 6)
    );
    let mut text = String::new();
    other.read_to_string(&mut text)?;
    same!("contents", text, "ghost");
    one.write_all(b" rider")?; // both still are the same file
    text.clear();
    other.read_to_string(&mut text)?;
    same!("what the other descriptor sees", text, " rider");
    let data = one.metadata()?;
    same!(
        "mode, owner, group, links",
        (data.mode(), data.uid(), data.gid(), data.nlink()),
        (before.mode(), 12, 34, 0)
    );
    same!("the same inode", data.ino(), other.metadata()?.ino());
    Ok(())
}

fn deleted_hard_linked(guest: &Guest) -> Check {
    let (path, link) = (guest.path("first"), guest.path("second"));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    file.write_all(b"hello link")?;
    fs::hard_link(&path, &link)?;
    fs::remove_file(&path)?;
    guest.hold()?;
    ensure!(!path.exists(), "the deleted name is back");
    same!("position", file.stream_position()?, 10);
    file.write_all(b"!")?;
    same!(
        "contents under the other name",
        fs::read_to_string(&link)?,
        "hello link!"
    );
    same!(
        "the same inode",
        file.metadata()?.ino(),
        fs::metadata(&link)?.ino()
    );
    same!("links", file.metadata()?.nlink(), 1);
    Ok(())
}

fn deleted_big(guest: &Guest) -> Check {
    const LEN: u64 = 64 << 20;
    let path = guest.path("ghost");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    file.set_len(LEN)?;
    let places: Vec<u64> = (0..16)
        .map(|index| index * (LEN / 16) + index * 4096)
        .collect();
    for place in &places {
        file.write_all_at(&place.to_le_bytes(), *place)?;
    }
    fs::remove_file(&path)?;
    let before = file.metadata()?.blocks();
    guest.hold()?;
    same!("length", file.metadata()?.len(), LEN);
    let mut bytes = [0; 8];
    for place in &places {
        file.read_exact_at(&mut bytes, *place)?;
        same!(
            format!("word at {place:#x}"),
            u64::from_le_bytes(bytes),
            *place
        );
        file.read_exact_at(&mut bytes, *place + 8192)?;
        same!("word in a hole", u64::from_le_bytes(bytes), 0);
    }
    let blocks = file.metadata()?.blocks();
    ensure!(
        blocks <= before * 2 + 64,
        "holes were filled: {blocks} blocks, before {before}"
    );
    Ok(())
}

fn deleted_sparse(guest: &Guest) -> Check {
    const LEN: u64 = 1 << 40;
    let path = guest.path("ghost");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    if file.set_len(LEN).is_err() {
        return Err(Failure::skip("files cannot be so long here"));
    }
    let places = [0, 5 << 30, LEN - 4096];
    for place in places {
        file.write_all_at(&place.to_le_bytes(), place)?;
    }
    fs::remove_file(&path)?;
    guest.hold()?;
    same!("length", file.metadata()?.len(), LEN);
    let mut bytes = [0; 8];
    for place in places {
        file.read_exact_at(&mut bytes, place)?;
        let at = format!("word at {place:#x}");
        same!(at, u64::from_le_bytes(bytes), place);
    }
    let blocks = file.metadata()?.blocks();
    ensure!(blocks < 1024, "holes were filled: {blocks} blocks");
    Ok(())
}

fn deleted_directory(guest: &Guest) -> Check {
    let path = guest.path("gone");
    fs::create_dir(&path)?;
    let open = File::open(&path)?;
    fs::remove_dir(&path)?;
    guest.hold()?;
    let data = open.metadata()?;
    ensure!(data.is_dir(), "the descriptor is no longer a directory");
    same!("links", data.nlink(), 0);
    ensure!(!path.exists(), "the deleted directory is back");
    Ok(())
}

fn renamed(guest: &Guest) -> Check {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(guest.path("old"))?;
    file.write_all(b"hello")?;
    fs::create_dir(guest.path("sub"))?;
    fs::rename(guest.path("old"), guest.path("sub/new name\n"))?;
    guest.hold()?;
    file.write_all(b" again")?;
    same!(
        "contents",
        fs::read_to_string(guest.path("sub/new name\n"))?,
        "hello again"
    );
    Ok(())
}

/// The node that it was opened by is another one of the same device by now.
fn device_elsewhere(guest: &Guest) -> Check {
    let path = guest.path("zero");
    let make = || {
        use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
        mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            Mode::RUSR,
            makedev(1, 5),
        )
    };
    make()?;
    let Ok(mut file) = File::open(&path) else {
        return Err(Failure::skip("nodes of devices do not work here"));
    };
    std::fs::rename(&path, guest.path("old"))?;
    make()?;
    guest.hold()?;
    let mut bytes = [1; 16];
    file.read_exact(&mut bytes)?;
    same!("read from zero", bytes, [0; 16]);
    Ok(())
}

fn tmpfile(guest: &Guest) -> Check {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(&guest.dir);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return Err(crate::protocol::Failure::skip(
                "the file system has no O_TMPFILE",
            ));
        }
        Err(error) => return Err(error.into()),
    };
    file.write_all(b"nameless")?;
    guest.hold()?;
    same!("position", file.stream_position()?, 8);
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0)?;
    same!("contents", bytes, *b"nameless");
    same!("links", file.metadata()?.nlink(), 0);
    Ok(())
}
