//! What System V semaphores get back when a process ends (`SEM_UNDO`).
//!
//! The kernel tells nobody. But an operation that would take what is to be undone out of its bounds fails in another way
//! than one that would have to wait, and operations in one call happen all or not at all. So the task itself asks, by
//! calls none of which can succeed: the last two operations of each, adding one and waiting for zero, contradict each
//! other. The answers close in on each number from both sides.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use gelid_image::messages::GelidUndoEntry;
use gelid_seize::Tree;
use gelid_sys::ipc::sem::{self, MOST, NOWAIT, Operation, Set, UNDO};
use gelid_sys::kcmp::{self, Kind};
use gelid_sys::proc::ns::Kind as Namespace;
use gelid_sys::syscall::nr;
use gelid_sys::{Errno, Pid};
use gelid_tape::{Op, Tape};
use rustix::pipe::{PipeFlags, pipe_with};

use super::carry::{self, Job, Space};
use super::{Cores, Error, areas, ground, process};
use crate::namespace::{Census, Instance};
use crate::survey::Task;

/// Numbers that are asked for at once in each round.
const STEPS: i32 = 15;
/// More than are ever needed, unless others change semaphores all the time.
const ROUNDS: usize = 100;
/// Processes that are looked at by one child; a pipe has room for their answers.
const AT_ONCE: usize = 4096;
/// Calls on one tape.
const CALLS: usize = 256;

/// Learns what is to be undone of all processes, and adds it to their records.
pub(super) fn collect(
    tree: &mut Tree,
    tasks: &[Task],
    census: &Census,
    cores: &mut [Cores],
) -> Result<(), Error> {
    let any = |ipc: Option<&Instance>| Ok::<_, Error>(!sets(ipc)?.is_empty());
    let of_tree = census.of(Namespace::Ipc);
    let mut others = of_tree.filter(|instance| !instance.root);
    if !any(census.root(Namespace::Ipc))?
        && !others.try_fold(false, |found, other| {
            Ok::<_, Error>(found || any(Some(other))?)
        })?
    {
        return Ok(());
    }
    for index in holders(tasks)? {
        let pid = tasks[index].pid;
        let mut open = Open::all(&sets(census.ipc_of(&tasks[index]))?);
        for _ in 0..ROUNDS {
            if open.searches.is_empty() {
                break;
            }
            let lent = open.round(tree, tasks, census, index)?;
            if let Some(cores) = cores.iter_mut().find(|cores| cores.pid == pid) {
                cores.lent.extend(lent);
            }
        }
        if !open.searches.is_empty() {
            return Err(Error::Unsupported {
                tid: pid,
                what: "operations on semaphores that are undone (SEM_UNDO), while others change these",
                remedy: "try again",
            });
        }
        let tc = cores.iter_mut().find(|cores| cores.pid == pid);
        if let Some(tc) = tc.and_then(|cores| cores.leader.tc.as_mut()) {
            tc.gelid.get_or_insert_default().undo = open.found;
        }
    }
    Ok(())
}

/// The processes that may have something to be undone.
fn holders(tasks: &[Task]) -> Result<Vec<usize>, Error> {
    let live = tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| task.live.is_some());
    let (indices, pids): (Vec<usize>, Vec<Pid>) =
        live.map(|(index, task)| (index, task.living)).unzip();
    let with_lists = with_lists(&pids).map_err(|errno| Error::Own {
        what: "which tasks change semaphores",
        errno,
    })?;
    let mut holders: Vec<usize> = Vec::new();
    for (index, has) in indices.into_iter().zip(with_lists) {
        let task = &tasks[index];
        if !has {
            continue;
        }
        let threads = task.tids.iter().skip(1);
        for tid in threads {
            if !shares(task.living, *tid)? {
                return Err(shared(*tid));
            }
        }
        for other in &holders {
            if shares(tasks[*other].living, task.living)? {
                return Err(shared(task.pid));
            }
        }
        holders.push(index);
    }
    Ok(holders)
}

/// Which of these have a list of what is to be undone, as all processes with threads do. A child that has none compares.
fn with_lists(pids: &[Pid]) -> Result<Vec<bool>, Errno> {
    let mut all = Vec::with_capacity(pids.len());
    for pids in pids.chunks(AT_ONCE) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        gelid_sys::aside::aside(|| {
            let blank = rustix::process::getpid();
            for pid in pids {
                let has = match kcmp::shared(Kind::SysvSem, blank, *pid) {
                    // A kernel without semaphores.
                    Err(Errno::OPNOTSUPP | Errno::INVAL) => false,
                    shared => !shared?,
                };
                rustix::io::write(&write, &[u8::from(has)])?;
            }
            Ok(())
        })?;
        let mut answers = vec![0; pids.len()];
        let got = rustix::io::read(&read, &mut answers)?;
        if got < pids.len() {
            return Err(Errno::IO);
        }
        all.extend(answers.into_iter().map(|answer| answer != 0));
    }
    Ok(all)
}

