//! Everything that is open, for tasks to take over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

use super::holder::Holders;
use super::memfd::Object;
use super::network::Networks;
use super::of_dead::StandIn;
use super::of_process::OfProcesses;
use super::open::{reopen, set_status, too_many};
use super::place::Leftover;
use super::{Error, FilesPlan, Flags, Kind, Label, tty, unix};
use crate::files::Roots;
use gelid_sys::Pid;
use gelid_sys::nofile::Raised;
use gelid_sys::row::Row;

/// An open file, and what was opened of it to be mapped, by access mode.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    mapped: [OnceLock<OwnedFd>; 3],
}

impl Opened {
    pub(super) fn new(fd: OwnedFd) -> Self {
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
    pub(super) of_processes: OfProcesses,
    pub(super) holders: Holders,
    pub(super) files: HashMap<u32, Opened>,
    pub(super) objects: BTreeMap<u64, Object>,
    pub(super) before: Vec<tty::Before>,
    pub(super) of_sessions: tty::OfSessions,
    pub(super) stand_ins: Vec<StandIn>,
    pub(super) nodes: unix::Nodes,
    pub(super) leftovers: Vec<Leftover>,
    pub(super) own: OwnedFd,
    pub(super) networks: Arc<Networks>,
    pub(super) base: RawFd,
    /// Files are at numbers that tables need.
    pub(super) crowded: bool,
    pub(super) _limit: Raised,
}

impl OpenFiles {
    /// The open file with this id: what descriptors refer to, and executables and directories of tasks.
    /// `None` for ids that are not there or are only to be mapped.
    #[must_use]
    pub fn fd(&self, id: u32) -> Option<BorrowedFd<'_>> {
        self.files.get(&id).map(|opened| opened.fd.as_fd())
    }

    /// Whether files are at numbers that tables need.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// The terminal that is to be the controlling one of a session.
    #[must_use]
    pub fn terminal_of(&self, session: i32) -> Option<BorrowedFd<'_>> {
        self.of_sessions.get(&session).map(AsFd::as_fd)
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
        let label = Label(description);
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
                if let Kind::PacketSock(_) = description.kind {
                    return Ok(opened.fd.as_fd());
                }
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
        self.map_by(&opened[slot], from.ok_or_else(missing)?, access, label)
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
        label: Label<'_>,
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

    /// All tasks are in their directories: those of processes that have ended can go.
    pub fn end_stand_ins(&mut self) {
        self.stand_ins.clear();
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
    pub fn owners(&self, pids: &dyn Fn(i32) -> Option<Pid>) -> Result<(), Error> {
        for description in self.plan.descriptions.values() {
            let late = description.flags.late_status();
            if description.owner.is_none() && late.is_none()
                || description.flags.is_path()
                || matches!(description.kind, Kind::Given(_))
            {
                continue;
            }
            let Some(fd) = self.fd(description.id) else {
                continue;
            };
            if let Some(owner) = &description.owner {
                owner.apply(&description.label(), fd, pids)?;
            }
            if let Some(status) = late {
                set_status(fd, status, description.label())?;
            }
        }
        Ok(())
    }

    /// Closes whatever has none of these ids.
    pub(super) fn close_all_but(&mut self, ids: &BTreeSet<u32>) {
        self.files.retain(|id, _| ids.contains(id));
        for opened in self.files.values_mut() {
            opened.mapped = Default::default();
        }
        self.objects.clear();
    }

    /// Closes everything and leaves the machine as the restored tree needs it: connections go on, the file system is
    /// watched again, by paths from `roots` on, and links that a dump made to keep files reachable are removed.
    ///
    /// # Errors
    ///
    /// That of a watch that cannot be added.
    pub fn keep(mut self, roots: Roots<'_>) -> Result<(), Error> {
        self.watch(roots)?;
        self.resume()?;
        self.before.drain(..).for_each(tty::Before::forget);
        self.nodes.keep();
        for leftover in &self.leftovers {
            leftover.remove();
        }
        self.close_all();
        Ok(())
    }

    /// Closes all files, together.
    fn close_all(&mut self) {
        let files = std::mem::take(&mut self.files).into_values();
        let mut files: Vec<OwnedFd> = files.map(|opened| opened.fd).collect();
        files.sort_unstable_by_key(AsRawFd::as_raw_fd);
        let mut row = Row::default();
        files.into_iter().for_each(|fd| row.push(fd));
    }
}
