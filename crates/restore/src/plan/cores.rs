//! Images of all tasks and threads, read by two threads where there are many: `core`, `ids` and `mm`.

use std::collections::HashMap;

use gelid_image::messages::{CoreEntry, MmEntry, TaskKobjIdsEntry};
use gelid_image::{Dir, ImageKind, ReadError};

use super::PlanError;
use super::thread::Record;
use super::tree::Node;

/// Those that have been read and not yet been taken.
#[derive(Debug)]
pub(super) struct Cores {
    dir: Dir,
    read: HashMap<i32, Core>,
}

/// What is left of an image: of threads only what makes a plan, so that of many there is one image in memory at a time.
#[derive(Debug)]
enum Core {
    Process(Box<Process>),
    Thread(Box<Record>),
}

/// Images of a process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) core: Box<CoreEntry>,
    pub(super) rest: Rest,
}

/// Those beside `core` that could be read in advance.
#[derive(Debug)]
pub(super) struct Rest {
    ids: Option<TaskKobjIdsEntry>,
    mm: Option<MmEntry>,
}

impl Rest {
    /// What the process shares with others.
    ///
    /// # Errors
    ///
    /// It can still not be read.
    pub(super) fn ids(&mut self, dir: &Dir, pid: i32) -> Result<TaskKobjIdsEntry, ReadError> {
        let read = self.ids.take();
        read.map_or_else(|| dir.read_one(ImageKind::Ids, pid), Ok)
    }

    /// Its address space.
    ///
    /// # Errors
    ///
    /// It can still not be read.
    pub(super) fn mm(&mut self, dir: &Dir, pid: i32) -> Result<MmEntry, ReadError> {
        let read = self.mm.take();
        read.map_or_else(|| dir.read_one(ImageKind::Mm, pid), Ok)
    }
}

impl Cores {
    /// Reads those of a tree in advance, as far as they can be read. What is wrong with others is told to who takes them.
    pub(super) fn of(nodes: &[Node], dir: &Dir) -> Self {
        let of_node = |node: &Node| {
            let threads = node.threads.iter().filter(|tid| **tid != node.pid);
            let pid = node.pid;
            let threads: Vec<_> = threads.map(|tid| (pid, *tid)).collect();
            std::iter::once((pid, pid)).chain(threads)
        };
        let all: Vec<(i32, i32)> = nodes.iter().flat_map(of_node).collect();
        let read = gelid_image::shared_out("cores", &all, |part| {
            let mut read = Vec::with_capacity(part.len());
            for (pid, tid) in part {
                let core = match pid == tid {
                    true => process(dir, *pid).ok().map(Box::new).map(Core::Process),
                    false => thread(dir, (*pid, *tid))
                        .ok()
                        .map(|record| Core::Thread(Box::new(record))),
                };
                read.extend(core.map(|core| (*tid, core)));
            }
            read
        });
        let mut cores = HashMap::with_capacity(all.len());
        cores.extend(read.into_iter().flatten());
        Self {
            dir: dir.clone(),
            read: cores,
        }
    }

    /// That of a process.
    ///
    /// # Errors
    ///
    /// It could not be read, now or in advance.
    pub(super) fn of_process(&mut self, pid: i32) -> Result<Process, ReadError> {
        match self.read.remove(&pid) {
            Some(Core::Process(process)) => Ok(*process),
            _ => process(&self.dir, pid),
        }
    }

    /// That of a thread of a process, which is not its leader.
    ///
    /// # Errors
    ///
    /// It could not be read, now or in advance, or makes no sense.
    pub(super) fn of_thread(&mut self, (pid, tid): (i32, i32)) -> Result<Record, PlanError> {
        match self.read.remove(&tid) {
            Some(Core::Thread(record)) => Ok(*record),
            _ => thread(&self.dir, (pid, tid)),
        }
    }
}

fn process(dir: &Dir, pid: i32) -> Result<Process, ReadError> {
    Ok(Process {
        core: dir.read_one(ImageKind::Core, pid).map(Box::new)?,
        rest: Rest {
            ids: dir.read_one(ImageKind::Ids, pid).ok(),
            mm: dir.read_one(ImageKind::Mm, pid).ok(),
        },
    })
}

fn thread(dir: &Dir, (pid, tid): (i32, i32)) -> Result<Record, PlanError> {
    let core: CoreEntry = dir.read_one(ImageKind::Core, tid)?;
    Ok(Record::read((pid, tid), &core)?)
}