fn shares(one: Pid, other: Pid) -> Result<bool, Error> {
    kcmp::shared(Kind::SysvSem, one, other).map_err(|errno| Error::Thread {
        tid: other,
        object: "what semaphores have to be undone",
        errno,
    })
}

fn shared(tid: Pid) -> Error {
    Error::Unsupported {
        tid,
        what: "operations on semaphores that are undone together with those of other tasks (CLONE_SYSVSEM), or apart \
               from those of its threads",
        remedy: "end it first",
    }
}

/// The sets of a namespace of the tree or of the dumper's, with their values.
fn sets(ipc: Option<&Instance>) -> Result<Vec<(Set, Vec<u16>)>, Error> {
    let look = || {
        let sets = sem::all()?.into_iter();
        sets.map(|set| Ok((set, sem::values(&set)?))).collect()
    };
    let sets = match ipc {
        None => look(),
        Some(instance) => instance.inside(|| Ok(look())).unwrap_or(Err(Errno::SRCH)),
    };
    sets.map_err(|errno| Error::Own {
        what: "the values of semaphores",
        errno,
    })
}

/// What is not known yet of one process.
struct Open {
    searches: Vec<Search>,
    found: Vec<GelidUndoEntry>,
}

/// A number that lies between two others, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Search {
    set: i32,
    number: u16,
    value: u16,
    low: i32,
    high: i32,
    /// Nothing has been asked yet.
    is_new: bool,
}

impl Open {
    fn all(sets: &[(Set, Vec<u16>)]) -> Self {
        let each = sets.iter().flat_map(|(set, values)| {
            let values = values.iter().zip(0..=u16::MAX);
            values.map(|(value, number)| Search::new(set.id, number, *value))
        });
        Self {
            searches: each.collect(),
            found: Vec::new(),
        }
    }

    /// Plays a tape for those that come first; gives memory of the program that was used for it.
    fn round(
        &mut self,
        tree: &mut Tree,
        tasks: &[Task],
        census: &Census,
        index: usize,
    ) -> Result<Vec<Range<u64>>, Error> {
        let mut tape = Tape::new();
        let mut asked: Vec<(Search, Vec<(i32, Op)>)> = Vec::new();
        while tape.len() < CALLS
            && let Some(search) = self.searches.pop()
        {
            let calls = search.questions().into_iter();
            let calls = calls.map(|bound| (bound, ask(&mut tape, &search, bound)));
            asked.push((search, calls.collect()));
        }
        let tid = tasks[index].pid;
        let played = play(tree, tasks, index, tape)?;
        let now: HashMap<i32, Vec<u16>> = sets(census.ipc_of(&tasks[index]))?
            .into_iter()
            .map(|(set, values)| (set.id, values))
            .collect();
        for (search, calls) in asked {
            let value = now.get(&search.set);
            let Some(value) = value.and_then(|values| values.get(usize::from(search.number)))
            else {
                // It is gone, with everything that was to be undone.
                continue;
            };
            let mut next = Search {
                is_new: false,
                ..search
            };
            for (bound, call) in calls {
                let failed = |errno| Error::Call {
                    tid,
                    call: "semop",
                    errno,
                };
                match played.outcome.ok(call) {
                    Err(Errno::RANGE) => next.narrow(bound, true),
                    Err(Errno::AGAIN) => next.narrow(bound, false),
                    Err(Errno::INVAL | Errno::IDRM) => {}
                    Err(errno) => return Err(failed(errno)),
                    Ok(_) => return Err(failed(Errno::IO)),
                }
            }
            match next.low.cmp(&next.high) {
                // Somebody outside of the tree has changed it meanwhile.
                Ordering::Greater => self.searches.push(search.anew(*value)),
                _ if *value != search.value => self.searches.push(search.anew(*value)),
                Ordering::Less => self.searches.push(next),
                Ordering::Equal if next.low == 0 => {}
                Ordering::Equal => self.found.push(GelidUndoEntry {
                    set: next.set,
                    semaphore: next.number.into(),
                    change: next.low,
                }),
            }
        }
        Ok(played.lent)
    }
}

impl Search {
    /// For a semaphore of which nothing is known but its value.
    fn new(set: i32, number: u16, value: u16) -> Self {
        Self {
            set,
            number,
            value,
            low: -i32::from(MOST) - 1,
            high: MOST.into(),
            is_new: true,
        }
    }

    fn anew(&self, value: u16) -> Self {
        Self::new(self.set, self.number, value)
    }

    /// Takes an answer: whether the number is `bound` or beyond.
    fn narrow(&mut self, bound: i32, is_beyond: bool) {
        match (bound > 0, is_beyond) {
            (true, true) => self.low = self.low.max(bound),
            (true, false) => self.high = self.high.min(bound - 1),
            (false, true) => self.high = self.high.min(bound),
            (false, false) => self.low = self.low.max(bound + 1),
        }
    }

