//! Threads are born in their processes: those with descriptors or directories of their own before the tables are
//! filled, and all others after that.

pub(crate) mod broods;
mod weak;

use gelid_sys::clone::{CloneArgs, flags};
use gelid_sys::ptrace::Stopped;
use gelid_sys::signal::SigSet;
use gelid_sys::syscall::nr;
use gelid_tape::{Op, closing_signal};

use self::broods::is_put_off;
use super::births::taken::taken_or;
use super::births::tape_error;
use super::crew::{Crew, finish, identity};
use super::descriptors::{self, Doors};
use super::script::{Object, Reel, Script};
use super::state::release;
use crate::Error;
use crate::files::OpenFiles;
use crate::plan::births::Who;
use crate::plan::tree::Node;
use crate::plan::{Alive, Apart, Life, Plan, Thread};
use crate::state::Machine;

/// With what threads are born.
const SHARED: u64 = flags::SHARED_BY_THREADS | flags::PTRACE;
/// Threads that are born by one tape.
const BROOD: usize = 512;

/// A thread that is no leader, in its first stop.
#[derive(Debug)]
pub(crate) struct Newborn {
    /// Index of its task.
    pub(crate) task: usize,
    /// Index among the threads of the task.
    pub(crate) thread: usize,
    pub(crate) stopped: Stopped,
}

/// Creates all threads but the leaders, those that are there already, and those that are [put off](broods).
pub(crate) fn run(plan: &Plan, crew: &mut Crew) -> Result<Vec<Newborn>, Error> {
    let mut born = bear(plan, crew, |apart| (!apart.is_any()).then_some(SHARED))?;
    born.extend(weak::bear(plan, crew)?);
    Ok(born)
}

/// Creates those that are apart, which get what they have alone. All that is inherited must still be there.
pub(crate) fn apart(
    plan: &Plan,
    (files, machine): (&OpenFiles, &Machine),
    crew: &mut Crew,
) -> Result<Vec<Newborn>, Error> {
    let all = plan.alive();
    if !all.into_iter().any(|(_, alive)| alive.has_apart()) {
        return Ok(Vec::new());
    }
    let born = bear(plan, crew, |apart| {
        let files = apart.files.map_or(flags::FILES, |_| 0);
        let fs = apart.fs.map_or(flags::FS, |_| 0);
        apart
            .is_any()
            .then_some(SHARED & !(flags::FILES | flags::FS) | files | fs)
    })?;
    let dressed = born.into_iter();
    let dressed = dressed.map(|newborn| dress(plan, (files, machine), newborn, crew));
    dressed.collect()
}

/// Gives a thread its own descriptors and directories.
fn dress(
    plan: &Plan,
    (files, machine): (&OpenFiles, &Machine),
    mut newborn: Newborn,
    crew: &mut Crew,
) -> Result<Newborn, Error> {
    let (task, node) = (newborn.task, &plan.nodes[newborn.task]);
    let Life::Alive(alive) = &plan.lives[task] else {
        return Ok(newborn);
    };
    let thread = &alive.threads[newborn.thread];
    let host = crew.body(Who::Task(task))?.host;
    let host = &mut crew.hosts[host];
    let mark = host.mark();
    let mut reel = Reel::new(host.left());
    if let Some(fs) = &thread.apart.fs {
        descriptors::directories(&mut reel, thread.tid, fs, files, machine)?;
    }
    if let Some(id) = thread.apart.files {
        let table = plan.files.table(id);
        // Those of threads, for which it would be too early.
        if let Some(late) = table.iter().find(|planned| files.is_late(planned.id)) {
            let (pid, id) = (thread.tid, late.id);
            return Err(Error::NoSuchFile { pid, id });
        }
        let doors = Doors {
            now: None,
            late: files.door(),
        };
        let all = (plan.files.watches(id), table);
        descriptors::all(&mut reel, thread.tid, all, files, (&[], doors))?;
    }
    let (pid, tid) = (node.own(0), node.own(newborn.thread));
    let signal = closing_signal(SigSet::EMPTY, alive.pending());
    let boarded = host.board(newborn.stopped, identity(pid, tid, signal), host.left());
    let mut carrier = boarded.map_err(|failed| tape_error(tid, failed))?;
    for script in reel.into_scripts() {
        let started = carrier.start(&script.tape);
        started.map_err(|source| Error::Tape { pid: tid, source })?;
        let tid = carrier.tid();
        finish(&mut carrier, tid, &script)?;
    }
    newborn.stopped = release(carrier, SigSet::ALL)?;
    host.reset(mark);
    Ok(newborn)
}

