//! Opening what was planned: every open file once, at a number that is in nobody's way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use gelid_sys::nofile::{self, Raised};
use gelid_sys::row::Row;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::holder::{Holders, Reached};
use super::memfd::Object;
use super::network::Networks;
use super::of_dead::StandIn;
use super::of_process::OfProcesses;
use super::opened::{OpenFiles, Opened};
use super::place::{Leftover, Names, Place};
use super::regular::Regular;
use super::remap::Remap;
use super::{
    Context, Description, Error, FilesPlan, Flags, Given, Kind, Name, abreast, bpf_map, eventfd,
    eventpoll, fanotify, inet, inotify, memfd, mqueue, netlink, ns, occupied, packet_sock, pidfd,
    signalfd, timerfd, tty, tun, unix, vsock,
};
use crate::Hooks;
use crate::files::Roots;
use crate::play::namespaces::further::Made;
use crate::play::namespaces::{Birthplace, Hand};

/// So many may make the table of descriptors grow.
const MANY: usize = 64;

/// Opens everything. See [`FilesPlan::open`].
pub(super) fn open(plan: &FilesPlan, context: &Context<'_>) -> Result<OpenFiles, Error> {
    let most = plan.most_descriptors(context.base);
    let limit = Raised::to(most);
    let mut opener = Opener::new(plan, context)?;
    context.held.make_room();
    opener.give()?;
    abreast::open_paths(&mut opener)?.open(&mut opener)?;
    memfd::open_all(&mut opener)?;
    mqueue::open_all(&mut opener)?;
    eventfd::open_all(&mut opener)?;
    eventpoll::open_all(&mut opener)?;
    signalfd::open_all(&mut opener)?;
    timerfd::open_all(&mut opener)?;
    inotify::open_all(&mut opener)?;
    fanotify::open_all(&mut opener)?;
    bpf_map::open_all(&mut opener)?;
    pidfd::open_all(&mut opener)?;
    ns::open_all(&mut opener)?;
    tun::open_all(&mut opener)?;
    tty::open_all(&mut opener)?;
    inet::open_all(&mut opener)?;
    netlink::open_all(&mut opener)?;
    packet_sock::open_all(&mut opener)?;
    vsock::open_all(&mut opener)?;
    // What is in flight between sockets is open by now.
    unix::open_all(&mut opener)?;
    opener.finish(limit)
}

/// Opens files one after the other, and holds what is open so far.
pub(super) struct Opener<'a> {
    pub(super) plan: &'a FilesPlan,
    pub(super) roots: Roots<'a>,
    pub(super) names: Names<'a>,
    pub(super) terminal: Option<BorrowedFd<'a>>,
    hooks: Option<&'a Hooks>,
    pub(super) objects: BTreeMap<u64, Object>,
    /// Terminals that have got other settings.
    pub(super) before: Vec<tty::Before>,
    pub(super) of_sessions: tty::OfSessions,
    /// In place of processes whose directories somebody may be in.
    pub(super) stand_ins: Vec<StandIn>,
    /// Where those are born.
    pub(super) birthplace: Option<&'a Birthplace>,
    /// The first process of the tree, where nobody can stand in for it.
    pub(super) hand: Option<&'a Hand<'a>>,
    /// Where sockets are made.
    pub(super) networks: &'a Arc<Networks>,
    /// Where queues of others than the root are.
    pub(super) further: Option<&'a Made>,
    pub(super) nodes: unix::Nodes,
    files: HashMap<u32, Opened>,
    /// Names that the dump made and that a success makes superfluous.
    leftovers: BTreeMap<Name, Leftover>,
    /// Directories to get their times back, and the ghosts they are.
    late: Vec<(u32, u32)>,
    own: OwnedFd,
    base: RawFd,
    /// Takes the numbers below the base, so that what is opened lies above.
    _below: Row,
    of_processes: OfProcesses,
    holders: Holders,
    pub(super) crowded: bool,
}

