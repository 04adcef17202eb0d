//! Sets of watched files: `epoll(7)`. Section 15 of the format.
//!
//! What a set watches is an open file, together with the number of the descriptor that it was added by. The
//! number may belong to another file by now, or to none, as long as the file is open elsewhere. So which file
//! is meant is asked of the kernel, once all files of the tree are known.

use std::os::fd::RawFd;

use gelid_image::messages::{EventpollFileEntry, EventpollTfdEntry, FdTypes, FileEntry};
use gelid_sys::kcmp::{self, EpollSlot};
use gelid_sys::proc::fdinfo::{FdInfo, Watched};
use gelid_sys::proc::{TaskDir, fd};
use gelid_sys::{Errno, Pid};
use rustix::fs::makedev;

use super::descriptions::{Descriptions, Inode};
use super::regfile::Opening;
use super::{Collector, Error, Name, Object, Place};

/// A number that no descriptor has: whoever does not know which file is meant finds none.
const NOBODY: u32 = i32::MAX.cast_unsigned();

/// A set whose record waits until all files are known.
#[derive(Debug)]
pub(super) struct Set {
    id: u32,
    opening: Opening,
    holder: (Pid, RawFd),
    name: Name,
    watched: Vec<Watched>,
}

/// One watch of a set.
struct Watch<'s> {
    set: &'s Set,
    told: &'s Watched,
    slot: EpollSlot,
}

impl Collector<'_> {
    /// Notes an epoll set, which is descriptor `fd` of the task `pid`.
    pub(super) fn eventpoll(
        &mut self,
        (pid, fd): (Pid, RawFd),
        object: &Object<'_>,
        opening: Opening,
        info: &FdInfo,
    ) -> Result<(FdTypes, u32), Error> {
        let id = self.new_id()?;
        self.sets.push(Set {
            id,
            opening,
            holder: (pid, fd),
            name: Name(object.link.clone()),
            watched: info.epoll().map_err(object.odd())?,
        });
        Ok((FdTypes::Eventpoll, id))
    }

    /// Records the sets. The tasks must still be there.
    pub(super) fn finish_sets(&mut self) -> Result<(), Error> {
        for set in std::mem::take(&mut self.sets) {
            for watch in set.watches() {
                self.refuse_watched_thread(&set, watch.inode())?;
            }
            let tfd = set
                .watches()
                .map(|watch| watch.entry(&mut self.descriptions));
            let tfd = tfd.collect::<Result<_, _>>()?;
            self.push(FileEntry {
                r#type: FdTypes::Eventpoll.into(),
                id: set.id,
                epfd: Some(EventpollFileEntry {
                    id: set.id,
                    flags: set.opening.flags,
                    fown: set.opening.fown,
                    tfd,
                }),
                ..FileEntry::default()
            })?;
        }
        Ok(())
    }
}

impl Set {
    /// Who holds it, and what it is called.
    pub(super) fn told(&self) -> (Place, Name) {
        let (pid, fd) = self.holder;
        (Place::Descriptor { pid, fd }, self.name.clone())
    }

    /// Its watches. Several of one number are told apart by their order.
    fn watches(&self) -> impl Iterator<Item = Watch<'_>> {
        let mut seen = std::collections::HashMap::new();
        self.watched.iter().map(move |told| {
            let count = seen.entry(told.tfd).or_insert(0);
            let toff = *count;
            *count += 1;
            Watch {
                set: self,
                told,
                slot: EpollSlot {
                    efd: self.holder.1.cast_unsigned(),
                    tfd: told.tfd.cast_unsigned(),
                    toff,
                },
            }
        })
    }
}

impl Watch<'_> {
    fn entry(&self, descriptions: &mut Descriptions) -> Result<EventpollTfdEntry, Error> {
        let told = self.told;
        let number = told.tfd.cast_unsigned();
        let mut entry = EventpollTfdEntry {
            id: 0,
            tfd: number,
            events: told.events,
            data: told.data,
            dev: Some(told.dev),
            inode: Some(told.inode),
            pos: Some(told.pos.cast_unsigned()),
            file: None,
            added_as: None,
        };
        let in_flight = self.set.holder.0 == rustix::process::getpid();
        if !in_flight && self.is(self.set.holder.0, told.tfd)? {
            return Ok(entry);
        }
        let file = descriptions.watched(self.inode(), |holder| self.compare(holder))?;
        entry.file = Some(file.ok_or_else(|| self.unknown())?);
        entry.added_as = Some(number);
        // What is in flight belongs to no table.
        if !in_flight {
            entry.tfd = self.twin()?.unwrap_or(NOBODY);
        }
        Ok(entry)
    }

    fn inode(&self) -> Inode {
        let (major, minor) = (self.told.dev >> 20, self.told.dev & 0xf_ffff);
        (makedev(major, minor), self.told.inode)
    }

    /// Compares a descriptor's file with the watched one.
    fn compare(&self, (pid, fd): (Pid, RawFd)) -> Result<std::cmp::Ordering, Error> {
        let (own, own_fd) = self.set.holder;
        kcmp::epoll(pid, fd, own, self.slot).map_err(|errno| Error::Compare {
            pid: own,
            fd: own_fd,
            other: pid,
            other_fd: fd,
            errno,
        })
    }

    /// Whether the watched file is behind a descriptor, which may not be open.
    fn is(&self, pid: Pid, fd: RawFd) -> Result<bool, Error> {
        match self.compare((pid, fd)) {
            Err(Error::Compare {
                errno: Errno::BADF, ..
            }) => Ok(false),
            order => Ok(order?.is_eq()),
        }
    }

    /// Another descriptor of the file, in the table of the set's holder.
    fn twin(&self) -> Result<Option<u32>, Error> {
        let pid = self.set.holder.0;
        for fd in fd::list(&TaskDir::open(pid)?)? {
            if self.is(pid, fd)? {
                return Ok(Some(fd.unsigned_abs()));
            }
        }
        Ok(None)
    }

    fn unknown(&self) -> Error {
        let (place, name) = self.set.told();
        Error::Watched {
            place,
            name,
            tfd: self.told.tfd,
        }
    }
}
