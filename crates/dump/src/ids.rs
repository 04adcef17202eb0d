//! `ids-*.img`: which tasks share which kernel objects, and in which namespaces they are. Section 4 of the
//! format.

use std::cmp::Ordering;

use gelid_image::messages::TaskKobjIdsEntry;
use gelid_sys::kcmp::{self, Kind};
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::{self, Kind as Namespace};
use gelid_sys::{Errno, Pid, proc};

use crate::Error;

/// The kinds of namespace in the order of their ids.
const NAMESPACES: [Namespace; 8] = [
    Namespace::Pid,
    Namespace::Net,
    Namespace::Ipc,
    Namespace::Uts,
    Namespace::Time,
    Namespace::Mnt,
    Namespace::User,
    Namespace::Cgroup,
];

/// The namespaces of the dumper, which are those of every task.
#[derive(Debug, Clone)]
pub(crate) struct Namespaces {
    inodes: [u64; 8],
}

impl Namespaces {
    /// Those of the calling process.
    pub(crate) fn own() -> Result<Self, proc::Error> {
        let own = TaskDir::open(rustix::process::getpid())?;
        let mut inodes = [0; 8];
        for (inode, kind) in inodes.iter_mut().zip(NAMESPACES) {
            *inode = ns::id(&own, kind)?;
        }
        Ok(Self { inodes })
    }

    /// The first kind of which a process has another.
    pub(crate) fn foreign(&self, process: &TaskDir) -> Result<Option<&'static str>, proc::Error> {
        self.first_other(process, &NAMESPACES)
    }

    /// The first kind of which a thread has another. Only these can be left by a single thread without leaving
    /// the root and working directory that it shares, which is found out by itself.
    pub(crate) fn foreign_of_thread(
        &self,
        thread: &TaskDir,
    ) -> Result<Option<&'static str>, proc::Error> {
        let leaves = [
            Namespace::Net,
            Namespace::Ipc,
            Namespace::Uts,
            Namespace::Cgroup,
        ];
        self.first_other(thread, &leaves)
    }

    fn first_other(
        &self,
        task: &TaskDir,
        kinds: &[Namespace],
    ) -> Result<Option<&'static str>, proc::Error> {
        for (inode, kind) in self.inodes.iter().zip(NAMESPACES) {
            if kinds.contains(&kind) && ns::id(task, kind)? != *inode {
                return Ok(Some(kind.name()));
            }
        }
        Ok(None)
    }

    /// The ids of the dumper itself: number 1 of each kind of object.
    pub(crate) fn own_ids(&self) -> TaskKobjIdsEntry {
        self.ids(1, 1, 1, 1)
    }

    fn ids(&self, vm: u32, files: u32, fs: u32, sighand: u32) -> TaskKobjIdsEntry {
        // Kinds that the kernel lacks take no number.
        let mut next = 0;
        let numbers = self.inodes.map(|inode| {
            (inode != 0).then(|| {
                next += 1;
                next
            })
        });
        let [pid, net, ipc, uts, time, mnt, user, cgroup] = numbers;
        TaskKobjIdsEntry {
            vm_id: vm,
            files_id: files,
            fs_id: fs,
            sighand_id: sighand,
            pid_ns_id: pid,
            net_ns_id: net,
            ipc_ns_id: ipc,
            uts_ns_id: uts,
            mnt_ns_id: mnt,
            user_ns_id: user,
            cgroup_ns_id: cgroup,
            time_ns_id: time,
        }
    }
}

/// Gives out ids of kernel objects, equal ones to tasks that share.
#[derive(Debug)]
pub(crate) struct Ids {
    namespaces: Namespaces,
    vm: Classes,
    files: Classes,
    fs: Classes,
    sighand: Classes,
}

impl Ids {
    pub(crate) fn new(namespaces: Namespaces) -> Self {
        Self {
            namespaces,
            vm: Classes::new(Kind::Vm),
            files: Classes::new(Kind::Files),
            fs: Classes::new(Kind::Fs),
            sighand: Classes::new(Kind::Sighand),
        }
    }

    /// The ids of the next process.
    pub(crate) fn of(&mut self, pid: Pid) -> Result<TaskKobjIdsEntry, Error> {
        let vm = self.vm.of(pid)?;
        // Signal handlers can be shared only together with the address space.
        let sighand = if vm.is_new {
            self.sighand.fresh(pid)
        } else {
            self.sighand.of(pid)?.id
        };
        let (files, fs) = (self.files.of(pid)?.id, self.fs.of(pid)?.id);
        Ok(self.namespaces.ids(vm.id, files, fs, sighand))
    }
}

/// Whether a thread has descriptors, or root and working directory, of its own; and what.
pub(crate) fn unshared(pid: Pid, tid: Pid) -> Result<Option<&'static str>, Error> {
    for (kind, what) in [
        (Kind::Files, "a table of descriptors"),
        (Kind::Fs, "a root and working directory"),
    ] {
        let order = kcmp::kcmp(kind, (pid, 0), (tid, 0));
        if compared(kind, pid, tid, order)?.is_ne() {
            return Ok(Some(what));
        }
    }
    Ok(None)
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
        let mut ids = Ids::new(Namespaces::own().unwrap());
        let first = ids.of(own).unwrap();
        let second = ids.of(other).unwrap();
        let again = ids.of(own).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(first, again);
        assert_eq!(
            (first.vm_id, first.files_id, first.fs_id, first.sighand_id),
            (2, 2, 2, 2)
        );
        assert_eq!(
            (
                second.vm_id,
                second.files_id,
                second.fs_id,
                second.sighand_id
            ),
            (3, 3, 3, 3)
        );
        assert_eq!((first.pid_ns_id, first.net_ns_id), (Some(1), Some(2)));
    }
}
