//! An image directory, held by descriptor.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::schema::Record;
use crate::source::{Kept, Source};
use crate::{ImageKind, ImageReader, Key, ReadError};

/// Layout of the files of a set (section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Layout 1.0: the type magic alone.
    V1_0,
    /// Layout 1.1: the common word, then the type magic.
    V1_1,
}

/// An image directory. All access goes through its descriptor, so renaming or replacing the
/// directory meanwhile does no harm. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct Dir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    label: String,
    layout: OnceLock<Layout>,
    kept: Kept,
}

impl Dir {
    /// Opens an existing directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let label = path.display().to_string();
        match open_dir(rustix::fs::CWD, path.as_os_str()) {
            Ok(fd) => Ok(Self::from_fd(fd, label)),
            Err(source) => Err(ReadError::Open {
                file: label,
                source,
            }),
        }
    }

    /// Takes a descriptor of a directory; `label` stands for it in messages.
    pub fn from_fd(fd: OwnedFd, label: impl Into<String>) -> Self {
        let inner = Inner {
            fd,
            label: label.into(),
            layout: OnceLock::new(),
            kept: Kept::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The parent set of an incremental dump (section 10.1): where the link `parent` leads.
    pub fn parent(&self) -> Result<Option<Dir>, ReadError> {
        let label = format!("{}/parent", self.label());
        match open_dir(self.as_fd(), OsStr::new("parent")) {
            Ok(fd) => Ok(Some(Self::from_fd(fd, label))),
            Err(Errno::NOENT) => Ok(None),
            Err(source) => Err(ReadError::Open {
                file: label,
                source,
            }),
        }
    }

    /// Another directory, at a path relative to this one.
    pub fn beside(&self, path: &Path) -> Result<Dir, ReadError> {
        let label = path.display().to_string();
        match open_dir(self.as_fd(), path.as_os_str()) {
            Ok(fd) => Ok(Self::from_fd(fd, label)),
            Err(source) => Err(ReadError::Open {
                file: label,
                source,
            }),
        }
    }

    /// What to call the directory in messages.
    pub fn label(&self) -> &str {
        &self.inner.label
    }

    /// The image version the inventory names, read without decoding anything else of the set:
    /// 2 is layout 1.1, 1 is layout 1.0, 0 is a pre-dump.
    pub fn version(&self) -> Result<u64, ReadError> {
        let mut inventory = self.reader_with(ImageKind::Inventory, Key::None, Layout::V1_1)?;
        inventory.version()
    }

    /// Layout of the set. A directory without inventory, or one of a pre-dump, has the current
    /// one.
    pub fn layout(&self) -> Result<Layout, ReadError> {
        if let Some(layout) = self.inner.layout.get() {
            return Ok(*layout);
        }
        let layout = match self.version() {
            Ok(0 | 2) => Layout::V1_1,
            Ok(1) => Layout::V1_0,
            Ok(found) => return Err(ReadError::Version { found }),
            // Not remembered: the inventory may be written later.
            Err(error) if error.is_missing() => return Ok(Layout::V1_1),
            Err(error) => return Err(error),
        };
        Ok(*self.inner.layout.get_or_init(|| layout))
    }

    /// Opens an image and checks its magic. See [`ReadError::is_missing`] for absent files.
    pub fn reader(&self, kind: ImageKind, key: impl Into<Key>) -> Result<ImageReader, ReadError> {
        let layout = match kind {
            ImageKind::Inventory => Layout::V1_1,
            _ => self.layout()?,
        };
        self.reader_with(kind, key.into(), layout)
    }

    /// The same, or `None` if the file is missing.
    pub fn reader_opt(
        &self,
        kind: ImageKind,
        key: impl Into<Key>,
    ) -> Result<Option<ImageReader>, ReadError> {
        match self.reader(kind, key) {
            Ok(reader) => Ok(Some(reader)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn reader_with(
        &self,
        kind: ImageKind,
        key: Key,
        layout: Layout,
    ) -> Result<ImageReader, ReadError> {
        let name = kind.file_name(key).ok_or(ReadError::BadKey { kind, key })?;
        let source = match self.inner.kept.get(&name) {
            Some(kept) => kept,
            None if kind.is_of_a_set() && !self.inner.kept.may_have(&name) => {
                let source = Errno::NOENT;
                return Err(ReadError::Open { file: name, source });
            }
            None => {
                let (file, len) = self.raw_sized(&name)?;
                (Source::File(file), len)
            }
        };
        ImageReader::from_source(source, kind, name, layout)
    }

    /// The one record of an image; a missing file is an error.
    pub fn read_one<M: Record>(
        &self,
        kind: ImageKind,
        key: impl Into<Key>,
    ) -> Result<M, ReadError> {
        self.reader(kind, key)?.read_one()
    }

    /// The one record of an image, or `None` if the file is missing.
    pub fn read_opt<M: Record>(
        &self,
        kind: ImageKind,
        key: impl Into<Key>,
    ) -> Result<Option<M>, ReadError> {
        let reader = self.reader_opt(kind, key)?;
        reader.map(|mut reader| reader.read_one()).transpose()
    }

    /// All records of an image; a missing file is an empty list (section 2.4). Not for images
    /// with payloads between the records.
    pub fn read_all<M: Record>(
        &self,
        kind: ImageKind,
        key: impl Into<Key>,
    ) -> Result<Vec<M>, ReadError> {
        match self.reader_opt(kind, key)? {
            Some(mut reader) => reader.records().collect(),
            None => Ok(Vec::new()),
        }
    }

    /// Opens a file of the directory for reading, whatever it holds; only regular files.
    pub fn raw(&self, name: &str) -> Result<File, ReadError> {
        Ok(self.raw_sized(name)?.0)
    }

    /// The same, with its length.
    pub(crate) fn raw_sized(&self, name: &str) -> Result<(File, u64), ReadError> {
        if !plain(name) {
            return Err(ReadError::BadName { name: name.into() });
        }
        // Without O_NONBLOCK a FIFO planted here would make us wait for ever.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = |source| ReadError::Open {
            file: name.into(),
            source,
        };
        let fd = rustix::fs::openat(self, name, flags, Mode::empty()).map_err(open)?;
        let stat = rustix::fs::fstat(&fd).map_err(open)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ReadError::NotRegular { file: name.into() });
        }
        Ok((File::from(fd), stat.st_size as u64))
    }

    /// Lets images be decoded from these bytes from now on, which have been found to be what was written.
    pub(crate) fn keep(&self, name: &str, bytes: &[u8]) {
        self.inner.kept.put(name, bytes);
    }

    /// Lets no other images be there from now on: what nobody has compared with a checksum is none of the set.
    pub(crate) fn limit<'n>(&self, names: impl Iterator<Item = &'n str>) {
        self.inner.kept.limit(names);
    }

    /// Whole contents of a file, refused if larger than `limit` bytes.
    pub fn raw_bytes(&self, name: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        let (file, len) = self.raw_sized(name)?;
        let mut bytes = with_room(len.min(limit));
        let read = file.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| ReadError::Io {
            file: name.into(),
            offset: 0,
            what: "contents",
            source,
        })?;
        if bytes.len() as u64 > limit {
            return Err(ReadError::TooLarge {
                file: name.into(),
                offset: 0,
                size: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                limit: u32::try_from(limit).unwrap_or(u32::MAX),
            });
        }
        Ok(bytes)
    }

    /// Names of the files and directories in it, sorted; names that are not UTF-8 are left out,
    /// no image has one.
    pub fn names(&self) -> Result<Vec<String>, ReadError> {
        let open = |source| ReadError::Open {
            file: self.label().into(),
            source,
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self).map_err(open)? {
            let entry = entry.map_err(open)?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        names.sort();
        Ok(names)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

fn open_dir(at: impl AsFd, path: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(at, path.as_bytes(), flags, Mode::empty())
}

/// A buffer for the whole of a file, and for seeing its end.
pub(crate) fn with_room(len: u64) -> Vec<u8> {
    // With less left than this, a first read of few bytes would see whether there are any.
    const PROBE: usize = 32;
    Vec::with_capacity(len as usize + PROBE)
}

/// Whether a name stays inside the directory.
pub(crate) fn plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}
