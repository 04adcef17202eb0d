//! Names of sockets: bound as they were, relative ones from their directory, with their files.
//!
//! A thread with directories of its own does that: the kernel takes a name as it is given, and shows it so.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gelid_sys::diag::Diag;
use gelid_sys::unix;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::super::place::{self, Entry, Names};
use super::super::{Error, Name};
use super::somebody::Somebody;
use super::{Address, Bound, Listener};
use crate::files::{Roots, is_own_root};

/// What is put behind the name of a file that is in the way.
const ASIDE: &str = ".gelid-aside";

/// Mode of a file where none is recorded.
const MODE: u32 = 0o755;

/// A socket to be bound.
pub(super) struct Job<'j> {
    pub(super) owner: Listener,
    pub(super) socket: BorrowedFd<'j>,
    pub(super) name: &'j Bound,
    pub(super) object: String,
}

impl Job<'_> {
    /// The socket and its name.
    fn title(&self) -> String {
        format!("{} ({})", self.object, self.name.address)
    }

    fn bind(&self, path: &[u8]) -> Result<(), Error> {
        let address = unix::Address::path(path).ok_or(Errno::NAMETOOLONG);
        let bound = address.and_then(|address| unix::bind(self.socket, &address));
        bound.map_err(Error::system("bind", self.title()))
    }

    /// The file that it has just been bound to.
    fn node(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match unix::node(self.socket) {
            // It takes rights over the network namespace.
            Err(Errno::PERM) => rustix::fs::openat(CWD, path, flags, Mode::empty()),
            node => node,
        }
    }
}

/// What has become of the names.
#[derive(Default)]
pub(super) struct Made {
    pub(super) places: BTreeMap<Listener, Place>,
    pub(super) nodes: Nodes,
}

/// Where a bound socket can be reached.
#[derive(Debug)]
pub(super) enum Place {
    /// By its file, even if that has no name any more.
    Node(OwnedFd),
    /// By its name.
    Abstract(Vec<u8>),
}

