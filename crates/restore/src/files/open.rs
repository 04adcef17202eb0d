//! Opening what was planned: every open file once, at a number that is in nobody's way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::memfd::Object;
use super::place::{Leftover, Names, Place};
use super::regular::Regular;
use super::remap::Remap;
use super::{
    Context, Error, FilesPlan, Flags, Given, Kind, Name, eventfd, eventpoll, fifo, memfd, pipe,
    regular, signalfd, timerfd, tty,
};

/// Opens everything. See [`FilesPlan::open`].
pub(super) fn open(plan: &FilesPlan, context: &Context<'_>) -> Result<OpenFiles, Error> {
    let limit = Limit::raise(plan, context.base);
    let mut opener = Opener::new(plan, context)?;
    opener.give()?;
    regular::open_all(&mut opener)?;
    fifo::open_all(&mut opener)?;
    pipe::open_all(&mut opener)?;
    memfd::open_all(&mut opener)?;
    eventfd::open_all(&mut opener)?;
    eventpoll::open_all(&mut opener)?;
    signalfd::open_all(&mut opener)?;
    timerfd::open_all(&mut opener)?;
    tty::open_all(&mut opener)?;
    opener.finish(limit)
}

/// Opens files one after the other, and holds what is open so far.
pub(super) struct Opener<'a> {
    pub(super) plan: &'a FilesPlan,
    pub(super) names: Names<'a>,
    pub(super) terminal: Option<BorrowedFd<'a>>,
    pub(super) objects: BTreeMap<u64, Object>,
    pub(super) before: Option<tty::Before>,
    files: BTreeMap<u32, Opened>,
    /// Names that the dump made and that a success makes superfluous.
    leftovers: BTreeMap<Name, Leftover>,
    /// Directories to get their times back, and the ghosts they are.
    late: Vec<(u32, u32)>,
    own: OwnedFd,
    base: RawFd,
    /// Takes the numbers below the base, so that what is opened lies above.
    _below: Vec<OwnedFd>,
}

