//! Files of processes in `/proc`: opened when the processes of the tree are there, and fetched by tasks that were
//! born before.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::open::set_status;
use super::place::{Names, Place};
use super::regular::{Regular, seek};
use super::{Description, Error, FilesPlan, Kind, OpenFiles};
use crate::files::Roots;
use gelid_sys::Pid;
use rustix::fs::OFlags;

/// How tasks come to files that they have not inherited.
#[derive(Debug, Default)]
pub(super) struct OfProcesses {
    /// A pidfd of this process, which tasks inherit.
    door: Option<OwnedFd>,
    files: BTreeMap<u32, OwnedFd>,
}

/// The refusal of what `/proc` shows of a process that does not belong to the tree.
pub(super) fn foreign(object: &str) -> Error {
    Error::Unsupported {
        object: object.to_owned(),
        what: "a file in /proc of a process outside of the tree",
        remedy: "let the program close it before the dump",
    }
}

impl OfProcesses {
    /// Before tasks are born.
    pub(super) fn prepare(
        plan: &FilesPlan,
        keeper: Option<BorrowedFd<'_>>,
        base: RawFd,
    ) -> Result<Self, Error> {
        let mut this = Self::default();
        if plan.of_processes().next().is_some() || plan.pidfds().next().is_some() {
            let again = |door: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(door, base);
            let door = match keeper {
                Some(keeper) => again(keeper),
                None => gelid_sys::pidfd::open(rustix::process::getpid())
                    .and_then(|door| again(door.as_fd())),
            };
            this.door = Some(door.map_err(Error::system("open", "a pidfd of this process"))?);
        }
        Ok(this)
    }

    /// Takes note of what was opened.
    pub(super) fn add(&mut self, id: u32, fd: OwnedFd) {
        self.files.insert(id, fd);
    }

    /// The number of the pidfd of this process.
    pub(super) fn door(&self) -> Option<RawFd> {
        self.door.as_ref().map(AsRawFd::as_raw_fd)
    }
}

impl FilesPlan {
    /// Files of processes in `/proc`: the process, and the open file.
    fn of_processes(&self) -> impl Iterator<Item = (u32, &Description, &Regular)> {
        let files = self.descriptions.values();
        files.filter_map(|description| match &description.kind {
            Kind::Regular(file) => Some((file.process?, description, file)),
            _ => None,
        })
    }

    /// Refuses files of processes that are not among those of the tree, as `is_in_tree` tells.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`]
    pub fn check_processes(&self, is_in_tree: impl Fn(u32) -> bool) -> Result<(), Error> {
        let mut files = self.of_processes();
        // The first process is that of every machine.
        match files.find(|(pid, ..)| *pid != 1 && !is_in_tree(*pid)) {
            Some((_, description, _)) => Err(foreign(&description.label())),
            None => Ok(()),
        }
    }
}

impl OpenFiles {
    /// Opens the files of processes, which are there by now; `pids` tells how the restorer sees a task of the tree, as its
    /// procfs does if that is the tree's too.
    ///
    /// # Errors
    ///
    /// As for all other files.
    pub fn open_of_processes(
        &mut self,
        roots: Roots<'_>,
        by_own_proc: bool,
        pids: &dyn Fn(i32) -> Option<Pid>,
    ) -> Result<(), Error> {
        let names = Names::new(roots);
        for (_, description, file) in self.plan.of_processes() {
            let object = description.label();
            let flags = description.flags;
            let name = match by_own_proc {
                true => file
                    .name
                    .renumbered(|number| pids(number).map(Pid::as_raw_pid)),
                false => file.name.clone(),
            };
            let opened = names
                .open(&Place::Path(name), flags.to_open())
                .map_err(Error::system("open", &*object))?;
            let stat = rustix::fs::fstat(&opened).map_err(Error::system("examine", &*object))?;
            let options = &self.plan.options;
            file.check(opened.as_fd(), &stat, flags, &|| object.clone(), options)?;
            if !flags.is_path() && !flags.has(OFlags::NONBLOCK) {
                set_status(opened.as_fd(), flags.status(), &object)?;
            }
            self.of_processes.files.insert(description.id, opened);
        }
        self.open_pidfds(false, pids)
    }

    /// What was opened of a process.
    pub(super) fn of_process(&self, id: u32) -> Option<BorrowedFd<'_>> {
        self.of_processes.files.get(&id).map(AsFd::as_fd)
    }

    /// Sets the positions of the files of processes, whose contents are as they will be by now.
    ///
    /// # Errors
    ///
    /// Those of `lseek(2)`.
    pub fn seek_of_processes(&self) -> Result<(), Error> {
        for (_, description, file) in self.plan.of_processes() {
            if let Some(fd) = self.of_processes.files.get(&description.id)
                && !description.flags.is_path()
            {
                seek(fd.as_fd(), file.position, description.label())?;
            }
        }
        Ok(())
    }

    /// For a file that tasks do not inherit: the number of a pidfd that they do, of this process or of whoever else has the
    /// file, and the number of the file there.
    #[must_use]
    pub fn to_be_fetched(&self, id: u32) -> Option<(RawFd, RawFd)> {
        if let Some(found) = self.holders.find(id) {
            return Some(found);
        }
        let door = self.of_processes.door.as_ref()?;
        let file = self.of_processes.files.get(&id)?;
        Some((door.as_raw_fd(), file.as_raw_fd()))
    }
}