impl<'a> Opener<'a> {
    fn new(plan: &'a FilesPlan, context: &Context<'a>) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let object = "/proc/self/fd";
        let own = rustix::fs::open(object, flags, Mode::empty())
            .and_then(|own| rustix::io::fcntl_dupfd_cloexec(&own, context.base));
        let own = own.map_err(|errno| too_many("open", object, context.base, errno))?;
        if plan.descriptions.len() > MANY {
            // Helpers share the table with this process, and what grows then is waited for.
            nofile::widen(&own, plan.most_descriptors(context.base));
        }
        let spare = context.spare.filter(|_| context.held.is_crowded());
        let holders = spare.map(|spare| Holders::prepare(plan, spare, &own));
        let holders = holders.transpose();
        let holders = holders.map_err(|errno| too_many("open", object, context.base, errno))?;
        Ok(Self {
            holders: holders.unwrap_or_default(),
            _below: occupied::below(&own, context.base, plan.descriptions.len()),
            plan,
            roots: context.roots,
            names: Names::new(context.roots),
            terminal: context.terminal,
            hooks: context.hooks,
            objects: BTreeMap::new(),
            before: Vec::new(),
            of_sessions: tty::OfSessions::new(),
            stand_ins: Vec::new(),
            birthplace: context.birthplace,
            hand: context.hand,
            networks: context.networks,
            further: context.further,
            nodes: unix::Nodes::default(),
            files: HashMap::with_capacity(plan.descriptions.len()),
            leftovers: BTreeMap::new(),
            late: Vec::new(),
            own,
            base: context.base,
            of_processes: OfProcesses::prepare(plan, context.keeper, context.base)?,
            crowded: context.held.is_crowded(),
        })
    }

    /// Takes over what the caller gives.
    fn give(&mut self) -> Result<(), Error> {
        let plan = self.plan;
        for description in plan.descriptions.values() {
            let Kind::Given(given) = &description.kind else {
                continue;
            };
            let label = description.label();
            let fd = self.take(given, &label)?;
            let same = rustix::fs::fcntl_getfl(&fd)
                .is_ok_and(|flags| flags.bits() & 3 == description.flags.access());
            let fd = match given.reopen && !same {
                true => self.reopen(fd.as_fd(), description.flags, &label)?,
                false => fd,
            };
            self.add(description.id, fd);
        }
        Ok(())
    }

    fn take(&self, given: &Given, object: &str) -> Result<OwnedFd, Error> {
        let myself = gelid_sys::pidfd::open(rustix::process::getpid());
        let fd = myself.and_then(|myself| gelid_sys::pidfd::getfd(myself, given.fd));
        let fd = fd.map_err(|errno| self.failed("take the given descriptor of", object, errno))?;
        self.raise(fd, object)
    }

    /// Takes note of what was opened.
    pub(super) fn add(&mut self, id: u32, fd: OwnedFd) {
        let number = fd.as_raw_fd();
        self.files.insert(id, Opened::new(fd));
        self.holders.relieve(number, &mut self.files);
    }

    /// An open file, wherever it is by now.
    pub(super) fn reach(&self, id: u32, object: impl Display) -> Result<Reached<'_>, Error> {
        match self.holders.fetch(id) {
            Some(Ok(fd)) => Ok(Reached::Elsewhere(fd)),
            Some(Err(errno)) => Err(self.failed("fetch", object, errno)),
            None => self.need(id, object).map(Reached::Here),
        }
    }

    /// The same of what may be open at any number.
    pub(super) fn add_raised(
        &mut self,
        id: u32,
        fd: OwnedFd,
        object: impl Display,
    ) -> Result<(), Error> {
        let fd = self.raise(fd, object)?;
        self.add(id, fd);
        Ok(())
    }

    /// Takes a new socket, prepares it, and gives it its flags.
    pub(super) fn add_socket(
        &mut self,
        description: &Description,
        made: Result<OwnedFd, Errno>,
        prepare: impl FnOnce(BorrowedFd<'_>, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let object = description.label();
        let fd = made.map_err(|errno| self.failed("make", &object, errno))?;
        let fd = self.raise(fd, &object)?;
        prepare(fd.as_fd(), &object)?;
        set_status(fd.as_fd(), description.flags.status(), &object)?;
        self.add(description.id, fd);
        Ok(())
    }

    /// What was opened under an id.
    pub(super) fn fd(&self, id: u32) -> Option<BorrowedFd<'_>> {
        self.files.get(&id).map(|opened| opened.fd.as_fd())
    }

    /// The same, which must be there.
    pub(super) fn need(&self, id: u32, object: impl Display) -> Result<BorrowedFd<'_>, Error> {
        self.fd(id).ok_or_else(|| Error::Missing {
            by: object.to_string(),
            what: "file",
            id: id.into(),
            image: "files.img",
        })
    }

    /// The directory of one's own descriptors.
    pub(super) fn own(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }

    /// Whether a new descriptor is in nobody's way.
    pub(super) fn is_high(&self, fd: &OwnedFd) -> bool {
        fd.as_raw_fd() >= self.base
    }

    /// Brings a new descriptor to a number that is in nobody's way.
    pub(super) fn raise(&self, fd: OwnedFd, object: impl Display) -> Result<OwnedFd, Error> {
        match self.is_high(&fd) {
            true => Ok(fd),
            false => self.again(fd.as_fd(), object),
        }
    }

    /// Another descriptor of the same open file.
    pub(super) fn again(&self, fd: BorrowedFd<'_>, object: impl Display) -> Result<OwnedFd, Error> {
        rustix::io::fcntl_dupfd_cloexec(fd, self.base)
            .map_err(|errno| self.failed("open", object, errno))
    }

    /// Gives the master of a console to whoever takes it; whether somebody does.
    pub(super) fn give_console(&self, master: impl AsFd) -> bool {
        self.hooks
            .is_some_and(|hooks| hooks.console(master.as_fd()))
    }

    /// Opens the file behind a descriptor once more.
    pub(super) fn reopen(
        &self,
        fd: BorrowedFd<'_>,
        flags: Flags,
        object: impl Display,
    ) -> Result<OwnedFd, Error> {
        let opened = reopen(self.own.as_fd(), fd, flags);
        let opened = opened.map_err(|errno| self.failed("open", &object, errno))?;
        let opened = self.raise(opened, &object)?;
        if !flags.has(OFlags::NONBLOCK) && !flags.is_path() {
            set_status(opened.as_fd(), flags.status(), object)?;
        }
        Ok(opened)
    }

    /// Makes sure that a file can be opened by a name.
    pub(super) fn appear(&mut self, file: &Regular) -> Result<Place, Error> {
        let object = &file.name;
        match &file.remap {
            // Whoever opens it sees to it that the process is there.
            None | Some(Remap::Process(_)) => Ok(Place::Path(file.name.clone())),
            Some(Remap::Link(target)) => {
                let source = self
                    .names
                    .entry(target, false)
                    .and_then(|entry| entry.identify());
                let source = source.map_err(Error::system("find", target.to_string()))?;
                let linked = self.names.link(&source, &file.name);
                let entry = linked.map_err(Error::system("link again", object))?;
                self.leftovers.insert(target.clone(), Leftover(source));
                Ok(Place::Entry(entry))
            }
            Some(Remap::Ghost(id)) => {
                let plan = self.plan;
                let Some(ghost) = plan.ghosts.get(id) else {
                    return Err(Error::Missing {
                        by: object.to_string(),
                        what: "ghost",
                        id: (*id).into(),
                        image: "the image set",
                    });
                };
                let made = ghost.make(&plan.dir, &mut self.names, object, &object.to_string())?;
                Ok(Place::Entry(made))
            }
        }
    }

    /// Gives a file that has appeared another name.
    pub(super) fn also(
        &mut self,
        place: &Place,
        name: &Name,
        object: &str,
    ) -> Result<Place, Error> {
        match place {
            Place::Path(_) => Ok(Place::Path(name.clone())),
            Place::Entry(entry) => {
                // The same directory by another mount.
                let there = Place::Path(name.clone());
                let found = self.names.stat(&there).ok();
                let found = found.map(|stat| (stat.st_dev, stat.st_ino));
                if found.is_some() && found == entry.identity {
                    return Ok(there);
                }
                let linked = self.names.link(entry, name);
                linked
                    .map(Place::Entry)
                    .map_err(Error::system("link again", object))
            }
        }
    }

    /// Takes away a name that has been made.
    pub(super) fn vanish(&mut self, place: Place, object: impl Display) -> Result<(), Error> {
        match place {
            Place::Path(_) => Ok(()),
            Place::Entry(entry) => self
                .names
                .remove(&entry)
                .map_err(Error::system("remove", object)),
        }
    }

    /// Gives an open directory its times when all that was made in it is gone.
    pub(super) fn dress_later(&mut self, id: u32, ghost: u32) {
        self.late.push((id, ghost));
    }

    /// The error of a call that makes a descriptor.
    pub(super) fn failed(
        &self,
        operation: &'static str,
        object: impl Display,
        errno: Errno,
    ) -> Error {
        too_many(operation, object, self.base, errno)
    }

    fn finish(mut self, limit: Raised) -> Result<OpenFiles, Error> {
        self.names.clear()?;
        for (id, ghost) in std::mem::take(&mut self.late) {
            let opened = self.files.get(&id);
            let ghost = self.plan.ghosts.get(&ghost);
            if let (Some(opened), Some(ghost)) = (opened, ghost) {
                // What was opened as a path only cannot be changed through that.
                let _ = ghost.set_times(&opened.fd, "a directory");
            }
        }
        let base = self.base;
        let raised = self.nodes.raise(base);
        raised.map_err(|errno| too_many("hold", "a directory", base, errno))?;
        let leftovers = self
            .leftovers
            .into_values()
            .map(|leftover| leftover.raise(base));
        let leftovers = leftovers
            .collect::<Result<_, _>>()
            .map_err(|errno| too_many("hold", "a link", base, errno))?;
        Ok(OpenFiles {
            of_processes: self.of_processes,
            holders: self.holders,
            crowded: self.crowded,
            plan: self.plan.clone(),
            files: self.files,
            objects: self.objects,
            before: self.before,
            of_sessions: self.of_sessions,
            stand_ins: self.stand_ins,
            nodes: self.nodes,
            leftovers,
            own: self.own,
            networks: Arc::clone(self.networks),
            base,
            _limit: limit,
        })
    }
}

