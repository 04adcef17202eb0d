//! Open file descriptions: which descriptors, of whichever task, stand for the same one.
//!
//! Descriptors of one inode are a class of their own, sorted by `kcmp(2)`. So a descriptor costs no
//! comparison if nobody else has the inode open, and the logarithm of their number otherwise.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::os::fd::RawFd;

use gelid_image::messages::FdTypes;
use gelid_sys::{Pid, kcmp};

use super::Error;

/// Device and number of an inode.
pub(super) type Inode = (u64, u64);

/// A description that has a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) id: u32,
    pub(super) kind: FdTypes,
    /// One who has it.
    holder: (Pid, RawFd),
}

/// Where a description belongs that has none yet.
#[derive(Debug)]
pub(super) struct Vacancy {
    inode: Inode,
    holder: (Pid, RawFd),
    at: usize,
}

/// All descriptions that have a record.
#[derive(Debug, Default)]
pub(super) struct Descriptions(HashMap<Inode, Vec<Known>>);

impl Descriptions {
    /// Looks for the description behind a descriptor.
    pub(super) fn find(
        &self,
        inode: Inode,
        holder: (Pid, RawFd),
    ) -> Result<Result<Known, Vacancy>, Error> {
        let class = self.0.get(&inode).map_or(&[][..], Vec::as_slice);
        let found = search(class, |known| compare(known, holder))?;
        Ok(found
            .map(|at| class[at])
            .map_err(|at| Vacancy { inode, holder, at }))
    }

    /// The id of the description that `compare` finds among those of an inode, or, as file systems may show
    /// their inodes under other numbers, among all others.
    pub(super) fn watched(
        &self,
        inode: Inode,
        compare: impl Fn((Pid, RawFd)) -> Result<Ordering, Error>,
    ) -> Result<Option<u32>, Error> {
        let others = self.0.iter().filter(|(key, _)| **key != inode);
        let classes = self.0.get(&inode).into_iter();
        for class in classes.chain(others.map(|(_, class)| class)) {
            if let Ok(known) = search(class, &compare)? {
                return Ok(Some(class[known].id));
            }
        }
        Ok(None)
    }

    /// The id of a description of an inode.
    pub(super) fn of_inode(&self, inode: Inode) -> Option<u32> {
        self.0.get(&inode)?.first().map(|known| known.id)
    }

    /// The id of a packet socket with an inode.
    pub(super) fn packet_sock(&self, inode: Inode) -> Option<u32> {
        let known = self.0.get(&inode)?.first()?;
        (known.kind == FdTypes::Packetsk).then_some(known.id)
    }

    /// Notes the record of a description. Nothing may have been noted since the vacancy was found.
    pub(super) fn insert(&mut self, vacancy: Vacancy, id: u32, kind: FdTypes) {
        let holder = vacancy.holder;
        let class = self.0.entry(vacancy.inode).or_default();
        class.insert(vacancy.at.min(class.len()), Known { id, kind, holder });
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
