//! What a task has inherited, and where: beside its table or, where there is no room, in the midst of it.

use std::os::fd::AsRawFd;

use gelid_sys::syscall::nr;

use super::super::script::{Object, Reel};
use super::moves::{Move, Stock};
use super::{Doors, O_CLOEXEC, close, doors_of};
use crate::Error;
use crate::files::{OpenFiles, PlannedFd, Watching};

/// The files that a table is filled from.
#[derive(Debug)]
pub(super) struct Inherited<'a> {
    pid: i32,
    files: &'a OpenFiles,
    /// Where they are in the midst of the table.
    stock: Option<Stock>,
}

impl<'a> Inherited<'a> {
    /// Those of a table and its watches; `kept` and doors are in nobody's way.
    pub(super) fn new(
        pid: i32,
        (watches, table): (&[Watching], &[PlannedFd]),
        files: &'a OpenFiles,
        (kept, doors): (&[i32], Doors),
    ) -> Self {
        let stock = files.is_crowded().then(|| {
            let watched = watches.iter().flat_map(|it| [it.set, it.file]);
            let all = watched.chain(table.iter().map(|planned| planned.id));
            let inherited = all.filter_map(|id| Some((id, files.fd(id)?.as_raw_fd())));
            let doors = doors_of(watches, table, files, doors);
            Stock::new(inherited, doors.into_iter().chain(kept.iter().copied()))
        });
        Self { pid, files, stock }
    }

    /// Whether they are in the midst of the table.
    pub(super) fn is_crowded(&self) -> bool {
        self.stock.is_some()
    }

    /// The lowest number that is free beside one, if they are in the midst of the table.
    pub(super) fn free_but(&mut self, number: i32) -> Option<i32> {
        let stock = self.stock.as_mut()?;
        Some(stock.free(|free| free != number))
    }

    /// The number of a file.
    pub(super) fn at(&self, id: u32) -> Result<i32, Error> {
        let found = match &self.stock {
            Some(stock) => stock.at(id),
            None => self.files.fd(id).map(|fd| fd.as_raw_fd()),
        };
        found.ok_or(Error::NoSuchFile { pid: self.pid, id })
    }

    /// Appends what closes everything that this task does not need, if it needs the room.
    pub(super) fn clear(&self, reel: &mut Reel) {
        let Some(stock) = &self.stock else { return };
        let mut next = 0;
        for number in stock.numbers() {
            close(reel, next, number - 1);
            next = number + 1;
        }
        close(reel, next, i32::MAX);
    }

    /// Appends what makes a number free for anything but the file that is wanted there.
    pub(super) fn make_room(&mut self, reel: &mut Reel, number: i32, wanted: Option<u32>) {
        let stock = self.stock.as_mut();
        if let Some((from, to)) = stock.and_then(|stock| stock.make_room(number, wanted)) {
            copy(reel, from, to, true);
        }
    }

    /// Appends what brings all to their places.
    pub(super) fn place(&self, reel: &mut Reel, places: &[&PlannedFd]) -> Result<(), Error> {
        const F_SETFD: u64 = 2;
        let Some(stock) = &self.stock else {
            for planned in places {
                copy(reel, self.at(planned.id)?, planned.fd, planned.cloexec);
            }
            return Ok(());
        };
        places.iter().try_for_each(|it| self.at(it.id).map(drop))?;
        let numbers: Vec<_> = places.iter().map(|it| (it.fd, it.id)).collect();
        for step in stock.clone().arrange(&numbers) {
            match step {
                Move::Place { from, index } => {
                    copy(reel, from, places[index].fd, places[index].cloexec);
                }
                Move::Aside { from, to } => copy(reel, from, to, true),
                Move::Stay { index } => {
                    let PlannedFd { fd, cloexec, .. } = *places[index];
                    let args = [fd.into(), F_SETFD.into(), u64::from(cloexec).into()];
                    reel.must(Object::Descriptor(fd), nr::fcntl, args);
                }
            }
        }
        Ok(())
    }
}

fn copy(reel: &mut Reel, from: i32, to: i32, cloexec: bool) {
    let flags = if cloexec { O_CLOEXEC } else { 0 };
    let args = [from.into(), to.into(), flags.into()];
    reel.must(Object::Descriptor(to), nr::dup3, args);
}
