//! Tasks and threads get their state: what their own tapes can set, then registers.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use gelid_sys::Errno;
use gelid_sys::arch::UserRegs;
use gelid_sys::ptrace::Stopped;
use gelid_sys::signal::SigSet;
use gelid_sys::syscall::nr;
use gelid_tape::{Carrier, Host, Saved, Tape, closing_signal};

use super::births::tape_error;
use super::crew::{Crew, Showing, finish, finish_unread, identity};
use super::script::{Reel, Script};
use super::threads::Newborn;
use super::threads::broods::{Broods, is_put_off};
use super::{inheritance, space, stop_is_told};
use crate::Error;
use crate::plan::births::Who;
use crate::plan::{Alive, Life, Plan, Thread};
use crate::state::Machine;

/// Bytes at the end of the room for tapes where an interrupted call finds its timeout.
const SCRATCH: u64 = 16;

/// A thread with its registers, ready to go.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Index of its task.
    pub(crate) task: usize,
    pub(crate) stopped: Stopped,
}

/// Threads that are no leaders, by task.
pub(crate) type Newborns = HashMap<usize, Vec<Newborn>>;

/// Sets the state of the processes in question and of all their threads; gives back the threads that are no
/// leaders. Leaders stay carriers.
pub(crate) fn run(
    plan: &mut Plan,
    machine: &Machine,
    concerned: impl Fn(&Plan, usize) -> bool,
    newborns: &mut Newborns,
    crew: &mut Crew,
) -> Result<Vec<Ready>, Error> {
    let tasks: Vec<usize> = (0..plan.lives.len())
        .filter(|index| concerned(plan, *index))
        .collect();
    actions(plan, &tasks, crew)?;
    let mut ready = Vec::new();
    for task in tasks.iter().copied() {
        if is_put_off(plan, task, crew) {
            let mut broods = Broods::begin(plan, task, crew)?;
            loop {
                let born = broods.next(plan, crew)?;
                if born.is_empty() {
                    break;
                }
                of_threads(plan, machine, born, crew, &mut ready)?;
            }
        }
        if let Some(threads) = newborns.remove(&task) {
            of_threads(plan, machine, threads, crew, &mut ready)?;
        }
    }
    leaders(plan, machine, &tasks, crew)?;
    Ok(ready)
}

/// Sets the handlers of processes with several threads, whose pending signals come next.
fn actions(plan: &Plan, tasks: &[usize], crew: &mut Crew) -> Result<(), Error> {
    let mut work = Vec::new();
    for index in tasks {
        if let Life::Alive(alive) = &plan.lives[*index]
            && alive.threads.len() > 1
        {
            let mut script = Script::default();
            let process = &alive.process;
            process.write_actions(&mut script.tape, alive.handles);
            work.push((Who::Task(*index), script));
        }
    }
    crew.play(&work)?;
    Ok(())
}

/// What the pages had to come before.
pub(crate) fn complete_spaces(
    plan: &Plan,
    zone: &Range<u64>,
    crew: &mut Crew,
) -> Result<(), Error> {
    let mut showing = Showing::default();
    for (index, life) in plan.lives.iter().enumerate() {
        if let Life::Alive(alive) = life
            && alive.builds
        {
            let who = Who::Task(index);
            let mut reel = Reel::new(crew.body(who)?.carrier.room());
            let missing = inheritance::missing(&plan.inheritance[index]);
            space::complete(&mut reel, &plan.spaces[alive.space], zone, &missing);
            showing.begin(who, reel.into_scripts(), crew)?;
        }
    }
    showing.end(crew)
}

