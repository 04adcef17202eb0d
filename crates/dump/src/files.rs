//! Open files: descriptors, executables, mapped files, directories. Sections 4.3, 11 to 13 and 16 to 18 of
//! the format.
//!
//! **Model.** A [`Collector`] is shown what the tasks of a frozen tree hold, and writes records and contents
//! as it goes; [`finish`](Collector::finish) closes its images. Everything is looked at from outside, through
//! duplicates that `pidfd_getfd(2)` gives, and nothing is changed: pipes are read by `tee(2)`, files through
//! descriptions of the dumper's own.
//!
//! An open file description, or a file that is held by path only, has an id. Descriptors of one description
//! have the same one, in whatever task they are.

mod bpf_map;
mod build_id;
mod check;
mod descriptions;
mod device;
mod error;
mod eventfd;
mod eventpoll;
mod fanotify;
mod file_lock;
mod foresight;
mod fown;
mod gather;
mod ghost_file;
mod held;
mod inet;
mod inotify;
mod kind;
mod lock_list;
mod mapped;
mod memfd;
mod mount;
mod mqueue;
mod netlink;
mod ns;
mod options;
mod packet_sock;
mod pidfd;
mod pipe;
mod place;
mod plain;
mod regfile;
mod remap_file_path;
mod signalfd;
mod sk_opts;
mod slots;
mod socket;
mod tcp;
mod timerfd;
mod tty;
mod tun;
mod unix;
mod unsupported;
mod vsock;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gelid_image::messages::FileEntry;
use gelid_image::{ImageKind, ImageWriter, Staging};
use gelid_sys::proc::maps::Dev;
use gelid_sys::proc::{Malformed, TaskDir};
use gelid_sys::{Errno, Pid};
use rustix::fs::{FileType, Mode, OFlags, Stat};

use self::bpf_map::BpfMaps;
use self::descriptions::{Descriptions, Inode};
use self::device::rdev;
use self::file_lock::Locks;
use self::inet::Internet;
use self::kind::Kind;
use self::lock_list::LockList;
use self::memfd::Memfds;
use self::options::Choices;
use self::pipe::{Pipes, Tee};
use self::regfile::{Known, Opening};
use self::remap_file_path::Remaps;
use self::tty::Terminals;
use self::unix::{Socket, Sockets};
use crate::namespace::{Census, MountTable};

pub(crate) use self::check::check;
pub use self::error::{Error, LockRefusal};
pub(crate) use self::held::{Held, Holder, to_hold, worth_holding};
pub use self::inet::InetRefusal;
pub(crate) use self::inet::NETWORK;
pub(crate) use self::mapped::Mapped;
pub(crate) use self::memfd::{Contents, Memory, Part, huge_flags};
pub use self::place::{Name, Place};
pub(crate) use self::regfile::{HUGETLBFS_MAGIC, is_of_thread};
pub(crate) use self::remap_file_path::Links;
pub(crate) use self::slots::Told;
pub(crate) use self::tcp::Network;
pub use self::unix::UnixRefusal;
pub use self::unsupported::Unsupported;

/// A task whose files are looked at. All parts stand for the same one; its thread must be alive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'t> {
    /// Its id.
    pub(crate) pid: Pid,
    /// Its directory in procfs.
    pub(crate) dir: &'t TaskDir,
    /// Its pidfd.
    pub(crate) pidfd: BorrowedFd<'t>,
}

/// What a collection leaves to be done.
#[derive(Debug)]
pub(crate) struct Collected {
    /// Memory whose pages are to be dumped.
    pub(crate) memory: Vec<Memory>,
    /// Hard links made; they vanish again unless kept.
    pub(crate) links: Links,
    /// Connections of TCP.
    pub(crate) network: Network,
    /// Pipes without a name, by inode.
    pub(crate) pipes: HashMap<u64, u32>,
    /// Duplicates that are to be closed while the tree ends.
    pub(crate) held: Held,
    /// Nobody needs it any more.
    pub(crate) spent: Spent,
}

/// Memory that takes a while to be given back, for which there is time while the tree ends.
#[derive(Debug)]
pub(crate) struct Spent {
    _descriptions: Descriptions,
    _sockets: Vec<Socket>,
}

