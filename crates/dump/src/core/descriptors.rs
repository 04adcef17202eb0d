//! Which descriptors of a large table are closed on `execve(2)`: of all that is to be known of one, what its owner alone
//! tells without a file of procfs for each.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::sync::mpsc::Receiver;

use gelid_sys::syscall::nr;
use gelid_tape::{Data, Outcome, Tape};

use crate::survey::Live;

/// Slots of tables whose owners are asked. Smaller ones are looked at before one has told, and larger ones take memory of
/// the program: a byte for each.
const ASKED: RangeInclusive<u32> = 1024..=1 << 15;
const F_GETFD: u64 = 1;
const FD_CLOEXEC: u8 = 1;

/// Whether somebody is asked about the table of a task.
pub(crate) fn is_asked(live: &Live) -> bool {
    ASKED.contains(&live.status.fd_size)
}

/// What the owner of a table has told.
#[derive(Debug)]
pub(crate) struct Closing {
    /// Number of the table.
    table: u32,
    flags: Vec<u8>,
}

impl Closing {
    /// That of a table of which nobody knows the number.
    #[cfg(test)]
    pub(crate) fn new(flags: Vec<u8>) -> Self {
        Self { table: 0, flags }
    }

    /// Whether a descriptor is closed; `None` if there was none, as far as that is known.
    pub(crate) fn is_closed(&self, fd: RawFd) -> Option<bool> {
        let flags = usize::try_from(fd).ok().and_then(|fd| self.flags.get(fd));
        flags
            .filter(|flags| **flags <= FD_CLOEXEC)
            .map(|flags| flags & FD_CLOEXEC != 0)
    }
}

/// Where what all owners tell arrives.
#[derive(Debug)]
pub(crate) struct Closings {
    told: Receiver<Closing>,
    /// What nobody has wanted yet.
    early: HashMap<u32, Closing>,
}

impl Closings {
    pub(crate) fn new(told: Receiver<Closing>) -> Self {
        Self {
            told,
            early: HashMap::new(),
        }
    }

    /// Waits for what the owner of a table tells; `None` if nobody will.
    pub(crate) fn of(&mut self, table: u32) -> Option<Closing> {
        loop {
            if let Some(closing) = self.early.remove(&table) {
                return Some(closing);
            }
            let closing = self.told.recv().ok()?;
            self.early.insert(closing.table, closing);
        }
    }
}

/// Tables whose owners have been asked.
#[derive(Debug)]
pub(super) struct Tables {
    /// Somebody waits for what they tell.
    wanted: bool,
    seen: HashSet<u32>,
}

impl Tables {
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            wanted,
            seen: HashSet::new(),
        }
    }

    /// Whether somebody waits for what the owner of a table tells, and nobody else has been asked about it.
    pub(super) fn wants(&mut self, live: &Live) -> bool {
        self.wanted && is_asked(live) && self.seen.insert(live.ids.files_id)
    }
}

/// A table, asked about.
#[derive(Debug)]
pub(super) struct AskedTable {
    table: u32,
    flags: Data,
}

impl AskedTable {
    pub(super) fn ask(live: &Live, tape: &mut Tape) -> Self {
        Self {
            table: live.ids.files_id,
            flags: tape.each(nr::fcntl, 0..live.status.fd_size, F_GETFD),
        }
    }

    pub(super) fn answer(&self, outcome: &Outcome) -> Closing {
        Closing {
            table: self.table,
            flags: outcome.data(self.flags).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_without_a_descriptor_tell_nothing() {
        let closing = Closing {
            table: 1,
            flags: vec![0, 1, (-9_i8).cast_unsigned()],
        };
        let told: Vec<_> = (-1..4).map(|fd| closing.is_closed(fd)).collect();
        assert_eq!(told, [None, Some(false), Some(true), None, None]);
    }

    #[test]
    fn each_table_gets_its_own() {
        let (sender, told) = std::sync::mpsc::channel();
        let mut closings = Closings::new(told);
        for (table, flag) in [(1, 0), (2, 1)] {
            let flags = vec![flag];
            sender.send(Closing { table, flags }).unwrap();
        }
        drop(sender);
        let mut of = |table| closings.of(table).map(|it| it.is_closed(0));
        assert_eq!(of(2), Some(Some(true)));
        assert_eq!(of(1), Some(Some(false)));
        assert_eq!((of(1), of(3)), (None, None));
    }
}