/// Threads of one process, as many at a time as there is room for.
fn of_threads(
    plan: &mut Plan,
    machine: &Machine,
    threads: Vec<Newborn>,
    crew: &mut Crew,
    ready: &mut Vec<Ready>,
) -> Result<(), Error> {
    let Some(task) = threads.first().map(|thread| thread.task) else {
        return Ok(());
    };
    let node = &plan.nodes[task];
    let Life::Alive(alive) = &mut plan.lives[task] else {
        return Ok(());
    };
    let machine = machine.of(alive.users);
    let signal = closing_signal(SigSet::EMPTY, alive.pending());
    let host = crew.body(Who::Task(task))?.host;
    let host = &mut crew.hosts[host];
    let left = |host: &Host| host.left().saturating_sub(SCRATCH as usize);
    let (mark, room) = (host.mark(), left(host));
    let mut batch = Vec::new();
    let mut base = None;
    for newborn in threads {
        let thread = &alive.threads[newborn.thread];
        let (pid, tid) = (node.own(0), node.own(newborn.thread));
        let mut script = Script::default();
        thread.state.write(&mut script.tape, machine, pid);
        thread.state.schedule(newborn.stopped.pid(), machine)?;
        let many = thread.state.many_pending(pid);
        let sizes = many.iter().map(Tape::size);
        let size = sizes.fold(script.tape.size(), usize::max);
        if size > left(host) && size <= room {
            play(&mut batch, host, alive, machine, task, ready)?;
            host.reset(mark);
        }
        let newborn_pid = newborn.stopped.pid();
        let regs = match base {
            Some(regs) => regs,
            None => *base.insert(registers_of(&newborn.stopped, tid)?),
        };
        let identity = identity(pid, tid, signal);
        let boarded = host.board_newborn(newborn.stopped, identity, regs, size);
        let mut carrier = boarded.map_err(|failed| tape_error(tid, failed))?;
        for tape in many {
            let started = carrier.start(&tape);
            started.map_err(|source| Error::Tape { pid: tid, source })?;
            finish(&mut carrier, newborn_pid, &Script::of(tape))?;
        }
        carrier
            .start(&script.tape)
            .map_err(|source| Error::Tape { pid: tid, source })?;
        batch.push((carrier, script, newborn.thread));
    }
    play(&mut batch, host, alive, machine, task, ready)?;
    host.reset(mark);
    Ok(())
}

/// Waits for a batch, and gives each its registers.
fn play(
    batch: &mut Vec<(Carrier, Script, usize)>,
    host: &Host,
    alive: &mut Alive,
    machine: &Machine,
    task: usize,
    ready: &mut Vec<Ready>,
) -> Result<(), Error> {
    for (mut carrier, script, thread) in batch.drain(..) {
        let tid = carrier.tid();
        finish_unread(&mut carrier, tid, &script)?;
        let thread = &mut alive.threads[thread];
        let stopped = match thread.state.has_restart() {
            true => {
                let stopped = take_up(release(carrier, SigSet::ALL)?, host, thread)?;
                set_registers(&stopped, thread, machine)?;
                stopped
            }
            false => leave(carrier, thread, machine)?,
        };
        ready.push(Ready { task, stopped });
    }
    Ok(())
}

/// Ends the carrying; where the thread stands then has no meaning yet.
pub(crate) fn release(mut carrier: Carrier, mask: SigSet) -> Result<Stopped, Error> {
    let pid = carrier.tid().as_raw_pid();
    let regs = carrier.saved().regs;
    carrier.set_saved(Saved { regs, mask });
    carrier
        .release()
        .map_err(|(source, _task)| Error::Tape { pid, source })
}

/// Lets the kernel know how an interrupted system call goes on. All signals must be blocked.
pub(crate) fn take_up(
    stopped: Stopped,
    host: &Host,
    thread: &mut Thread,
) -> Result<Stopped, Error> {
    if !thread.state.has_restart() {
        return Ok(stopped);
    }
    let scratch = host.data().end - SCRATCH;
    let at = host.syscall_at();
    Ok(thread.state.take_up(stopped, at, scratch)?)
}

/// Ends the carrying: the thread stands where it stood in the image.
pub(crate) fn leave(
    mut carrier: Carrier,
    thread: &Thread,
    machine: &Machine,
) -> Result<Stopped, Error> {
    let pid = carrier.tid().as_raw_pid();
    carrier.set_saved(thread.state.saved());
    let released = carrier.release();
    let stopped = released.map_err(|(source, _task)| Error::Tape { pid, source })?;
    set_other_registers(&stopped, thread, machine)?;
    Ok(stopped)
}

/// The same of a thread that carries nothing any more.
fn set_registers(stopped: &Stopped, thread: &Thread, machine: &Machine) -> Result<(), Error> {
    let failed = |operation| {
        move |errno: Errno| Error::Task {
            operation,
            pid: thread.tid,
            errno,
        }
    };
    let Saved { regs, mask } = thread.state.saved();
    stopped
        .set_regs(&regs)
        .map_err(failed("setting registers"))?;
    stopped
        .set_sigmask(mask)
        .map_err(failed("setting the signal mask"))?;
    set_other_registers(stopped, thread, machine)
}

/// All but the general registers and the mask.
fn set_other_registers(stopped: &Stopped, thread: &Thread, machine: &Machine) -> Result<(), Error> {
    if let Some(dispatch) = thread.state.dispatch() {
        let set = stopped.set_dispatch(dispatch);
        set.map_err(|errno| Error::Task {
            operation: "diverting the system calls",
            pid: thread.tid,
            errno,
        })?;
    }
    Ok(thread.state.set_fpu(stopped, machine)?)
}

