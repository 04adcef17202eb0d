//! State of tasks and threads beside memory and files: `core-*.img`, section 7 of the format.
//!
//! What can be seen from outside is looked at first. What only a task can tell is asked on one tape a thread;
//! the tapes of all tasks are played at the same time, and every thread is then as it was.

mod aio;
mod attributes;
mod before;
mod call;
mod carry;
mod cookies;
mod creds;
mod descriptors;
mod ended;
mod error;
mod fpu;
mod keys;
mod labels;
mod limits;
mod locking;
mod machine;
mod process;
mod recording;
mod registers;
mod sched;
mod seccomp;
mod signals;
mod thread;
mod timers;
mod undo;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::mpsc::Sender;

use gelid_image::messages::{CoreEntry, SeccompEntry};
use gelid_seize::{Process, Tree};
use gelid_sys::proc::maps::Perms;
use gelid_sys::proc::smaps::Area;
use gelid_sys::ptrace::Stopped;
use gelid_sys::{Errno, PAGE_SIZE, Pid};
use gelid_tape::Ground;

use crate::namespace::Census;
use crate::survey::{Live, Space, Task};
use crate::vma::{self, Kind};
use descriptors::Tables;
use keys::Keys;
use recording::Recording;
use seccomp::Restraint;

pub(crate) use aio::{Ring, settled};
pub(crate) use before::Before;
pub(crate) use descriptors::{Closing, Closings, is_asked};
pub use error::Error;
pub(crate) use labels::module;
pub(crate) use machine::Machine;
pub(crate) use process::{identity_by, leader_identity};

#[cfg(test)]
mod tests;

/// Distance from the stack pointer of memory that nobody will miss, bytes.
const STACK_MARGIN: u64 = 64 << 10;

/// The state of a process that has not ended.
#[derive(Debug)]
pub(crate) struct Cores {
    pub(crate) pid: Pid,
    /// A thread that lives: the leader, if it does.
    pub(crate) living: Pid,
    /// Of the leader, with the part of the process.
    pub(crate) leader: CoreEntry,
    /// Of the other threads.
    pub(crate) threads: Vec<(Pid, Box<CoreEntry>)>,
    /// What its threads are forbidden, the leader first.
    restraints: Vec<Restraint>,
    /// Contexts of kernel AIO.
    pub(crate) rings: Vec<Ring>,
    /// The program break.
    pub(crate) brk: u64,
    /// 0, 1 or 2, `PR_GET_DUMPABLE`.
    pub(crate) dumpable: i32,
    /// `PR_GET_THP_DISABLE`
    pub(crate) thp_disabled: bool,
    /// Protection keys of its address space.
    pub(crate) keys: Keys,
    /// Memory of its own that held something of ours meanwhile.
    pub(crate) lent: Vec<Range<u64>>,
}

/// Takes over the record of a thread that lacks nothing which is found out here.
pub(crate) type Write<'a> = Box<dyn FnMut(&Task, Pid, Box<CoreEntry>) + Send + 'a>;