/// Binds all sockets. `own` is the directory of one's own descriptors.
pub(super) fn all(roots: Roots<'_>, own: BorrowedFd<'_>, jobs: &[Job<'_>]) -> Result<Made, Error> {
    let mut made = Made::default();
    let mut paths = Vec::new();
    for job in jobs {
        match &job.name.address {
            Address::Path(path) => paths.push((job, path)),
            Address::Abstract(name) => {
                let address = unix::Address::named(name).ok_or(Errno::NAMETOOLONG);
                let bound = address.and_then(|address| unix::bind(job.socket, &address));
                if let (Listener::Stranger(_), Err(errno)) = (job.owner, bound) {
                    // Somebody else has the name by now.
                    tracing::warn!(
                        "a message has lost its sender {}: {errno}",
                        job.name.address
                    );
                    continue;
                }
                bound.map_err(Error::system("bind", &*job.object))?;
                let place = Place::Abstract(name.clone());
                made.places.insert(job.owner, place);
            }
        }
    }
    if paths.is_empty() {
        return Ok(made);
    }
    let bound = std::thread::scope(|scope| {
        let bind = || {
            let mut binder = Binder::new(roots, own)?;
            for (job, path) in paths {
                let node = binder.bind(job, path, &mut made.nodes)?;
                made.places.insert(job.owner, Place::Node(node));
            }
            Ok(())
        };
        scope.spawn(bind).join()
    });
    match bound {
        Ok(bound) => bound.map(|()| made),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A thread with directories of its own.
struct Binder<'b> {
    roots: Roots<'b>,
    /// That of the namespace of the next file.
    root: BorrowedFd<'b>,
    own: BorrowedFd<'b>,
    /// A file system that nobody sees, for files that are gone.
    limbo: Option<OwnedFd>,
}

impl<'b> Binder<'b> {
    fn new(roots: Roots<'b>, own: BorrowedFd<'b>) -> Result<Self, Error> {
        let root = roots.first();
        // Nobody may connect before the mode of a file is right.
        let closed = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        let entered = unix::leave_directories().and_then(|()| {
            rustix::process::umask(closed);
            enter(root)
        });
        entered.map_err(Error::system("enter", "the root directory"))?;
        Ok(Self {
            roots,
            root,
            own,
            limbo: None,
        })
    }

    /// Binds a socket and gives its file.
    fn bind(&mut self, job: &Job<'_>, path: &[u8], nodes: &mut Nodes) -> Result<OwnedFd, Error> {
        self.root = self.roots.of_mount(job.name.mount);
        enter(self.root).map_err(Error::system("enter", "the root directory"))?;
        if !job.name.deleted {
            return self.bind_here(job, path, nodes);
        }
        let limbo = match self.limbo.take() {
            Some(limbo) => limbo,
            None => match limbo() {
                // Then where it was, for a moment.
                Err(Errno::PERM) => return self.bind_here(job, path, &mut Nodes::default()),
                limbo => limbo.map_err(Error::system("make", "a file system of its own"))?,
            },
        };
        let bound = self.bind_there(limbo.as_fd(), job, path);
        self.limbo = Some(limbo);
        enter(self.root).map_err(Error::system("enter", "the root directory"))?;
        bound
    }

    /// Binds a socket to a file that stays.
    fn bind_here(&self, job: &Job<'_>, path: &[u8], nodes: &mut Nodes) -> Result<OwnedFd, Error> {
        let failed = |operation| Error::system(operation, job.title());
        let entry = self.entry(job.name, path);
        let entry = entry.map_err(failed("find the directory of"))?;
        let mut node = Node {
            made: None,
            aside: self.clear(&entry, job, nodes)?,
            entry,
        };
        job.bind(path)?;
        let file = job.node(path).map_err(failed("look for the file of"))?;
        let stat = rustix::fs::fstat(&file).map_err(failed("look at the file of"))?;
        node.made = Some((stat.st_dev, stat.st_ino));
        let dressed = self.dress(file.as_fd(), job.name.permissions);
        dressed.map_err(failed("set owner and mode of the file of"))?;
        nodes.0.push(node);
        Ok(file)
    }

    /// Binds a socket to a file that is gone, where that is in nobody's way.
    fn bind_there(
        &self,
        limbo: BorrowedFd<'_>,
        job: &Job<'_>,
        path: &[u8],
    ) -> Result<OwnedFd, Error> {
        let failed = |operation| Error::system(operation, job.title());
        let prepared = enter(limbo).and_then(|()| {
            if let Some(base) = &job.name.directory {
                make_directories(base.relative())?;
                rustix::process::chdir(base.relative())?;
            }
            let parent = path.iter().rposition(|byte| *byte == b'/');
            make_directories(&path[..parent.map_or(0, |at| at + 1)])
        });
        prepared.map_err(failed("make directories for"))?;
        job.bind(path)?;
        let file = job.node(path).map_err(failed("look for the file of"))?;
        let dressed = self.dress(file.as_fd(), job.name.permissions);
        dressed.map_err(failed("set owner and mode of the file of"))?;
        rustix::fs::unlink(path).map_err(failed("unlink the file of"))?;
        Ok(file)
    }

    /// Directory and name of a path.
    fn entry(&self, name: &Bound, path: &[u8]) -> Result<Entry, Errno> {
        match &name.directory {
            Some(base) => {
                rustix::process::fchdir(self.root)?;
                rustix::process::chdir(base.relative())?;
            }
            None => rustix::process::fchdir(self.root)?,
        }
        let (directory, last) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(0) => (&b"/"[..], &path[1..]),
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b"."[..], path),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Entry {
            dir: Arc::new(rustix::fs::openat(CWD, directory, flags, Mode::empty())?),
            name: last.to_vec(),
            identity: None,
        })
    }

    /// Moves out of the way what has the name now, if it is the file of a socket; whatever it is, if that is for a moment.
    fn clear(&self, entry: &Entry, job: &Job<'_>, nodes: &Nodes) -> Result<Option<Entry>, Error> {
        let found = match entry.clone().identify() {
            Err(Errno::NOENT) => return Ok(None),
            found => found.map_err(Error::system("look for", &*job.object))?,
        };
        let ours = nodes.0.iter().any(|node| node.made == found.identity);
        let kind = found.file_type();
        let brief = job.name.deleted;
        if !brief && (ours || kind != Ok(FileType::Socket)) {
            return Err(Error::Changed {
                object: job.title(),
                what: "type",
                recorded: "Socket".to_owned(),
                found: match (ours, kind) {
                    (false, Ok(kind)) => format!("{kind:?}"),
                    _ => "another socket".to_owned(),
                },
                remedy: "remove what is there now",
            });
        }
        if !brief
            && let Some((device, inode)) = found.identity
            && Diag::new().and_then(|diag| diag.is_unix_node(device, inode)) == Ok(true)
        {
            return Err(Error::Occupied {
                object: job.title(),
            });
        }
        let aside = found.moved(ASIDE);
        aside.map(Some).map_err(Error::system(
            "move aside what is at the name of",
            &*job.object,
        ))
    }

    /// Sets owner and mode of a file.
    fn dress(
        &self,
        file: BorrowedFd<'_>,
        permissions: Option<(u32, u32, u32)>,
    ) -> Result<(), Errno> {
        let mode = permissions.map_or(MODE, |(mode, ..)| mode);
        if let Some((_, user, group)) = permissions {
            // -1 is no user, it leaves the owner as it is.
            let user = (user != u32::MAX).then(|| Uid::from_raw(user));
            let group = (group != u32::MAX).then(|| Gid::from_raw(group));
            rustix::fs::chownat(file, "", user, group, AtFlags::EMPTY_PATH)?;
        }
        let name = file.as_raw_fd().to_string();
        rustix::fs::chmodat(self.own, name, Mode::from_raw_mode(mode), AtFlags::empty())
    }
}