/// Opens the file behind a descriptor once more, by the directory of one's own descriptors.
pub(super) fn reopen(
    own: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    flags: Flags,
) -> Result<OwnedFd, Errno> {
    // It is a link to follow, and what it leads to need not be a directory.
    let flags = flags.to_open().difference(OFlags::NOFOLLOW);
    let name = fd.as_raw_fd().to_string();
    rustix::fs::openat(own, name, flags, Mode::empty())
}

/// Sets the flags that `fcntl(2)` can set; everything is opened with `O_NONBLOCK`.
pub(super) fn set_status(
    fd: BorrowedFd<'_>,
    status: OFlags,
    object: impl Display,
) -> Result<(), Error> {
    rustix::fs::fcntl_setfl(fd, status).map_err(Error::system("set the flags of", object))
}

pub(super) fn too_many(
    operation: &'static str,
    object: impl Display,
    base: RawFd,
    errno: Errno,
) -> Error {
    let object = object.to_string();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let above = u64::try_from(base).is_ok_and(|base| base >= limit);
    match errno {
        Errno::MFILE => {}
        // What F_DUPFD says of numbers above the limit.
        Errno::INVAL if above => {}
        errno => {
            return Error::System {
                operation,
                object,
                errno,
            };
        }
    }
    Error::Descriptors {
        operation,
        object,
        base,
        limit,
    }
}

impl FilesPlan {
    /// How far numbers of descriptors go at most, if the lowest is `base`.
    fn most_descriptors(&self, base: RawFd) -> u64 {
        // Each description, some mappings of it, objects to fill, and what is open for a moment.
        let count = 4 * (self.descriptions.len() + self.memories.len()) + self.many_ptys() + 64;
        u64::try_from(base).unwrap_or_default() + count as u64
    }

    /// Files that a descriptor refers to, or that are in flight between sockets.
    pub(super) fn used(&self) -> BTreeSet<u32> {
        let slots = self.tables.values().flatten().map(|slot| slot.id);
        slots.chain(self.sockets.in_flight()).collect()
    }
}