/// Learns the state of every process of a frozen tree that has not ended, in the order of the tree. `tasks`
/// are what was seen of its processes since, `before` what was seen of its threads before it was frozen, on `machine`.
/// Also gives the seccomp filters of all of them. Records that `write` has taken over are not among those that are returned.
/// What the owners of large tables of descriptors tell of these goes to `closing`.
///
/// # Errors
///
/// What could not be learnt, or cannot be told in images. The tree is as it was, whatever happens.
pub(crate) fn collect(
    tree: &mut Tree,
    (tasks, census, before, machine): (&[Task], &Census, &Before, &Machine),
    (write, closing): (Option<Write<'_>>, Option<Sender<Closing>>),
) -> Result<(Vec<Cores>, SeccompEntry), Error> {
    cookies::note(tasks);
    let mut looks = thread::Looks {
        before,
        frozen: before::frozen(tree),
        vectors: fpu::Reader::new(&machine.vectors),
        suspended: tree.seccomp_suspended(),
        tables: Tables::new(closing.is_some()),
        usual: None,
    };
    // Labels are added at last, and whose parent has lost its leader is looked at once more.
    let write = write.filter(|_| machine.module.is_none() && tasks.iter().all(Task::has_leader));
    let mut recording = Recording::new(census, &machine.defaults, write, closing);
    let mut spaces: HashMap<u32, carry::Space> = HashMap::new();
    let mut order = Vec::new();
    for (index, (process, task)) in tree.processes().iter().zip(tasks).enumerate() {
        let Some(live) = &task.live else { continue };
        let this =
            process::Asked::look(process, live, areas(tasks, live), task.stat.sid, &mut looks)?;
        let id = live.ids.vm_id;
        let jobs = this.jobs(index, task, live);
        match spaces.entry(id) {
            Entry::Occupied(mut space) => space.get_mut().jobs.extend(jobs),
            Entry::Vacant(slot) => {
                let ground = ground(process, areas(tasks, live))?;
                let jobs = jobs.into();
                slot.insert(carry::Space { ground, jobs });
                order.push(id);
            }
        }
        recording.add(index, (task, live), this);
    }
    let spaces = order.iter().filter_map(|id| spaces.remove(id)).collect();
    let recording = recording.play(tree, spaces)?;
    let mut cores = recording.finish(tree.processes(), |live| areas(tasks, live))?;
    ended::refuse_children(tasks, &cores)?;
    undo::collect(tree, tasks, census, &mut cores)?;
    if let Some(module) = machine.module {
        labels::add(&mut cores, module)?;
    }
    let filters = seccomp::record(&mut cores);
    Ok((cores, filters))
}

/// The mappings of a process.
fn areas<'a>(tasks: &'a [Task], live: &'a Live) -> &'a [Area] {
    let space = match &live.space {
        Space::Own(layout) => Some(layout),
        Space::Of(first) => match tasks[*first].live.as_ref().map(|live| &live.space) {
            Some(Space::Own(layout)) => Some(layout),
            _ => None,
        },
    };
    let layout = space.and_then(|space| space.get());
    layout.map_or(&[], |layout| &layout.areas)
}

/// Where stub and tapes can go.
pub(crate) fn ground(process: &Process, areas: &[Area]) -> Result<Ground, Error> {
    let code = |area: &&Area| {
        area.map.perms.contains(Perms::EXEC)
            && !area.map.perms.contains(Perms::SHARED)
            && vma::kind(area) != Kind::Vsyscall
    };
    let mut code: Vec<&Area> = areas.iter().filter(code).collect();
    code.sort_by_key(|area| vma::kind(area) != Kind::Vdso);
    let task = held(process, 0)?;
    let sp = task
        .regs()
        .map_err(|errno| wrong_registers(task.pid(), errno))?
        .rsp;
    let stack = areas
        .iter()
        .map(|area| area.map.range())
        .find(|range| range.contains(&sp));
    let spare = stack.map(|stack| {
        let end = sp.saturating_sub(STACK_MARGIN) & !(PAGE_SIZE as u64 - 1);
        stack.start..end.max(stack.start)
    });
    Ok(Ground {
        code: code.iter().map(|area| area.map.range()).collect(),
        spare: spare.filter(|spare| !spare.is_empty()),
    })
}

fn wrong_registers(tid: Pid, errno: Errno) -> Error {
    match errno {
        // The set has another size.
        Errno::IO => Error::Unsupported {
            tid,
            what: "32-bit code",
            remedy: "use a 64-bit build of the program",
        },
        errno => Error::Thread {
            tid,
            object: "the registers",
            errno,
        },
    }
}

/// A thread that stands still.
fn held(process: &Process, thread: usize) -> Result<&Stopped, Error> {
    let gone = Error::Gone { tid: process.pid };
    let thread = process.threads.get(thread).ok_or(gone)?;
    thread.task().ok_or(Error::Gone { tid: thread.tid })
}