/// Makes a directory the root and the working directory of the calling thread.
fn enter(root: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    match is_own_root(root)? {
        true => Ok(()),
        false => rustix::process::chroot("."),
    }
}

/// A new, empty file system, which is gone when nothing in it is open.
fn limbo() -> Result<OwnedFd, Errno> {
    let system = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&system)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&system, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Makes all directories of a path, which has no links in it.
fn make_directories(path: &[u8]) -> Result<(), Errno> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let ends = ends.map(|(at, _)| at).chain([path.len()]);
    for part in ends.map(|end| &path[..end]).filter(|part| !part.is_empty()) {
        match rustix::fs::mkdir(part, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl Place {
    /// Where a socket outside of the tree is.
    pub(super) fn outside(
        names: &Names<'_>,
        address: &Address,
        object: impl fmt::Display,
    ) -> Result<Self, Error> {
        let path = match address {
            Address::Abstract(name) => return Ok(Self::Abstract(name.clone())),
            Address::Path(path) => path,
        };
        let Ok(name) = Name::new(path) else {
            return Err(Error::Unsupported {
                object: object.to_string(),
                what: "connected with a socket outside of the tree that has a relative name",
                remedy: "bind that to an absolute path",
            });
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let node = names.open(&place::Place::Path(name), flags);
        let failed = Error::system("find the peer of", format!("{object} ({address})"));
        node.map(Self::Node).map_err(failed)
    }

    /// What it is called here and now.
    pub(super) fn address(&self) -> Option<unix::Address> {
        match self {
            Self::Node(file) => {
                unix::Address::path(format!("/proc/self/fd/{}", file.as_raw_fd()).as_bytes())
            }
            Self::Abstract(name) => unix::Address::named(name),
        }
    }

    /// Connects a socket with the one here, as somebody else if that is known.
    pub(super) fn connect(
        &self,
        socket: BorrowedFd<'_>,
        somebody: Option<Somebody<'_>>,
        object: impl fmt::Display,
    ) -> Result<(), Error> {
        let failed = Error::system("connect", object);
        let Some(address) = self.address() else {
            return Err(failed(Errno::NAMETOOLONG));
        };
        let connected = somebody.map(|somebody| somebody.connect(socket, &address));
        let plain = |_| unix::connect(socket, &address);
        connected
            .unwrap_or(Err(Errno::SRCH))
            .or_else(plain)
            .map_err(failed)
    }
}

/// Files of sockets. They vanish again when this is dropped, and what was there before comes back.
#[derive(Debug, Default)]
pub(in super::super) struct Nodes(Vec<Node>);

#[derive(Debug)]
struct Node {
    entry: Entry,
    /// Device and inode of the file made there.
    made: Option<(u64, u64)>,
    /// What was there before.
    aside: Option<Entry>,
}

impl Nodes {
    /// Takes over others.
    pub(in super::super) fn extend(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Brings the descriptors they depend on to numbers from `base` on.
    pub(in super::super) fn raise(&mut self, base: i32) -> Result<(), Errno> {
        for node in &mut self.0 {
            let dir = rustix::io::fcntl_dupfd_cloexec(node.entry.dir.as_fd(), base)?;
            let dir = Arc::new(dir);
            if let Some(aside) = &mut node.aside {
                aside.dir = dir.clone();
            }
            node.entry.dir = dir;
        }
        Ok(())
    }

    /// Leaves the files to the tree.
    pub(in super::super) fn keep(&mut self) {
        for mut node in self.0.drain(..) {
            node.made = None;
            if let Some(aside) = node.aside.take()
                && let Err(errno) = aside.remove(false)
            {
                let name = String::from_utf8_lossy(&aside.name);
                tracing::warn!("cannot remove {name}: {errno}");
            }
        }
    }
}

impl Node {
    /// Removes the file, and brings back what was there before.
    fn undo(&mut self) -> Result<(), Errno> {
        if let Some(made) = self.made.take() {
            let now = self.entry.clone().identify();
            if now.is_ok_and(|now| now.identity == Some(made)) {
                self.entry.remove(false)?;
            }
        }
        match self.aside.take() {
            Some(aside) => {
                let (from, to) = (&aside.dir, &self.entry.dir);
                let flags = RenameFlags::NOREPLACE;
                rustix::fs::renameat_with(from, &*aside.name, to, &*self.entry.name, flags)
            }
            None => Ok(()),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(errno) = self.undo() {
            let name = String::from_utf8_lossy(&self.entry.name);
            tracing::warn!("cannot put {name} back: {errno}");
        }
    }
}