/// Creates the threads for which `flags` has an answer.
fn bear(
    plan: &Plan,
    crew: &mut Crew,
    flags: impl Fn(&Apart) -> Option<u64>,
) -> Result<Vec<Newborn>, Error> {
    let mut born = Vec::new();
    let mut next = 1;
    let tasks = 0..plan.lives.len();
    let tasks: Vec<usize> = tasks
        .filter(|index| !is_put_off(plan, *index, crew))
        .collect();
    let wanted = |thread: &Thread| flags(&thread.apart).is_some();
    loop {
        let mut work = Vec::new();
        for index in tasks.iter().copied() {
            let Life::Alive(alive) = &plan.lives[index] else {
                continue;
            };
            if alive.threads.len() > next && alive.users.is_none() {
                let last = alive.threads.len().min(next + BROOD);
                if !alive.threads[next..last].iter().any(wanted) {
                    continue;
                }
                let node = &plan.nodes[index];
                let script = script(node, alive, next..last, &flags);
                work.push((Who::Task(index), script, next..last));
            }
        }
        let more = |(_, alive): (_, &Alive)| alive.threads.len() > next;
        if work.is_empty() && !plan.alive().any(more) {
            return Ok(born);
        }
        let (scripts, ranges): (Vec<_>, Vec<_>) = work
            .into_iter()
            .map(|(who, script, range)| ((who, script), range))
            .unzip();
        for (who, range) in scripts.iter().map(|(who, _)| *who).zip(&ranges) {
            if let Who::Task(task) = who
                && let Life::Alive(alive) = &plan.lives[task]
            {
                let threads = alive.threads[range.clone()].iter();
                let threads = threads.filter(|thread| wanted(thread));
                crew.expect_threads(threads.map(|thread| thread.tid));
            }
        }
        let played = crew.play(&scripts);
        played.map_err(|error| taken_or(error, crew.pid_namespace()))?;
        for ((who, _), range) in scripts.iter().zip(ranges) {
            let Who::Task(task) = *who else { continue };
            let Life::Alive(alive) = &plan.lives[task] else {
                continue;
            };
            for thread in range.filter(|thread| wanted(&alive.threads[*thread])) {
                let stopped = crew.newborn_thread(alive.threads[thread].tid)?;
                born.push(Newborn {
                    task,
                    thread,
                    stopped,
                });
            }
        }
        next += BROOD;
    }
}

fn script(
    node: &Node,
    alive: &Alive,
    threads: std::ops::Range<usize>,
    flags: impl Fn(&Apart) -> Option<u64>,
) -> Script {
    let mut script = Script::default();
    for thread in threads {
        if let Some(flags) = flags(&alive.threads[thread].apart) {
            let numbers = node.set_tid(thread);
            birth(&mut script, flags, &numbers, node.threads[thread]);
        }
    }
    script
}

/// Appends the birth of a thread that images call `number`; `numbers` are those that are given to it.
fn birth(script: &mut Script, flags: u64, numbers: &[i32], number: i32) -> Op {
    let args = CloneArgs {
        flags,
        set_tid_size: numbers.len() as u64,
        ..CloneArgs::default()
    };
    let bytes = args.to_bytes();
    let data = script.bytes(&bytes);
    if !numbers.is_empty() {
        let numbers: Vec<u8> = numbers.iter().flat_map(|id| id.to_ne_bytes()).collect();
        let tids = script.bytes(&numbers);
        script.tape.link(data, CloneArgs::SET_TID, tids);
    }
    let size = bytes.len() as u64;
    let args = [data.into(), size.into()];
    script.must(Object::Task(number), nr::clone3, args)
}