/// Records the files of a tree, which must be frozen.
#[derive(Debug)]
pub(crate) struct Collector<'s> {
    staging: &'s Staging,
    options: Choices,
    /// Directory that paths start from.
    root: OwnedFd,
    last_id: u32,
    writer: ImageWriter,
    descriptions: Descriptions,
    held: Held,
    known: Known,
    mapped: HashMap<(Dev, u64), mapped::ByPath>,
    remaps: Remaps,
    links: Links,
    pipes: Pipes,
    fifos: Pipes,
    tee: Tee,
    memfds: Memfds,
    bpf_maps: BpfMaps,
    sets: Vec<eventpoll::Set>,
    watchers: Vec<inotify::Queue>,
    groups: Vec<fanotify::Waiting>,
    terminals: Terminals,
    /// Processes of the tree.
    processes: HashSet<i32>,
    /// Files in procfs of processes that have not ended.
    of_processes: Vec<(i32, Place, Name)>,
    sockets: Sockets,
    locks: Locks,
    lock_list: LockList,
    /// Processes of the tree, zombies among them.
    tree: Vec<Pid>,
    internet: Internet,
    /// Threads of all of them.
    threads: Vec<Pid>,
    /// Processes whose leader has ended, by the thread that is asked instead.
    headless: HashMap<Pid, Pid>,
    /// Threads with descriptors or directories of their own.
    apart: HashSet<Pid>,
    /// Files that are pidfds of who lives, by their ids: whether they are of threads beyond the first of their process.
    live_pidfds: HashMap<u32, bool>,
    /// Pidfds of threads beyond the first of their process, and whose they are.
    thread_pidfds: HashMap<Inode, i32>,
    census: Arc<Census>,
    mounts: MountTable,
}

/// A file that is to be recorded.
#[derive(Debug)]
struct Object<'f> {
    place: Place,
    file: BorrowedFd<'f>,
    stat: &'f Stat,
    /// What the kernel calls it.
    link: Vec<u8>,
}

impl<'s> Collector<'s> {
    /// Starts with nothing. Images appear in `staging`.
    pub(crate) fn new(options: &crate::Options, staging: &'s Staging) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty());
        let root = root.map_err(|errno| Error::Own {
            operation: "open the root directory",
            errno,
        })?;
        Ok(Self {
            staging,
            options: Choices::new(options)?,
            root,
            last_id: 0,
            writer: staging.writer(ImageKind::Files, ())?,
            descriptions: Descriptions::default(),
            held: Held::default(),
            known: Known::default(),
            mapped: HashMap::new(),
            remaps: Remaps::new(staging)?,
            links: Links::new(),
            pipes: Pipes::new(staging, ImageKind::PipesData)?,
            fifos: Pipes::new(staging, ImageKind::FifoData)?,
            tee: Tee::default(),
            memfds: Memfds::new(staging)?,
            bpf_maps: BpfMaps::new(staging)?,
            sets: Vec::new(),
            watchers: Vec::new(),
            groups: Vec::new(),
            terminals: Terminals::default(),
            processes: HashSet::new(),
            of_processes: Vec::new(),
            sockets: Sockets::new(staging)?,
            locks: Locks::default(),
            lock_list: LockList::default(),
            tree: Vec::new(),
            internet: Internet::default(),
            threads: Vec::new(),
            headless: HashMap::new(),
            apart: HashSet::new(),
            live_pidfds: HashMap::new(),
            thread_pidfds: HashMap::new(),
            census: Arc::default(),
            mounts: MountTable::default(),
        })
    }

    /// Tells which processes the tree has, which threads, leaders among them, and how they are called inside.
    pub(crate) fn know_tree(&mut self, tree: Vec<Pid>, threads: Vec<Pid>, census: Arc<Census>) {
        (self.tree, self.threads) = (tree, threads);
        self.census = census;
        self.lock_list.tree_stands();
    }

    /// Tells which processes are known by another thread than their leader, and by which.
    pub(crate) fn know_headless(&mut self, headless: HashMap<Pid, Pid>) {
        self.headless = headless;
    }

    /// Tells which threads have descriptors or directories of their own.
    pub(crate) fn know_apart(&mut self, apart: HashSet<Pid>) {
        self.apart = apart;
    }

    /// Allows duplicates to be held until the tree ends.
    pub(crate) fn may_hold(&mut self, held: Held) {
        self.held = held;
    }

    /// Notes a process of the tree. All are to be noted before the end.
    pub(crate) fn process(&mut self, stat: &gelid_sys::proc::stat::Stat) {
        self.processes.insert(stat.pid);
        self.in_session(stat);
    }

    /// Records the executable of a task and gives its id.
    pub(crate) fn executable(&mut self, task: Task<'_>) -> Result<u32, Error> {
        self.by_link(task.dir, "exe", Place::Executable { pid: task.pid })
    }