impl<'a> Opener<'a> {
    fn new(plan: &'a FilesPlan, context: &Context<'a>) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let object = "/proc/self/fd";
        let own = rustix::fs::open(object, flags, Mode::empty())
            .and_then(|own| rustix::io::fcntl_dupfd_cloexec(&own, context.base));
        let own = own.map_err(|errno| too_many("open", object, context.base, errno))?;
        Ok(Self {
            _below: occupy(&own, context.base, plan.descriptions.len()),
            plan,
            names: Names::new(context.root),
            terminal: context.terminal,
            objects: BTreeMap::new(),
            before: None,
            files: BTreeMap::new(),
            leftovers: BTreeMap::new(),
            late: Vec::new(),
            own,
            base: context.base,
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
        self.files.insert(id, Opened::new(fd));
    }

    /// Brings a new descriptor to a number that is in nobody's way.
    pub(super) fn raise(&self, fd: OwnedFd, object: &str) -> Result<OwnedFd, Error> {
        match fd.as_raw_fd() >= self.base {
            true => Ok(fd),
            false => self.again(fd.as_fd(), object),
        }
    }

    /// Another descriptor of the same open file.
    pub(super) fn again(&self, fd: BorrowedFd<'_>, object: &str) -> Result<OwnedFd, Error> {
        rustix::io::fcntl_dupfd_cloexec(fd, self.base)
            .map_err(|errno| self.failed("open", object, errno))
    }

    /// Opens the file behind a descriptor once more.
    pub(super) fn reopen(
        &self,
        fd: BorrowedFd<'_>,
        flags: Flags,
        object: &str,
    ) -> Result<OwnedFd, Error> {
        let opened = reopen(self.own.as_fd(), fd, flags);
        let opened = opened.map_err(|errno| self.failed("open", object, errno))?;
        let opened = self.raise(opened, object)?;
        if !flags.has(OFlags::NONBLOCK) && !flags.is_path() {
            set_status(opened.as_fd(), flags.status(), object)?;
        }
        Ok(opened)
    }

    /// Makes sure that a file can be opened by a name.
    pub(super) fn appear(&mut self, file: &Regular) -> Result<Place, Error> {
        let object = file.name.to_string();
        match &file.remap {
            None => Ok(Place::Path(file.name.clone())),
            Some(Remap::Link(target)) => {
                let source = self
                    .names
                    .entry(target, false)
                    .and_then(|entry| entry.identify());
                let source = source.map_err(Error::system("find", target.to_string()))?;
                let linked = self.names.link(&source, &file.name);
                let entry = linked.map_err(Error::system("link again", &*object))?;
                self.leftovers.insert(target.clone(), Leftover(source));
                Ok(Place::Entry(entry))
            }
            Some(Remap::Ghost(id)) => {
                let plan = self.plan;
                let Some(ghost) = plan.ghosts.get(id) else {
                    return Err(Error::Missing {
                        by: object,
                        what: "ghost",
                        id: (*id).into(),
                        image: "the image set",
                    });
                };
                let made = ghost.make(&plan.dir, &mut self.names, &file.name, &object)?;
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
                let linked = self.names.link(entry, name);
                linked
                    .map(Place::Entry)
                    .map_err(Error::system("link again", object))
            }
        }
    }

    /// Takes away a name that has been made.
    pub(super) fn vanish(&mut self, place: Place, object: &str) -> Result<(), Error> {
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
    pub(super) fn failed(&self, operation: &'static str, object: &str, errno: Errno) -> Error {
        too_many(operation, object, self.base, errno)
    }

    fn finish(mut self, limit: Limit) -> Result<OpenFiles, Error> {
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
        let leftovers = self
            .leftovers
            .into_values()
            .map(|leftover| leftover.raise(base));
        let leftovers = leftovers
            .collect::<Result<_, _>>()
            .map_err(|errno| too_many("hold", "a link", base, errno))?;
        Ok(OpenFiles {
            plan: self.plan.clone(),
            files: self.files,
            objects: self.objects,
            before: self.before,
            leftovers,
            own: self.own,
            base,
            _limit: limit,
        })
    }
}

/// Occupies the numbers below `base`, if that is less work than to move `count` descriptors there. If not,
/// or if there is no more, whatever is opened there is moved.
fn occupy(own: &OwnedFd, base: RawFd, count: usize) -> Vec<OwnedFd> {
    let mut below = Vec::new();
    if usize::try_from(base).is_ok_and(|base| base < count) {
        while let Ok(fd) = rustix::io::fcntl_dupfd_cloexec(own, 0) {
            if fd.as_raw_fd() >= base {
                break;
            }
            below.push(fd);
        }
    }
    below
}

/// Opens the file behind a descriptor once more, by the directory of one's own descriptors.
fn reopen(own: BorrowedFd<'_>, fd: BorrowedFd<'_>, flags: Flags) -> Result<OwnedFd, Errno> {
    // It is a link to follow, and what it leads to need not be a directory.
    let flags = flags.to_open().difference(OFlags::NOFOLLOW);
    let name = fd.as_raw_fd().to_string();
    rustix::fs::openat(own, name, flags, Mode::empty())
}

/// Sets the flags that `fcntl(2)` can set; everything is opened with `O_NONBLOCK`.
pub(super) fn set_status(fd: BorrowedFd<'_>, status: OFlags, object: &str) -> Result<(), Error> {
    rustix::fs::fcntl_setfl(fd, status).map_err(Error::system("set the flags of", object))
}

fn too_many(operation: &'static str, object: &str, base: RawFd, errno: Errno) -> Error {
    let object = object.to_owned();
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

/// The limit of open files: raised as far as allowed if need be, put back when dropped.
#[derive(Debug)]
struct Limit(Option<Rlimit>);

impl Limit {
    fn raise(plan: &FilesPlan, base: RawFd) -> Self {
        let limit = getrlimit(Resource::Nofile);
        // Each description, some mappings of it, objects to fill, and what is open for a moment.
        let count = 4 * (plan.descriptions.len() + plan.memories.len()) + 64;
        let need = u64::try_from(base).unwrap_or_default() + count as u64;
        if limit.current.is_none_or(|current| current >= need) {
            return Self(None);
        }
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        Self(setrlimit(Resource::Nofile, raised).is_ok().then_some(limit))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Some(limit) = self.0.take() {
            // It was allowed a moment ago.
            let _ = setrlimit(Resource::Nofile, limit);
        }
    }
}

/// An open file, and what was opened of it to be mapped, by access mode.
#[derive(Debug)]
struct Opened {
    fd: OwnedFd,
    mapped: [OnceLock<OwnedFd>; 3],
}

impl Opened {
    fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            mapped: Default::default(),
        }
    }
}

/// Everything that is open. Dropped, it undoes what it did to the machine; [kept](Self::keep), only what a
/// restored tree does not need.
#[derive(Debug)]
pub struct OpenFiles {
    pub(super) plan: FilesPlan,
    files: BTreeMap<u32, Opened>,
    objects: BTreeMap<u64, Object>,
    before: Option<tty::Before>,
    leftovers: Vec<Leftover>,
    own: OwnedFd,
    base: RawFd,
    _limit: Limit,
}

impl OpenFiles {
    /// The open file with this id: what descriptors refer to, and executables and directories of tasks.
    /// `None` for ids that are not there or are only to be mapped.
    #[must_use]
    pub fn fd(&self, id: u32) -> Option<BorrowedFd<'_>> {
        self.files.get(&id).map(|opened| opened.fd.as_fd())
    }

