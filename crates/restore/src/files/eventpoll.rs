//! Sets of watched files: `epoll(7)`.
//!
//! A set is made like any other file. What it watches is added by a task that has the set, when all files
//! are open, since the kernel keeps the number of the descriptor that a file was added by, and, for
//! signals, the task.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, RawFd};

use gelid_image::messages::EventpollFileEntry;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use super::open::{Opener, set_status};
use super::opened::OpenFiles;
use super::table::FD_LIMIT;
use super::{Error, FilesPlan, Kind};

/// A set of watched files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eventpoll {
    /// What it watches.
    pub watches: Vec<Watch>,
}

/// What a record says of a watched file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// Number of the descriptor it was added by.
    pub number: RawFd,
    /// Id of the file, if it is not the one behind that descriptor.
    pub file: Option<u32>,
    /// Events and flags.
    pub events: u32,
    /// What the program wants to be told.
    pub data: u64,
}

/// A watch and the files that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watching {
    /// Id of the set.
    pub set: u32,
    /// Id of the file it watches.
    pub file: u32,
    /// The rest.
    pub watch: Watch,
}

/// Checks a record.
pub(super) fn plan(object: &str, entry: &EventpollFileEntry) -> Result<Eventpoll, Error> {
    let mut watches = Vec::with_capacity(entry.tfd.len());
    for watched in &entry.tfd {
        let number = watched.added_as.unwrap_or(watched.tfd);
        let Some(number) = RawFd::try_from(number).ok().filter(|fd| *fd < FD_LIMIT) else {
            let rule = "no descriptor has such a number";
            return Err(Error::invalid(object, "tfd", number, rule));
        };
        watches.push(Watch {
            number,
            file: watched.file,
            events: watched.events,
            data: watched.data,
        });
    }
    Ok(Eventpoll { watches })
}

impl FilesPlan {
    /// What a task adds to sets before it fills the table with this id, in order.
    #[must_use]
    pub fn watches(&self, files_id: u32) -> &[Watching] {
        self.watches.get(&files_id).map_or(&[], Vec::as_slice)
    }

    /// Finds the file of every watch, and a table whose task can add it.
    pub(super) fn resolve_watches(&mut self) -> Result<(), Error> {
        let mut resolved: BTreeMap<u32, Vec<Watching>> = BTreeMap::new();
        let tables = Tables::of(self);
        for description in self.descriptions.values() {
            let Kind::Eventpoll(set) = &description.kind else {
                continue;
            };
            let mut seen = BTreeSet::new();
            for watch in &set.watches {
                let label = description.label();
                let (table, file) = tables.find(&label, description.id, watch)?;
                if !seen.insert((file, watch.number)) {
                    return Err(Error::Duplicate {
                        image: label,
                        what: "the watch of descriptor",
                        id: watch.number.unsigned_abs().into(),
                    });
                }
                resolved.entry(table).or_default().push(Watching {
                    set: description.id,
                    file,
                    watch: *watch,
                });
            }
        }
        for watches in resolved.values_mut() {
            // Those that wait to be armed again come before any other could be ready.
            watches.sort_by_key(|watching| !watching.watch.has_fired());
        }
        self.watches = resolved;
        Ok(())
    }
}

impl Watch {
    /// A one-shot watch that has fired: it has no events left until the program arms it again.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        use gelid_sys::epoll::{EPOLLONESHOT, FLAGS};
        self.events & !FLAGS == 0 && self.events & EPOLLONESHOT != 0
    }
}

/// The tables of a plan, by what sets need to know.
struct Tables<'p> {
    plan: &'p FilesPlan,
    /// Tables that have a file, by its id.
    holders: HashMap<u32, Vec<u32>>,
    /// Files by table and number.
    slots: HashMap<(u32, RawFd), u32>,
    /// By number, the first table that has such a descriptor, and its file.
    anywhere: HashMap<RawFd, (u32, u32)>,
}

impl<'p> Tables<'p> {
    fn of(plan: &'p FilesPlan) -> Self {
        let sets = plan.descriptions.values();
        let sets = sets.filter(|file| matches!(file.kind, Kind::Eventpoll(_)));
        let sets: BTreeSet<u32> = sets.map(|set| set.id).collect();
        let mut tables = Self {
            plan,
            holders: HashMap::new(),
            slots: HashMap::new(),
            anywhere: HashMap::new(),
        };
        if sets.is_empty() {
            return tables;
        }
        for (table, slots) in &plan.tables {
            for slot in slots {
                tables.slots.insert((*table, slot.fd), slot.id);
                tables.anywhere.entry(slot.fd).or_insert((*table, slot.id));
                if sets.contains(&slot.id) {
                    tables.holders.entry(slot.id).or_default().push(*table);
                }
            }
        }
        tables
    }

    /// The table whose task adds a watch, and the file it is about. A set that no table has is on its way
    /// in a message; any task can add to it.
    fn find(&self, label: &str, set: u32, watch: &Watch) -> Result<(u32, u32), Error> {
        let holders = self.holders.get(&set).map_or(&[][..], Vec::as_slice);
        let missing = |what, id: u64| Error::Missing {
            by: label.to_owned(),
            what,
            id,
            image: "the image set",
        };
        match watch.file {
            Some(file) if !self.plan.descriptions.contains_key(&file) => {
                Err(missing("watched file", file.into()))
            }
            Some(file) => {
                let table = holders.iter().chain(self.plan.tables.keys()).next();
                Ok((*table.ok_or_else(|| missing("table", 0))?, file))
            }
            None => {
                let found = match holders {
                    [] => self.anywhere.get(&watch.number).copied(),
                    holders => holders.iter().find_map(|table| {
                        let file = self.slots.get(&(*table, watch.number))?;
                        Some((*table, *file))
                    }),
                };
                let number = watch.number.unsigned_abs();
                found.ok_or_else(|| missing("watched descriptor", number.into()))
            }
        }
    }
}

/// Makes all sets, which watch nothing yet.
pub(super) fn open_all(opener: &mut Opener<'_>) -> Result<(), Error> {
    let plan = opener.plan;
    for description in plan.descriptions.values() {
        let Kind::Eventpoll(_) = &description.kind else {
            continue;
        };
        let label = description.label();
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC);
        let fd = fd.map_err(|errno| opener.failed("make", &label, errno))?;
        let fd = opener.raise(fd, &label)?;
        set_status(fd.as_fd(), description.flags.status(), &label)?;
        opener.add(description.id, fd);
    }
    Ok(())
}

impl OpenFiles {
    /// Events that a file is ready for now.
    pub(crate) fn events(&self, id: u32) -> u32 {
        let Some(fd) = self.fd(id) else { return 0 };
        let all = PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::RDHUP;
        let mut polled = [PollFd::from_borrowed_fd(fd, all)];
        match poll(&mut polled, Some(&Timespec::default())) {
            Ok(_) => polled[0].revents().bits().into(),
            Err(_) => 0,
        }
    }
}