    /// Closes all images but those that the caller writes. The tree must still be as it was.
    pub(crate) fn finish(mut self) -> Result<Collected, Error> {
        self.refuse_strangers()?;
        self.peers()?;
        self.finish_sets()?;
        self.finish_watchers()?;
        self.finish_groups()?;
        self.finish_locks()?;
        let network = self.connections()?;
        let sockets = self.sockets.finish()?;
        self.bpf_maps.finish()?;
        self.writer.finish()?;
        self.remaps.finish()?;
        let pipes = self.pipes.finish()?;
        self.fifos.finish()?;
        let (orphan, known) = (
            self.options.orphan_terminal,
            (&self.processes, &*self.census),
        );
        self.terminals.finish(orphan, known, self.staging)?;
        Ok(Collected {
            pipes,
            memory: self.memfds.finish()?,
            links: self.links,
            network,
            held: self.held,
            spent: Spent {
                _descriptions: self.descriptions,
                _sockets: sockets,
            },
        })
    }

    /// Records what a link in procfs leads to: a directory, an executable.
    pub(crate) fn by_link(
        &mut self,
        dir: &TaskDir,
        name: &str,
        place: Place,
    ) -> Result<u32, Error> {
        Ok(self.behind_link(dir, name, place)?.0)
    }

    /// The same, and whether it is memory.
    fn behind_link(
        &mut self,
        dir: &TaskDir,
        name: &str,
        place: Place,
    ) -> Result<(u32, bool), Error> {
        // For questions only: no device notices.
        let file = dir.open_file(name, OFlags::PATH)?;
        self.behind(dir, name, place, file)
    }

    /// The same of a link that `file` was opened by.
    fn behind(
        &mut self,
        dir: &TaskDir,
        name: &str,
        place: Place,
        file: OwnedFd,
    ) -> Result<(u32, bool), Error> {
        let stat = rustix::fs::fstat(&file).map_err(|errno| Error::System {
            operation: "look at",
            place,
            name: Name(name.as_bytes().to_vec()),
            errno,
        })?;
        let stat = self.census.users.of_file(stat);
        let object = Object {
            place,
            file: file.as_fd(),
            stat: &stat,
            link: dir.link(name)?.into_bytes(),
        };
        match kind::of(&object.link, &stat, false) {
            Kind::Memory if self.is_memory(&object)? => {
                Ok((self.memory(&object, Opening::reference())?.1, true))
            }
            Kind::Path | Kind::Memory => Ok((self.reference(&object)?, false)),
            Kind::Socket => match self.descriptions.packet_sock(object.inode()) {
                Some(id) => Ok((id, false)),
                None => Err(object.unsupported(Unsupported::MappedSocket)),
            },
            Kind::BpfMap => Err(object.unsupported(Unsupported::MappedBpf)),
            Kind::Refused(why) => Err(object.unsupported(why)),
            _ => Err(object.unsupported(Unsupported::Anonymous)),
        }
    }

    fn new_id(&mut self) -> Result<u32, Error> {
        self.last_id = self.last_id.checked_add(1).ok_or(Error::TooMany)?;
        Ok(self.last_id)
    }

    fn push(&mut self, entry: FileEntry) -> Result<(), Error> {
        self.writer.push(&entry)?;
        Ok(())
    }
}

impl Object<'_> {
    fn inode(&self) -> Inode {
        (self.stat.st_dev, self.stat.st_ino)
    }

    fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    fn is_regular(&self) -> bool {
        self.file_type() == FileType::RegularFile
    }

    /// Opens the file once more, with a position of its own, leaving its times alone if that is allowed.
    fn reopen(&self, flags: OFlags) -> Result<OwnedFd, Error> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = |flags| rustix::fs::open(&path, flags, Mode::empty());
        let opened = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            opened => opened,
        };
        opened.map_err(self.failed("open"))
    }

    /// Turns an errno into an error, for `map_err`.
    fn failed(&self, operation: &'static str) -> impl Fn(Errno) -> Error {
        move |errno| Error::System {
            operation,
            place: self.place,
            name: Name(self.link.clone()),
            errno,
        }
    }

    /// Turns what is wrong with an account of the kernel into an error, for `map_err`.
    fn odd(&self) -> impl Fn(Malformed) -> Error {
        move |what| Error::Odd {
            place: self.place,
            name: Name(self.link.clone()),
            what,
        }
    }

    fn unsupported(&self, why: Unsupported) -> Error {
        Error::Unsupported {
            place: self.place,
            name: Name(self.link.clone()),
            why,
        }
    }
}
