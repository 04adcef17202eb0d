//! Open files of the tree: planned from images, opened once for all tasks.
//!
//! **Model.** An *open file* (an open file description, in the words of `open(2)`) has an id in the images,
//! which descriptors, executables, directories and mappings refer to. [`FilesPlan::read`] reads and checks
//! everything that the images say about them, without any change of the machine.
//! [`FilesPlan::open`] opens each of them once, as a descriptor of the caller's own; tasks born by `fork`
//! afterwards inherit them all and move them to their places. [`OpenFiles`] holds them and undoes, when it is
//! dropped, whatever had to be changed on the machine.
//!
//! **Limitations.** What `SHORTCOMINGS.md` lists is refused.

mod abreast;
mod bpf_map;
mod build_id;
mod changed;
mod error;
mod eventfd;
mod eventpoll;
mod fanotify;
mod fifo;
mod file_lock;
mod flags;
mod ghost;
mod held;
mod holder;
mod inet;
mod inotify;
mod memfd;
mod mqueue;
mod name;
mod netlink;
mod network;
mod ns;
mod occupied;
mod of_dead;
mod of_process;
mod open;
mod opened;
mod options;
mod owner;
mod packet_sock;
mod pidfd;
mod pipe;
mod place;
mod read;
mod records;
mod regular;
mod remap;
mod roots;
mod signalfd;
mod sk_opts;
mod socket_option;
mod table;
mod target;
mod tcp;
#[cfg(test)]
mod tests;
mod timerfd;
mod tmpfile;
mod tty;
mod tun;
mod unix;
mod users;
mod vsock;

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;

use gelid_image::messages::{FileLockEntry, FsEntry};
use gelid_image::{Dir, ImageKind};

pub use bpf_map::BpfMap;
pub use error::Error;
pub use eventfd::Eventfd;
pub use eventpoll::{Eventpoll, Watch, Watching};
pub use fanotify::{Fanotify, Mark, Marked};
pub use fifo::Fifo;
pub use file_lock::{FileLock, FileLockKind, Left};
pub use flags::Flags;
pub use ghost::Ghost;
pub use held::Held;
pub(crate) use holder::Spare;
pub use inet::{Internet, Role};
pub use inotify::{Inotify, Notified, WatchedFile};
pub use memfd::{Memory, MemoryFile};
pub use mqueue::Queue;
pub use name::Name;
pub use netlink::Netlink;
pub(crate) use network::Networks;
pub use ns::Namespace;
pub use opened::OpenFiles;
pub use options::{Context, FileOptions, Inherit, Validation};
pub use owner::Owner;
pub use packet_sock::PacketSock;
pub use pidfd::{Pidfd, Whom};
pub use pipe::Pipe;
pub use regular::Regular;
pub use remap::Remap;
pub use roots::Roots;
pub(crate) use roots::{Closing, Mounted, is_own_root};
pub use signalfd::Signalfd;
pub use sk_opts::SocketOptions;
pub use socket_option::Values;
pub use table::PlannedFd;
pub use target::MemoryTarget;
pub use tcp::{State, Stream};
pub use timerfd::{Clock, Timerfd};
pub(crate) use tty::Session;
pub use tty::{Settings, Terminal};
pub use tun::Tun;
pub use unix::{Address, Bound, Listener, Origin, Target, Unix};
pub use vsock::Vsock;

/// All open files of a tree, and who has them.
#[derive(Debug, Clone)]
pub struct FilesPlan {
    dir: Dir,
    /// What is open holds them too.
    descriptions: Arc<BTreeMap<u32, Description>>,
    tables: BTreeMap<u32, Vec<PlannedFd>>,
    pipes: BTreeMap<u32, Pipe>,
    fifos: BTreeMap<u32, Pipe>,
    ghosts: BTreeMap<u32, Ghost>,
    memories: BTreeMap<u64, Memory>,
    /// By the table that is filled afterwards.
    watches: BTreeMap<u32, Vec<Watching>>,
    sockets: unix::Sockets,
    network: tcp::Network,
    lock_entries: Vec<FileLockEntry>,
    locks: Vec<FileLock>,
    terminals: tty::State,
    options: FileOptions,
}

/// An open file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its id.
    pub id: u32,
    /// Flags it was open with.
    pub flags: Flags,
    /// What it is.
    pub kind: Kind,
    /// Who gets signals about it.
    pub owner: Option<Owner>,
    /// Number in the images of the network namespace that it belongs to.
    pub network: Option<u32>,
}