    /// Numbers to be compared with. More than 0: is it that or more? Less: is it that or less?
    fn questions(&self) -> Vec<i32> {
        if self.is_new {
            // Most are 0. Twice, as others may be at work.
            return vec![1, -1, 1, -1];
        }
        let step = (self.high - self.low) / (STEPS + 1) + 1;
        let bounds = (1..=STEPS).map(|count| match self.low >= 0 {
            true => self.low + count * step,
            false => self.high - count * step,
        });
        let (low, high) = (self.low, self.high);
        let inside = bounds.filter(|bound| *bound != 0 && (low..=high).contains(bound));
        inside.collect()
    }
}

/// Appends a call that fails with `ERANGE` if what is to be undone is `bound` or beyond, and with `EAGAIN` if not.
fn ask(tape: &mut Tape, search: &Search, bound: i32) -> Op {
    let operations = question(search.value, bound);
    let bytes: Vec<u8> = operations
        .iter()
        .flat_map(|(change, flags)| {
            let operation = Operation {
                number: search.number,
                change: *change,
                flags: *flags | NOWAIT,
            };
            operation.as_bytes()
        })
        .collect();
    let data = tape.bytes(&bytes);
    tape.call(
        nr::semop,
        [
            search.set.into(),
            data.into(),
            (operations.len() as u64).into(),
        ],
    )
}

/// Operations on a semaphore of a value, none of which takes it out of its own bounds.
fn question(value: u16, bound: i32) -> Vec<(i16, u16)> {
    let (most, value) = (i32::from(MOST), i32::from(value));
    let mut changes = Vec::new();
    if bound > 0 {
        // Taking so many adds them to what is to be undone, which cannot be more than the most.
        let taken = most + 1 - bound;
        changes.extend([(most - value, 0), (-taken, UNDO), (1 - bound, 0)]);
    } else {
        // The other way round it has room for one more.
        let given = most + 2 + bound;
        let first = given.min(most);
        changes.extend([(-value, 0), (first, UNDO), (-first, 0)]);
        changes.extend([(given - first, UNDO), (first - given, 0)]);
    }
    changes.retain(|(change, _)| *change != 0);
    changes.extend([(1, 0), (0, 0)]);
    let fits = changes.into_iter();
    fits.map(|(change, flags)| (change as i16, flags)).collect()
}

fn play(tree: &mut Tree, tasks: &[Task], index: usize, tape: Tape) -> Result<carry::Played, Error> {
    let (process, task) = (&tree.processes()[index], &tasks[index]);
    let gone = || Error::Gone { tid: task.pid };
    let live = task.live.as_ref().ok_or_else(gone)?;
    let ground = ground(process, areas(tasks, live))?;
    let job = Job {
        place: (index, 0),
        identity: process::identity(process, task, live)?,
        tape: Arc::new(tape),
    };
    let space = Space {
        ground,
        jobs: [job].into(),
    };
    let mut last = None;
    carry::play(tree, vec![space], |played| last = Some(played))?;
    last.ok_or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with the operations: `None` if they succeed.
    fn kernel(mut value: i32, mut undo: i32, operations: &[(i16, u16)]) -> Option<Errno> {
        let most = i32::from(MOST);
        for (change, flags) in operations {
            let change = i32::from(*change);
            if (change == 0 && value != 0) || value + change < 0 {
                return Some(Errno::AGAIN);
            }
            value += change;
            if value > most {
                return Some(Errno::RANGE);
            }
            if flags & UNDO != 0 {
                undo -= change;
                if !(-most - 1..=most).contains(&undo) {
                    return Some(Errno::RANGE);
                }
            }
        }
        None
    }

    #[test]
    fn questions_are_answered_and_never_granted() {
        let some = [-32768, -32767, -300, -2, -1, 0, 1, 2, 5, 300, 32766, 32767];
        for value in [0, 1, 2, 300, 32766, 32767] {
            for undo in some {
                for bound in some.into_iter().filter(|bound| *bound != 0) {
                    let beyond = if bound > 0 {
                        undo >= bound
                    } else {
                        undo <= bound
                    };
                    let expected = if beyond { Errno::RANGE } else { Errno::AGAIN };
                    let got = kernel(value, undo, &question(value as u16, bound));
                    assert_eq!(got, Some(expected), "{value} {undo} {bound}");
                }
                // Whatever the value is by then.
                for other in [0, 1, 2, 300, 32766, 32767] {
                    assert!(kernel(other, undo, &question(value as u16, 1)).is_some());
                    assert!(kernel(other, undo, &question(value as u16, -1)).is_some());
                }
            }
        }
    }

    #[test]
    fn a_search_ends() {
        for wanted in [-32768, -4097, -1, 0, 1, 2, 15, 16, 17, 32767] {
            let mut search = Search::new(0, 0, 0);
            let mut rounds = 0;
            while search.low < search.high {
                for bound in search.questions() {
                    let beyond = if bound > 0 {
                        wanted >= bound
                    } else {
                        wanted <= bound
                    };
                    search.narrow(bound, beyond);
                }
                search.is_new = false;
                rounds += 1;
                assert!(rounds < 7, "{wanted}: {search:?}");
            }
            assert_eq!(search.low, wanted);
        }
    }
}
