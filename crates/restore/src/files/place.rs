//! Names of files on the machine: found, made for a moment, and removed again.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use gelid_sys::handle;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{Error, Name, Roots};

/// What is put behind a name that is taken.
const OCCUPIED: &[u8] = b".cr_link";

/// How often a path is tried that others rename meanwhile.
const RENAMES: usize = 8;

/// Where a file can be opened.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// At its own path.
    Path(Name),
    /// Under a name in a directory that is open.
    Entry(Entry),
}

/// A name in a directory that is open.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) dir: Arc<OwnedFd>,
    pub(crate) name: Vec<u8>,
    /// Device and inode of what is meant.
    pub(crate) identity: Option<(u64, u64)>,
}

impl Entry {
    fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.dir, &*self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Removes the name.
    pub(crate) fn remove(&self, directory: bool) -> Result<(), Errno> {
        let flags = match directory {
            true => AtFlags::REMOVEDIR,
            false => AtFlags::empty(),
        };
        rustix::fs::unlinkat(&self.dir, &*self.name, flags)
    }

    /// The type of what is there now.
    pub(crate) fn file_type(&self) -> Result<FileType, Errno> {
        self.stat()
            .map(|stat| FileType::from_raw_mode(stat.st_mode))
    }

    /// Gives it another name, with something behind its own one.
    pub(crate) fn moved(&self, suffix: &str) -> Result<Self, Errno> {
        let other = Self {
            dir: self.dir.clone(),
            name: [&self.name, suffix.as_bytes()].concat(),
            identity: self.identity,
        };
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(&self.dir, &*self.name, &self.dir, &*other.name, flags)?;
        Ok(other)
    }

    /// Notes what is there now.
    pub(crate) fn identify(mut self) -> Result<Self, Errno> {
        let stat = self.stat()?;
        self.identity = Some((stat.st_dev, stat.st_ino));
        Ok(self)
    }

    /// The name to take instead if this one is occupied.
    fn beside(&self) -> Self {
        Self {
            dir: self.dir.clone(),
            name: [&self.name, OCCUPIED].concat(),
            identity: None,
        }
    }
}