    /// A descriptor to map the file with this id by. `access` is 0 to read, 1 to write, 2 for both. To be
    /// asked for before tasks are born that shall inherit it.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if nothing has that id, or that of opening it.
    pub fn mapping(&self, id: u32, access: u32) -> Result<BorrowedFd<'_>, Error> {
        let missing = || Error::Missing {
            by: "a mapping".into(),
            what: "file",
            id: id.into(),
            image: "files.img",
        };
        let description = self.plan.descriptions.get(&id).ok_or_else(missing)?;
        let label = description.label();
        let Some(slot) = usize::try_from(access).ok().filter(|access| *access < 3) else {
            return Err(Error::invalid(label, "access mode", access, "it is 0 to 2"));
        };
        let opened = match &description.kind {
            Kind::Memory(file) => {
                let object = self.objects.get(&file.inode).ok_or_else(missing)?;
                if access == 2 {
                    return Ok(object.fd.as_fd());
                }
                &object.mapped
            }
            _ => {
                let opened = self.files.get(&id).ok_or_else(missing)?;
                let flags = description.flags;
                let given = matches!(description.kind, Kind::Given(_));
                if flags.access() == access && !flags.is_path() && !given {
                    return Ok(opened.fd.as_fd());
                }
                &opened.mapped
            }
        };
        let from = match &description.kind {
            Kind::Memory(file) => self
                .objects
                .get(&file.inode)
                .map(|object| object.fd.as_fd()),
            _ => self.fd(id),
        };
        self.map_by(&opened[slot], from.ok_or_else(missing)?, access, &label)
    }

    /// Opens what will be asked for by [`mapping`](Self::mapping).
    ///
    /// # Errors
    ///
    /// As for one mapping.
    pub fn open_mappings(
        &self,
        mappings: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<(), Error> {
        let mut mappings = mappings.into_iter();
        mappings.try_for_each(|(id, access)| self.mapping(id, access).map(drop))
    }

    /// What is opened of a file for an access mode, once.
    fn map_by<'f>(
        &self,
        slot: &'f OnceLock<OwnedFd>,
        from: BorrowedFd<'_>,
        access: u32,
        label: &str,
    ) -> Result<BorrowedFd<'f>, Error> {
        if let Some(fd) = slot.get() {
            return Ok(fd.as_fd());
        }
        let fail = |errno| too_many("open", label, self.base, errno);
        let opened = reopen(self.own.as_fd(), from, Flags(access)).map_err(fail)?;
        let opened = rustix::io::fcntl_dupfd_cloexec(&opened, self.base).map_err(fail)?;
        Ok(slot.get_or_init(|| opened).as_fd())
    }

    /// The objects in memory that the caller has to fill: the key of their pages, their size, and a file to
    /// write them through. Each is given once.
    pub fn shared_memory(&mut self) -> Vec<(u32, u64, File)> {
        self.objects.values_mut().filter_map(Object::take).collect()
    }

    /// Seals memory as it was. To be done when it is filled, and mapped wherever it was: a seal against
    /// writing refuses mappings that are allowed to stay.
    ///
    /// # Errors
    ///
    /// That of `F_ADD_SEALS`.
    pub fn seal(&self) -> Result<(), Error> {
        self.objects.values().try_for_each(Object::seal)
    }

    /// Sets who gets signals about files. To be done when those exist.
    ///
    /// # Errors
    ///
    /// `ESRCH` if an owner does not exist, and others of `fcntl(2)`.
    pub fn owners(&self) -> Result<(), Error> {
        for description in self.plan.descriptions.values() {
            let Some(fd) = self.fd(description.id) else {
                continue;
            };
            if description.flags.is_path() || matches!(description.kind, Kind::Given(_)) {
                continue;
            }
            if let Some(owner) = &description.owner {
                owner.apply(&description.label(), fd)?;
            }
            if let Some(status) = description.flags.late_status() {
                set_status(fd, status, &description.label())?;
            }
        }
        Ok(())
    }

    /// Closes everything and leaves the machine as the restored tree needs it. Links that a dump made to
    /// keep files reachable are removed.
    pub fn keep(mut self) {
        if let Some(before) = self.before.take() {
            before.forget();
        }
        for leftover in &self.leftovers {
            leftover.remove();
        }
    }
}

impl FilesPlan {
    /// Files that a descriptor refers to.
    pub(super) fn used(&self) -> BTreeSet<u32> {
        self.tables.values().flatten().map(|slot| slot.id).collect()
    }
}