/// What an open file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Anything opened by its path.
    Regular(Regular),
    /// An end of the pipe with this key.
    Pipe(u32),
    /// A FIFO.
    Fifo(Fifo),
    /// A memfd, or shared anonymous memory.
    Memory(MemoryFile),
    /// A message queue.
    Queue(Queue),
    /// A counter.
    Eventfd(Eventfd),
    /// A set of watched files.
    Eventpoll(Eventpoll),
    /// Signals.
    Signalfd(Signalfd),
    /// A timer.
    Timerfd(Timerfd),
    /// Watches of the file system.
    Inotify(Inotify),
    /// Watches of files, mounts and file systems.
    Fanotify(Fanotify),
    /// A map of BPF.
    BpfMap(Box<BpfMap>),
    /// A process.
    Pidfd(Pidfd),
    /// A queue of a TUN or TAP device.
    Tun(Tun),
    /// A namespace.
    Namespace(Namespace),
    /// A terminal.
    Terminal(Terminal),
    /// A Unix socket.
    Unix(Box<Unix>),
    /// A packet socket.
    PacketSock(Box<PacketSock>),
    /// A netlink socket.
    Netlink(Box<Netlink>),
    /// An internet socket.
    Internet(Box<Internet>),
    /// A socket between virtual machines.
    Vsock(Box<Vsock>),
    /// Given by the caller.
    Given(Given),
}

/// A descriptor that the caller gives (`--inherit-fd`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its number.
    pub fd: RawFd,
    /// What it stands for.
    pub key: String,
    /// Whether it may be opened once more if its access mode is another.
    pub reopen: bool,
}

/// Directories and mask of a task, as file ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directories {
    /// Current directory.
    pub cwd: u32,
    /// Root directory.
    pub root: u32,
    /// File mode creation mask.
    pub umask: u32,
}

impl FilesPlan {
    /// Reads what the images say about open files and about the descriptor tables with these ids. Changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error`]: what is missing, damaged, contradictory or not supported.
    pub fn read(dir: &Dir, tables: &[u32], options: &FileOptions) -> Result<Self, Error> {
        read::read(dir, tables, options)
    }

    /// The descriptors of a table; none if it was not asked for.
    #[must_use]
    pub fn table(&self, files_id: u32) -> &[PlannedFd] {
        self.tables.get(&files_id).map_or(&[], Vec::as_slice)
    }

    /// Number of open files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.descriptions.len()
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.descriptions.is_empty()
    }

    /// The lowest number above all that tables and watches need.
    #[must_use]
    pub fn first_free(&self) -> RawFd {
        self.numbers().max().map_or(0, |fd| fd + 1)
    }

    /// The numbers of all descriptors of all tables, and of those that files are watched by.
    pub fn numbers(&self) -> impl Iterator<Item = RawFd> {
        let watches = self.watches.values().flatten();
        let tables = self.tables.values().flatten();
        tables
            .map(|slot| slot.fd)
            .chain(watches.map(|watching| watching.watch.number))
    }

    /// An open file.
    #[must_use]
    pub fn description(&self, id: u32) -> Option<&Description> {
        self.descriptions.get(&id)
    }

    /// Numbers of processes that files belong to, and that may have ended.
    pub(crate) fn processes(&self) -> impl Iterator<Item = i32> {
        let files = self.descriptions.values();
        let of_file = |file: &Description| match &file.kind {
            Kind::Regular(regular) => match regular.remap {
                Some(Remap::Process(number)) => i32::try_from(number).ok(),
                _ => None,
            },
            Kind::Unix(socket) => socket.peer.map(|who| who.pid),
            _ => None,
        };
        files.filter_map(of_file).chain(self.sockets.senders())
    }

    /// Keys of the pages of shared memory that is to be filled.
    pub fn shared_memory(&self) -> impl Iterator<Item = u32> {
        self.memories.values().map(|memory| memory.shmid)
    }

    /// Reads directories and mask of a task.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] for directories that are not among the files.
    pub fn fs(&self, pid: i32) -> Result<Directories, Error> {
        let entry: FsEntry = self.dir.read_one(ImageKind::Fs, pid)?;
        for (what, id) in [
            ("current directory", entry.cwd_id),
            ("root directory", entry.root_id),
        ] {
            let kind = self.descriptions.get(&id).map(|file| &file.kind);
            if let Some(Kind::Regular(Regular {
                process: Some(_),
                name,
                ..
            })) = kind
            {
                return Err(of_process::foreign(&name.to_string()));
            }
            if !matches!(kind, Some(Kind::Regular(_) | Kind::Given(_))) {
                return Err(Error::Missing {
                    by: format!("the {what} of task {pid}"),
                    what: "directory",
                    id: id.into(),
                    image: "files.img",
                });
            }
        }
        Ok(Directories {
            cwd: entry.cwd_id,
            root: entry.root_id,
            umask: entry.umask.unwrap_or_default() & 0o777,
        })
    }

    /// Opens everything.
    ///
    /// # Errors
    ///
    /// [`Error`]: what cannot be opened or has changed. Nothing is open or changed then.
    pub fn open(&self, context: &Context<'_>) -> Result<OpenFiles, Error> {
        open::open(self, context)
    }

    /// The plan, a line for each open file and each descriptor.
    pub fn describe(&self) -> impl Iterator<Item = String> {
        let files = self
            .descriptions
            .values()
            .map(|file| self.describe_file(file));
        let tables = self.tables.iter().flat_map(|(id, slots)| {
            slots.iter().map(move |slot| {
                let cloexec = if slot.cloexec { ", closed on exec" } else { "" };
                format!(
                    "table {id}: descriptor {} -> file {}{cloexec}",
                    slot.fd, slot.id
                )
            })
        });
        let locks = self.locks.iter().map(ToString::to_string);
        files.chain(tables).chain(locks)
    }

    fn describe_file(&self, file: &Description) -> String {
        let position = match &file.kind {
            Kind::Regular(regular) => regular.position,
            Kind::Memory(memory) => memory.position,
            _ => None,
        };
        let what = match &file.kind {
            Kind::Regular(regular) => match &regular.remap {
                None => regular.name.to_string(),
                Some(Remap::Link(target)) => format!("{} from {target}", regular.name),
                Some(Remap::Ghost(id)) => format!("{} from ghost {id}", regular.name),
                Some(Remap::Process(_)) => format!("{} of a process that has ended", regular.name),
            },
            Kind::Pipe(id) => self.describe_pipe("pipe", *id, self.pipes.get(id)),
            Kind::Fifo(fifo) => {
                let pipe = self.fifos.get(&fifo.pipe);
                format!(
                    "{}, {}",
                    fifo.file.name,
                    self.describe_pipe("FIFO", fifo.pipe, pipe)
                )
            }
            Kind::Memory(memory) => match self.memories.get(&memory.inode) {
                Some(memory) => format!("{} of {} bytes", memory.label(), memory.size),
                None => "memory".to_owned(),
            },
            Kind::Queue(queue) => queue.to_string(),
            Kind::Eventfd(counter) => counter.to_string(),
            Kind::Eventpoll(set) => format!("set of {} watched files", set.watches.len()),
            Kind::Signalfd(signals) => signals.to_string(),
            Kind::Timerfd(timer) => timer.to_string(),
            Kind::Inotify(queue) => format!("{} watches of the file system", queue.watches.len()),
            Kind::Fanotify(group) => format!("{} marks in the file system", group.marks.len()),
            Kind::BpfMap(map) => map.to_string(),
            Kind::Pidfd(pidfd) => pidfd.to_string(),
            Kind::Tun(file) => file.to_string(),
            Kind::Namespace(namespace) => namespace.to_string(),
            Kind::Terminal(terminal) => terminal.describe(),
            Kind::Unix(socket) => socket.describe(),
            Kind::Internet(socket) => socket.describe(),
            Kind::Netlink(socket) => socket.to_string(),
            Kind::PacketSock(socket) => socket.to_string(),
            Kind::Vsock(socket) => socket.to_string(),
            Kind::Given(given) => format!("{} given as descriptor {}", given.key, given.fd),
        };
        let position = position.map(|position| format!(", at {position}"));
        let (id, flags) = (file.id, file.flags);
        format!(
            "file {id}: {what}, flags {flags}{}",
            position.unwrap_or_default()
        )
    }

    fn describe_pipe(&self, what: &str, id: u32, pipe: Option<&Pipe>) -> String {
        let bytes = pipe.map_or(0, |pipe| pipe.bytes);
        format!("{what} {id} with {bytes} bytes")
    }
}

