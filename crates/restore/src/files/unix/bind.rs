//! Names of sockets: bound as they were, relative ones from their directory, with their files.
//!
//! A thread with directories of its own does that: the kernel takes a name as it is given, and shows it so.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gelid_sys::unix;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, connect};

use super::super::place::{self, Entry, Names};
use super::super::{Error, Name};
use super::{Address, Bound, Listener};

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
pub(super) fn all(
    root: BorrowedFd<'_>,
    own: BorrowedFd<'_>,
    jobs: &[Job<'_>],
) -> Result<Made, Error> {
    let mut made = Made::default();
    let mut paths = Vec::new();
    for job in jobs {
        match &job.name.address {
            // Those that are gone come first: others may have their names now.
            Address::Path(path) if job.name.deleted => paths.insert(0, (job, path)),
            Address::Path(path) => paths.push((job, path)),
            Address::Abstract(name) => {
                let address = SocketAddrUnix::new_abstract_name(name);
                let bound = address.and_then(|address| rustix::net::bind(job.socket, &address));
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
            let mut binder = Binder::new(root, own)?;
            for (job, path) in paths {
                let node = binder.bind(job, path, &mut made.nodes)?;
                made.places.insert(job.owner, Place::Node(node));
            }
            binder.names.clear()
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
    root: BorrowedFd<'b>,
    own: BorrowedFd<'b>,
    names: Names<'b>,
}

impl<'b> Binder<'b> {
    fn new(root: BorrowedFd<'b>, own: BorrowedFd<'b>) -> Result<Self, Error> {
        let enter = || {
            unix::leave_directories()?;
            // Nobody may connect before the mode of a file is right.
            rustix::process::umask(Mode::RWXU | Mode::RWXG | Mode::RWXO);
            let (ours, theirs) = (rustix::fs::stat("/")?, rustix::fs::fstat(root)?);
            if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) {
                rustix::process::fchdir(root)?;
                rustix::process::chroot(".")?;
            }
            Ok(())
        };
        enter().map_err(Error::system("enter", "the root directory"))?;
        Ok(Self {
            root,
            own,
            names: Names::new(root),
        })
    }

    /// Binds a socket and gives its file.
    fn bind(&mut self, job: &Job<'_>, path: &[u8], nodes: &mut Nodes) -> Result<OwnedFd, Error> {
        let failed =
            |operation| Error::system(operation, format!("{} ({})", job.object, job.name.address));
        let entry = self.entry(job.name, path);
        let entry = entry.map_err(failed("find the directory of"))?;
        let aside = self.clear(&entry, job, nodes)?;
        let mut node = Node {
            made: None,
            aside,
            entry,
        };
        let address = SocketAddrUnix::new(path);
        let bound = address.and_then(|address| rustix::net::bind(job.socket, &address));
        bound.map_err(failed("bind"))?;
        let file = unix::node(job.socket).map_err(failed("look for the file of"))?;
        let stat = rustix::fs::fstat(&file).map_err(failed("look at the file of"))?;
        node.made = Some((stat.st_dev, stat.st_ino));
        let dressed = self.dress(file.as_fd(), job.name.permissions);
        dressed.map_err(failed("set owner and mode of the file of"))?;
        match job.name.deleted {
            true => node.undo().map_err(failed("unlink the file of"))?,
            false => nodes.0.push(node),
        }
        Ok(file)
    }

    /// Directory and name of a path; one that is missing is made for the moment if the file is gone too.
    fn entry(&mut self, name: &Bound, path: &[u8]) -> Result<Entry, Errno> {
        let base = name.directory.as_ref();
        if name.deleted {
            let full = match (base, path) {
                (_, [b'/', ..]) => path.to_vec(),
                (Some(base), path) => [b"/", base.relative(), b"/", path].concat(),
                (None, path) => [b"/", path].concat(),
            };
            if let Ok(full) = Name::new(&full) {
                // Others make and enter it, whatever the umask here is.
                let before = rustix::process::umask(Mode::empty());
                let made = self.names.entry(&full, true);
                rustix::process::umask(before);
                made?;
            }
        }
        match base {
            Some(base) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let base = self.names.open(&place::Place::Path(base.clone()), flags)?;
                rustix::process::fchdir(base)?;
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

    /// Moves out of the way what has the name now: the file of a socket that is gone, or, for the moment,
    /// anything.
    fn clear(&self, entry: &Entry, job: &Job<'_>, nodes: &Nodes) -> Result<Option<Entry>, Error> {
        let found = match entry.clone().identify() {
            Err(Errno::NOENT) => return Ok(None),
            found => found.map_err(Error::system("look for", &*job.object))?,
        };
        let ours = nodes.0.iter().any(|node| node.made == found.identity);
        let kind = found.file_type();
        if ours || kind != Ok(FileType::Socket) && !job.name.deleted {
            return Err(Error::Changed {
                object: format!("{} ({})", job.object, job.name.address),
                what: "type",
                recorded: "Socket".to_owned(),
                found: match (ours, kind) {
                    (false, Ok(kind)) => format!("{kind:?}"),
                    _ => "another socket".to_owned(),
                },
                remedy: "remove what is there now",
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

impl Place {
    /// Where a socket outside of the tree is.
    pub(super) fn outside(
        names: &Names<'_>,
        address: &Address,
        object: &str,
    ) -> Result<Self, Error> {
        let path = match address {
            Address::Abstract(name) => return Ok(Self::Abstract(name.clone())),
            Address::Path(path) => path,
        };
        let Ok(name) = Name::new(path) else {
            return Err(Error::Unsupported {
                object: object.to_owned(),
                what: "connected with a socket outside of the tree that has a relative name",
                remedy: "bind that to an absolute path",
            });
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let node = names.open(&place::Place::Path(name), flags);
        let failed = Error::system("find the peer of", format!("{object} ({address})"));
        node.map(Self::Node).map_err(failed)
    }

    /// Connects a socket with the one here.
    pub(super) fn connect(&self, socket: BorrowedFd<'_>, object: &str) -> Result<(), Error> {
        let address = match self {
            Self::Node(file) => SocketAddrUnix::new(format!("/proc/self/fd/{}", file.as_raw_fd())),
            Self::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
        };
        let connected = address.and_then(|address| connect(socket, &address));
        connected.map_err(Error::system("connect", object))
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