/// Names below a root. What is made for a moment is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    roots: Roots<'a>,
    parents: HashMap<Name, Arc<OwnedFd>>,
    /// In the order they were made, and whether it is a directory.
    made: Vec<(Entry, bool)>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(roots: Roots<'a>) -> Self {
        Self {
            roots,
            parents: HashMap::new(),
            made: Vec::new(),
        }
    }

    /// Opens what is at a place.
    pub(crate) fn open(&self, place: &Place, flags: OFlags) -> Result<OwnedFd, Errno> {
        match place {
            Place::Path(name) => self.open_path(name, flags),
            Place::Entry(entry) => {
                rustix::fs::openat(&entry.dir, &*entry.name, flags, Mode::empty())
            }
        }
    }

    fn open_path(&self, name: &Name, flags: OFlags) -> Result<OwnedFd, Errno> {
        // It is the kernel's own, and openat2 wants none of it beside O_PATH.
        let flags = flags.difference(OFlags::LARGEFILE);
        let mut tries = RENAMES;
        loop {
            let (path, inside) = (name.relative(), ResolveFlags::IN_ROOT);
            match rustix::fs::openat2(self.roots.of(name), path, flags, Mode::empty(), inside) {
                Err(Errno::AGAIN | Errno::INTR) if tries > 0 => tries -= 1,
                opened => return opened,
            }
        }
    }

    /// What is at a place, without following a last link.
    pub(crate) fn stat(&self, place: &Place) -> Result<Stat, Errno> {
        match place {
            Place::Path(name) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::fstat(self.open_path(name, flags)?)
            }
            Place::Entry(entry) => entry.stat(),
        }
    }

    /// Name and directory of a path, whose directories are made for the moment if `make` says so.
    pub(crate) fn entry(&mut self, name: &Name, make: bool) -> Result<Entry, Errno> {
        let (parent, last) = name.split().ok_or(Errno::ISDIR)?;
        Ok(Entry {
            dir: self.parent(&parent, make)?,
            name: last.to_vec(),
            identity: None,
        })
    }

    fn parent(&mut self, name: &Name, make: bool) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(parent) = self.parents.get(name) {
            return Ok(parent.clone());
        }
        // The nearest directory that exists, and what is missing below it.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut missing = Vec::new();
        let mut at = name.clone();
        let mut dir = loop {
            match (self.open_path(&at, flags), at.split()) {
                (Err(Errno::NOENT), Some((parent, _))) if make => {
                    missing.push(at);
                    at = parent;
                }
                (opened, _) => break Arc::new(opened?),
            }
        };
        for name in missing.into_iter().rev() {
            let last = name.split().map(|(_, last)| last.to_vec());
            let entry = Entry {
                dir,
                name: last.unwrap_or_default(),
                identity: None,
            };
            rustix::fs::mkdirat(&entry.dir, &*entry.name, Mode::RWXU)?;
            self.made.push((entry.clone(), true));
            let flags = flags | OFlags::NOFOLLOW;
            let opened = rustix::fs::openat(&entry.dir, &*entry.name, flags, Mode::empty())?;
            dir = Arc::new(opened);
            self.parents.insert(name, dir.clone());
        }
        self.parents.insert(name.clone(), dir.clone());
        Ok(dir)
    }

    /// Makes something of a path by `make`, under a name beside it if the path is taken.
    pub(crate) fn make(
        &mut self,
        name: &Name,
        directory: bool,
        make: impl Fn(&Entry) -> Result<(), Errno>,
    ) -> Result<Entry, Errno> {
        let mut entry = self.entry(name, true)?;
        let made = match make(&entry) {
            Err(Errno::EXIST) => {
                entry = entry.beside();
                make(&entry)
            }
            made => made,
        };
        made?;
        self.made.push((entry.clone(), directory));
        entry.identify()
    }

    /// Gives what `source` names the path `name` as well.
    pub(crate) fn link(&mut self, source: &Entry, name: &Name) -> Result<Entry, Errno> {
        let linked = self.make(name, false, |entry| {
            let (from, to) = (&source.dir, &entry.dir);
            match rustix::fs::linkat(from, &*source.name, to, &*entry.name, AtFlags::empty()) {
                Err(Errno::XDEV) => link_across(source, entry),
                linked => linked,
            }
        })?;
        match linked.identity == source.identity {
            true => Ok(linked),
            false => Err(Errno::STALE),
        }
    }

    /// Removes a name that was made.
    pub(crate) fn remove(&mut self, entry: &Entry) -> Result<(), Errno> {
        let same = |made: &Entry| Arc::ptr_eq(&made.dir, &entry.dir) && made.name == entry.name;
        let Some(at) = self.made.iter().rposition(|(made, _)| same(made)) else {
            return Ok(());
        };
        let (made, directory) = self.made.remove(at);
        made.remove(directory)
    }

    /// Removes all that was made, the last first.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        let mut failed = None;
        while let Some((entry, directory)) = self.made.pop() {
            if let Err(errno) = entry.remove(directory) {
                let object = String::from_utf8_lossy(&entry.name).into_owned();
                failed.get_or_insert(Error::System {
                    operation: "remove",
                    object,
                    errno,
                });
            }
        }
        self.parents.clear();
        match failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Links a file into a directory that another mount of the same file system shows.
fn link_across(source: &Entry, entry: &Entry) -> Result<(), Errno> {
    let name = CString::new(&*source.name).map_err(|_| Errno::INVAL)?;
    let (kind, bytes) = handle::of(&source.dir, &name)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mount = rustix::fs::openat(&entry.dir, ".", flags, Mode::empty())?;
    let file = handle::open(&mount, kind, &bytes, OFlags::PATH)?;
    rustix::fs::linkat(&file, "", &entry.dir, &*entry.name, AtFlags::EMPTY_PATH)
}

impl Drop for Names<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!("{error}");
        }
    }
}

/// A name that goes away when everything has succeeded.
#[derive(Debug)]
pub(crate) struct Leftover(pub(crate) Entry);

impl Leftover {
    /// Removes it, if it is still what it was.
    pub(crate) fn remove(&self) {
        let same = self
            .0
            .clone()
            .identify()
            .map(|now| now.identity == self.0.identity);
        let removed = match same {
            Ok(true) => self.0.remove(false),
            Ok(false) => Err(Errno::STALE),
            Err(errno) => Err(errno),
        };
        if let Err(errno) = removed {
            let name = String::from_utf8_lossy(&self.0.name);
            tracing::warn!("cannot remove {name}: {errno}");
        }
    }

    /// The descriptor it depends on, at a number that is in nobody's way.
    pub(crate) fn raise(self, base: i32) -> Result<Self, Errno> {
        let dir = rustix::io::fcntl_dupfd_cloexec(self.0.dir.as_fd(), base)?;
        Ok(Self(Entry {
            dir: Arc::new(dir),
            ..self.0
        }))
    }
}