/// Those of a thread that has just been born, with which all of its process start.
fn registers_of(newborn: &Stopped, tid: i32) -> Result<UserRegs, Error> {
    newborn.regs().map_err(|errno| Error::Task {
        operation: "reading the registers",
        pid: tid,
        errno,
    })
}

/// Makes the many signals of processes and their leaders pending, after their handlers; gives those who have any.
fn many_pending(
    plan: &Plan,
    machine: &Machine,
    tasks: &[usize],
    crew: &mut Crew,
) -> Result<HashSet<usize>, Error> {
    let mut reels = Vec::new();
    let mut all = HashSet::new();
    for index in tasks.iter().copied() {
        let Life::Alive(alive) = &plan.lives[index] else {
            continue;
        };
        let pid = plan.nodes[index].own(0);
        let shared = alive.process.many_pending(machine.of(alive.users));
        let own = alive.threads[0].state.many_pending(pid);
        let mut reel: Vec<Script> = shared.into_iter().chain(own).map(Script::of).collect();
        if !reel.is_empty() {
            outside(plan, (index, alive), machine.of(alive.users), true, crew)?;
            reel.insert(0, actions_of(alive));
            reels.push((Who::Task(index), reel));
            all.insert(index);
        }
    }
    crew.play_reels(reels)?;
    Ok(all)
}

/// Sets what is set from outside.
fn outside(
    plan: &Plan,
    (index, alive): (usize, &Alive),
    machine: &Machine,
    is_asked: bool,
    crew: &mut Crew,
) -> Result<(), Error> {
    let pid = crew.body(Who::Task(index))?.pid;
    let may_differ = plan.shares_space_with_any(index);
    let process = &alive.process;
    process.outside(pid, machine, (may_differ, is_asked))?;
    Ok(alive.threads[0].state.schedule(pid, machine)?)
}

/// The handlers of a process with one thread; others have theirs already.
fn actions_of(alive: &Alive) -> Script {
    let mut script = Script::default();
    if alive.threads.len() == 1 {
        let process = &alive.process;
        process.write_actions(&mut script.tape, alive.handles);
    }
    script
}

/// Sets what belongs to processes, and to their leaders as threads.
fn leaders(plan: &Plan, machine: &Machine, tasks: &[usize], crew: &mut Crew) -> Result<(), Error> {
    let (mut showing, mut last) = (Showing::default(), Vec::new());
    let told: Vec<usize> = (0..plan.lives.len())
        .filter(|index| stop_is_told(plan, *index) && !tasks.contains(index))
        .collect();
    let with_actions = many_pending(plan, machine, tasks, crew)?;
    let mut sessions = HashSet::new();
    for index in tasks.iter().copied() {
        let Life::Alive(alive) = &plan.lives[index] else {
            continue;
        };
        let machine = machine.of(alive.users);
        let node = &plan.nodes[index];
        let (who, pid) = (Who::Task(index), node.own(0));
        let mut script = Script::default();
        if !with_actions.contains(&index) {
            let is_asked = node.sid == 0 || sessions.insert(node.sid);
            outside(plan, (index, alive), machine, is_asked, crew)?;
            script = actions_of(alive);
        }
        alive.process.write(&mut script.tape, machine);
        alive.threads[0].state.write(&mut script.tape, machine, pid);
        let told = told.iter().map(|child| &plan.nodes[*child]);
        for child in told.filter(|child| child.parent == Some(index)) {
            learn_of_stop(&mut script, child.seen_from(node.level()));
        }
        if alive.builds {
            let mut shared = Script::default();
            let alone = !plan.shares_space(index);
            let tape = if alone { &mut script } else { &mut shared };
            let mm = &plan.spaces[alive.space].mm;
            let process = &alive.process;
            process.write_last(&mut tape.tape, mm.dumpable, mm.thp_disabled);
            if !alone {
                last.push((who, shared));
            }
        }
        showing.begin(who, vec![script], crew)?;
    }
    showing.end(crew)?;
    crew.play(&last)?;
    Ok(())
}

/// Waits for a child that is stopped already, as the program has done.
fn learn_of_stop(script: &mut Script, child: i32) {
    /// `WNOHANG | WUNTRACED | __WALL`
    const HOW: u64 = 1 | 2 | 0x4000_0000;
    script.call(nr::wait4, [child.into(), 0.into(), HOW.into(), 0.into()]);
}