impl Description {
    /// What to call it in messages.
    #[must_use]
    pub fn label(&self) -> String {
        Label(self).to_string()
    }
}

/// The same, written down only where there is a message.
#[derive(Debug, Clone, Copy)]
struct Label<'a>(&'a Description);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0.id;
        match &self.0.kind {
            Kind::Regular(regular) => write!(f, "file {id} ({})", regular.name),
            Kind::Pipe(pipe) => write!(f, "file {id} (pipe {pipe})"),
            Kind::Fifo(fifo) => write!(f, "file {id} (FIFO {})", fifo.file.name),
            Kind::Memory(memory) => write!(f, "file {id} (memory object {})", memory.inode),
            Kind::Queue(queue) => write!(f, "file {id} ({queue})"),
            Kind::Eventfd(_) => write!(f, "file {id} (eventfd)"),
            Kind::Eventpoll(_) => write!(f, "file {id} (epoll set)"),
            Kind::Signalfd(_) => write!(f, "file {id} (signalfd)"),
            Kind::Timerfd(_) => write!(f, "file {id} (timerfd)"),
            Kind::Inotify(_) => write!(f, "file {id} (inotify)"),
            Kind::Fanotify(_) => write!(f, "file {id} (fanotify)"),
            Kind::BpfMap(_) => write!(f, "file {id} (BPF map)"),
            Kind::Pidfd(_) => write!(f, "file {id} (pidfd)"),
            Kind::Tun(file) => write!(f, "file {id} ({})", file.name),
            Kind::Namespace(namespace) => write!(f, "file {id} ({} namespace)", namespace.kind),
            Kind::Terminal(_) => write!(f, "file {id} (terminal)"),
            Kind::Unix(socket) => write!(f, "file {id} (socket:[{}])", socket.inode),
            Kind::Internet(socket) => write!(f, "file {id} ({})", socket.label()),
            Kind::PacketSock(_) => write!(f, "file {id} (packet socket)"),
            Kind::Netlink(socket) => write!(f, "file {id} (socket:[{}])", socket.inode),
            Kind::Vsock(socket) => write!(f, "file {id} ({socket})"),
            Kind::Given(given) => write!(f, "file {id} ({})", given.key),
        }
    }
}
