//! Open file descriptions: which descriptors, of whichever task, stand for the same one.
//!
//! Descriptors that may are of one class, which is sorted by `kcmp(2)`. So a descriptor costs no comparison if
//! nobody else has the inode open in the same way, and the logarithm of their number otherwise. Counters have numbers,
//! which say as much.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::num::NonZeroU32;
use std::os::fd::RawFd;

use foldhash::HashMap;
use gelid_image::messages::FdTypes;
use gelid_sys::proc::fdinfo::FdInfo;
use gelid_sys::{Pid, kcmp};
use rustix::fs::OFlags;
use smallvec::SmallVec;

use super::Error;

/// Device and number of an inode.
pub(super) type Inode = (u64, u64);

/// What all descriptors of a description have in common for good, and few others with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// Number of the inode, as `fdinfo` tells it; one and the same where the kernel does not.
    inode: u64,
    /// Access mode.
    access: u32,
    /// Of a counter, its number, plus one: all counters have one inode, and each has one description.
    counter: Option<NonZeroU32>,
}

impl Class {
    /// That of a descriptor.
    pub(super) fn of(info: &FdInfo) -> Self {
        Self {
            inode: info.ino.unwrap_or_default(),
            access: info.flags & (OFlags::RWMODE | OFlags::PATH).bits(),
            counter: info.number("eventfd-id").and_then(counter),
        }
    }
}

fn counter(number: u64) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(number).ok()?.wrapping_add(1))
}

/// A description that has a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) id: u32,
    pub(super) kind: FdTypes,
    pub(super) inode: Inode,
    /// One who has it.
    holder: (Pid, RawFd),
}

/// Where a description belongs that has none yet.
#[derive(Debug)]
pub(super) struct Vacancy {
    class: Class,
    holder: (Pid, RawFd),
    at: usize,
}

/// All descriptions that have a record.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    /// Hardly any has more than one.
    classes: HashMap<Class, SmallVec<[Known; 1]>>,
    /// As they were met.
    all: Vec<Known>,
    /// As many of them as anybody has looked for an inode among.
    by_inode: HashMap<Inode, Vec<Known>>,
    indexed: usize,
    /// Those of an inode in order, made when one is looked for.
    sorted: HashMap<Inode, Vec<Known>>,
}

impl Descriptions {
    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        self.classes.reserve(more);
        self.all.reserve(more);
    }

    /// Classes of descriptors that some are known of.
    pub(super) fn classes(&self) -> HashSet<Class> {
        self.classes.keys().copied().collect()
    }

    /// Looks for the description behind a descriptor.
    pub(super) fn find(
        &self,
        class: Class,
        holder: (Pid, RawFd),
    ) -> Result<Result<Known, Vacancy>, Error> {
        let known = self.classes.get(&class).map_or(&[][..], |known| known);
        if let ([known], Some(_)) = (known, class.counter) {
            return Ok(Ok(*known));
        }
        let found = search(known, |known| compare(known, holder))?;
        Ok(found
            .map(|at| known[at])
            .map_err(|at| Vacancy { class, holder, at }))
    }

    /// The id of the description that `compare` finds among those of an inode, or, as file systems may show
    /// their inodes under other numbers, among all others.
    pub(super) fn watched(
        &mut self,
        inode: Inode,
        compare: impl Fn((Pid, RawFd)) -> Result<Ordering, Error>,
    ) -> Result<Option<u32>, Error> {
        self.sort(inode)?;
        let own = self.sorted.get(&inode).map_or(&[][..], Vec::as_slice);
        if let Ok(known) = search(own, &compare)? {
            return Ok(Some(own[known].id));
        }
        for class in self.classes.values() {
            if let Ok(known) = search(class, &compare)? {
                return Ok(Some(class[known].id));
            }
        }
        Ok(None)
    }

    /// Puts all descriptions of an inode in order, unless they are.
    fn sort(&mut self, inode: Inode) -> Result<(), Error> {
        self.index();
        let all = self.by_inode.get(&inode).map_or(&[][..], Vec::as_slice);
        let sorted = self.sorted.entry(inode).or_default();
        for known in &all[sorted.len()..] {
            let found = search(sorted, |other| self::compare(other, known.holder))?;
            let at = found.unwrap_or_else(|at| at);
            sorted.insert(at, *known);
        }
        Ok(())
    }

    /// The id of a description of an inode.
    pub(super) fn of_inode(&mut self, inode: Inode) -> Option<u32> {
        self.index();
        self.by_inode.get(&inode)?.first().map(|known| known.id)
    }

    /// The id of a packet socket with an inode.
    pub(super) fn packet_sock(&mut self, inode: Inode) -> Option<u32> {
        self.index();
        let known = self.by_inode.get(&inode)?.first()?;
        (known.kind == FdTypes::Packetsk).then_some(known.id)
    }

    /// Makes all that were met since findable by their inode.
    fn index(&mut self) {
        for known in &self.all[self.indexed..] {
            self.by_inode.entry(known.inode).or_default().push(*known);
        }
        self.indexed = self.all.len();
    }

    /// Notes the record of a description. Nothing may have been noted since the vacancy was found.
    pub(super) fn insert(
        &mut self,
        vacancy: Vacancy,
        inode: Inode,
        (kind, id): (FdTypes, u32),
    ) -> Known {
        let known = Known {
            id,
            kind,
            inode,
            holder: vacancy.holder,
        };
        let class = self.classes.entry(vacancy.class).or_default();
        class.insert(vacancy.at.min(class.len()), known);
        self.all.push(known);
        known
    }
}

/// Looks in a class for what `compare` says is equal, and where it belongs if it is not there.
fn search(
    class: &[Known],
    compare: impl Fn((Pid, RawFd)) -> Result<Ordering, Error>,
) -> Result<Result<usize, usize>, Error> {
    let (mut low, mut high) = (0, class.len());
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(class[middle].holder)? {
            Ordering::Equal => return Ok(Ok(middle)),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    Ok(Err(low))
}

fn compare(a: (Pid, RawFd), b: (Pid, RawFd)) -> Result<Ordering, Error> {
    kcmp::file(a, b).map_err(|errno| Error::Compare {
        pid: b.0,
        fd: b.1,
        other: a.0,
        other_fd: a.1,
        errno,
    })
}
