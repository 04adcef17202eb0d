//! `ids-*.img`: which tasks share which kernel objects. Section 4.1 of the format.

use std::cmp::Ordering;

use gelid_sys::kcmp::{self, Kind};
use gelid_sys::{Errno, Pid};

use crate::Error;

/// Gives out ids of kernel objects, equal ones to tasks that share.
#[derive(Debug)]
pub(crate) struct Ids {
    vm: Classes,
    files: Classes,
    fs: Classes,
    sighand: Classes,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self {
            vm: Classes::new(Kind::Vm),
            files: Classes::new(Kind::Files),
            fs: Classes::new(Kind::Fs),
            sighand: Classes::new(Kind::Sighand),
        }
    }

    /// The ids of what the next process has: memory, descriptors, directories, handlers.
    pub(crate) fn of(&mut self, pid: Pid) -> Result<[u32; 4], Error> {
        let vm = self.vm.of(pid)?;
        // Signal handlers can be shared only together with the address space.
        let sighand = if vm.is_new {
            self.sighand.fresh(pid)
        } else {
            self.sighand.of(pid)?.id
        };
        let (files, fs) = (self.files.of(pid)?.id, self.fs.of(pid)?.id);
        Ok([vm.id, files, fs, sighand])
    }
}

/// Whether two tasks have the same object of a kind.
pub(crate) fn shared(kind: Kind, one: Pid, other: Pid) -> Result<bool, Error> {
    let order = kcmp::kcmp(kind, (one, 0), (other, 0));
    Ok(compared(kind, one, other, order)?.is_eq())
}

/// The id of an object of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    id: u32,
    is_new: bool,
}

/// The objects of one kind seen so far.
#[derive(Debug)]
struct Classes {
    kind: Kind,
    /// One task for each object, in the kernel's order.
    known: Vec<(Pid, u32)>,
    /// Those of which it is known that no later task shares them.
    fresh: Vec<(Pid, u32)>,
    next: u32,
}

impl Classes {
    fn new(kind: Kind) -> Self {
        // Number 1 is the dumper's.
        Self {
            kind,
            known: Vec::new(),
            fresh: Vec::new(),
            next: 2,
        }
    }

    fn number(&mut self) -> u32 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// A new id for an object that no earlier task has.
    fn fresh(&mut self, pid: Pid) -> u32 {
        let id = self.number();
        self.fresh.push((pid, id));
        id
    }

    /// The id of the object that `pid` has, found by its place in the kernel's order.
    fn of(&mut self, pid: Pid) -> Result<Id, Error> {
        for (other, id) in std::mem::take(&mut self.fresh) {
            if let Err(at) = self.search(other)? {
                self.known.insert(at, (other, id));
            }
        }
        match self.search(pid)? {
            Ok(at) => Ok(Id {
                id: self.known[at].1,
                is_new: false,
            }),
            Err(at) => {
                let id = self.number();
                self.known.insert(at, (pid, id));
                Ok(Id { id, is_new: true })
            }
        }
    }

    fn search(&self, pid: Pid) -> Result<Result<usize, usize>, Error> {
        let (mut low, mut high) = (0, self.known.len());
        while low < high {
            let middle = low.midpoint(high);
            let other = self.known[middle].0;
            let order = kcmp::kcmp(self.kind, (other, 0), (pid, 0));
            match compared(self.kind, other, pid, order)? {
                Ordering::Equal => return Ok(Ok(middle)),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        Ok(Err(low))
    }
}

fn compared(kind: Kind, a: Pid, b: Pid, order: Result<Ordering, Errno>) -> Result<Ordering, Error> {
    let object = match kind {
        Kind::Vm => "the address spaces",
        Kind::Files => "the tables of descriptors",
        Kind::Fs => "the working directories",
        _ => "the tables of signal handlers",
    };
    order.map_err(|errno| Error::Compare {
        object,
        a,
        b,
        errno,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_shares_with_itself_and_with_nobody_else() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let (own, other) = (rustix::process::getpid(), Pid::from_child(&child));
        let mut ids = Ids::new();
        let first = ids.of(own).unwrap();
        let second = ids.of(other).unwrap();
        let again = ids.of(own).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(first, again);
        assert_eq!((first, second), ([2; 4], [3; 4]));
    }
}
