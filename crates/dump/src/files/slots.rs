//! Descriptor tables, slot by slot.

use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;

use gelid_image::messages::{FdTypes, FdinfoEntry};
use gelid_sys::Errno;
use gelid_sys::proc::{fd, fdinfo};
use rustix::fs::OFlags;

use super::descriptions::Class;
use super::gather::{self, Duplicate, Seen, Table};
use super::kind::{self, Kind};
use super::plain::Plain;
use super::regfile::Opening;
use super::{Collector, Error, Name, Object, Place, Task};
use crate::core::Closing;

/// Descriptors for which there is room at once.
const ROOM: usize = 1 << 16;

/// Waits for what the owner of a table tells; `None` if it has told nothing.
pub(crate) type Told<'t> = &'t mut dyn FnMut() -> Option<Closing>;

impl Collector<'_> {
    /// Records a table of so many slots, and gives its descriptors in ascending order. `told` is there if its owner is asked
    /// about it.
    pub(crate) fn table(
        &mut self,
        task: Task<'_>,
        slots: u32,
        told: Option<Told<'_>>,
    ) -> Result<Vec<FdinfoEntry>, Error> {
        let descriptors = match large(task, slots)? {
            Some(size) => self.large_table(task, size, told)?,
            None => {
                let numbers = fd::list_to_read(task.dir)?.into_iter();
                let place = |fd| Place::Descriptor { pid: task.pid, fd };
                let descriptors = numbers.map(|fd| self.descriptor_at(task, fd, place(fd)));
                descriptors.collect::<Result<_, _>>()?
            }
        };
        // Those of the root, which comes first, are worth it.
        self.held.room = 0;
        self.queues()?;
        Ok(descriptors)
    }

    fn large_table(
        &mut self,
        task: Task<'_>,
        size: (u64, RawFd),
        told: Option<Told<'_>>,
    ) -> Result<Vec<FdinfoEntry>, Error> {
        let (known, census) = (self.descriptions.classes(), Arc::clone(&self.census));
        if told.is_some() {
            self.lock_list.read();
        }
        let lock_list = std::mem::take(&mut self.lock_list);
        let plain = told.is_some().then(|| Plain::new(&lock_list));
        let room = usize::try_from(size.0).unwrap_or(0).min(ROOM);
        self.descriptions.reserve(room);
        self.sockets.expect_many();
        let mut descriptors = Vec::with_capacity(room);
        let mut untold = Vec::new();
        Table::new(task, size, (known, plain), &census).each(|fd, seen| {
            let place = Place::Descriptor { pid: task.pid, fd };
            if seen.is_plain {
                untold.push(descriptors.len());
            }
            descriptors.push(self.descriptor(task, fd, place, seen)?);
            Ok(())
        })?;
        self.lock_list = lock_list;
        let closing = match told {
            Some(told) if !untold.is_empty() => told(),
            _ => None,
        };
        for index in untold {
            let entry: &mut FdinfoEntry = &mut descriptors[index];
            let fd = entry.fd.cast_signed();
            let closed = closing.as_ref().and_then(|it| it.is_closed(fd));
            entry.flags = match closed {
                Some(closed) => closed.into(),
                None => fdinfo::read(task.dir, fd)?.cloexec().into(),
            };
        }
        Ok(descriptors)
    }

    /// Records a descriptor that messages describe as `place`.
    pub(super) fn descriptor_at(
        &mut self,
        task: Task<'_>,
        fd: RawFd,
        place: Place,
    ) -> Result<FdinfoEntry, Error> {
        let info = fdinfo::read(task.dir, fd)?;
        let seen = Seen {
            info,
            is_plain: false,
            file: None,
        };
        self.descriptor(task, fd, place, seen)
    }

    /// The same of one that has been looked at.
    fn descriptor(
        &mut self,
        task: Task<'_>,
        fd: RawFd,
        place: Place,
        Seen { info, file, .. }: Seen,
    ) -> Result<FdinfoEntry, Error> {
        let known = match self.descriptions.find(Class::of(&info), (task.pid, fd))? {
            Ok(known) => {
                self.look_at_locks(task.dir, fd, place, known.inode, &info)?;
                known
            }
            Err(vacancy) => {
                let file = match file {
                    Some(file) => file,
                    None => Duplicate::make(task, fd, &info, &self.census)
                        .map_err(|(what, errno)| failed_at(what, place, fd, errno))?,
                };
                let inode = (file.stat.st_dev, file.stat.st_ino);
                self.look_at_locks(task.dir, fd, place, inode, &info)?;
                let found = self.description(task, place, (fd, file), &info)?;
                self.descriptions.insert(vacancy, inode, found)
            }
        };
        let (id, kind) = (known.id, known.kind);
        let inode = known.inode;
        self.note_locks((task.pid, fd), task.dir, place, (id, inode), &info)?;
        Ok(FdinfoEntry {
            id,
            flags: info.cloexec().into(),
            r#type: kind.into(),
            fd: fd.unsigned_abs(),
            xattr_security_selinux: None,
        })
    }

    /// Records a description that has no record yet.
    fn description(
        &mut self,
        task: Task<'_>,
        place: Place,
        (fd, duplicate): (RawFd, Duplicate),
        info: &fdinfo::FdInfo,
    ) -> Result<(FdTypes, u32), Error> {
        let Duplicate {
            file,
            stat,
            owner,
            more,
        } = duplicate;
        let flags = info.flags & !OFlags::CLOEXEC.bits();
        let is_path = flags & OFlags::PATH.bits() != 0;
        let stat = &stat;
        let object = Object {
            place,
            file: file.as_fd(),
            stat,
            link: match more.link {
                Some(link) => link,
                None => self.pipes.link_of(task, fd, stat, info)?,
            },
        };
        let opening = Opening {
            flags,
            pos: info.pos.cast_unsigned(),
            fown: owner.map_err(object.failed("ask for the owner of"))?,
            mount: info.mnt_id,
        };
        let recorded = match kind::of(&object.link, stat, is_path) {
            Kind::Pipe => self.pipe(&object, opening),
            Kind::Fifo => self.fifo(&object, opening),
            Kind::Socket => self.socket(task, &object, opening, more.answers),
            Kind::Tun => self.tun(&object, opening),
            Kind::Namespace(kind) => self.namespace(&object, opening, kind),
            Kind::Terminal(way) => self.terminal(&object, opening, way),
            Kind::Eventfd => self.eventfd(&object, opening, info),
            Kind::Eventpoll => self.eventpoll((task.pid, fd), &object, opening, info),
            Kind::Signalfd => self.signalfd(&object, opening, info),
            Kind::Inotify => self.inotify(&object, opening, info),
            Kind::Fanotify => self.fanotify(&object, opening, info),
            Kind::BpfMap => self.bpf_map(&object, opening, info),
            Kind::Pidfd => self.pidfd(&object, opening, info),
            Kind::Timerfd => self.timerfd(task, fd, &object, opening, info),
            Kind::Memory if self.is_memory(&object)? => self.memory(&object, opening),
            Kind::Path if self.is_message_queue(&object)? => self.message_queue(&object, opening),
            Kind::Path | Kind::Memory => {
                let id = self.regular(&object, opening)?;
                Ok((FdTypes::Reg, id))
            }
            Kind::Refused(why) => Err(object.unsupported(why)),
        }?;
        self.held.take((task.pid, fd), recorded.0, file);
        Ok(recorded)
    }
}

/// Descriptors and slots of a table that is large, and not much larger than it has to be.
fn large(task: Task<'_>, slots: u32) -> Result<Option<(u64, RawFd)>, Error> {
    if u64::from(slots) < gather::MANY {
        return Ok(None);
    }
    let count = fd::count(task.dir)?;
    let dense = count >= gather::MANY && u64::from(slots) <= 4 * count;
    Ok(RawFd::try_from(slots)
        .ok()
        .filter(|_| dense)
        .map(|slots| (count, slots)))
}

fn failed_at(operation: &'static str, place: Place, fd: RawFd, errno: Errno) -> Error {
    Error::System {
        operation,
        place,
        name: Name(format!("fd/{fd}").into_bytes()),
        errno,
    }
}
