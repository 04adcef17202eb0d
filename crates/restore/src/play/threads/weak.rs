//! Threads in user namespaces below that of the root: nobody there may give them numbers in pid namespaces above.

use gelid_sys::ptrace::Stopped;
use gelid_sys::signal::SigSet;
use gelid_sys::syscall::nr;
use gelid_tape::closing_signal;

use super::super::births::taken::taken;
use super::super::births::tape_error;
use super::super::births::weak::{PATIENCE, Wanted};
use super::super::crew::{Crew, await_death, identity};
use super::super::script::Script;
use super::{Newborn, SHARED, birth};
use crate::Error;
use crate::plan::births::Who;
use crate::plan::{Life, Plan};

/// Creates all of them, one after the other.
pub(super) fn bear(plan: &Plan, crew: &mut Crew) -> Result<Vec<Newborn>, Error> {
    let mut born = Vec::new();
    for (index, life) in plan.lives.iter().enumerate() {
        if let Life::Alive(alive) = life
            && let Some(users) = alive.users
        {
            for thread in 1..alive.threads.len() {
                let stopped = weakly(plan, (index, thread), users, crew)?;
                born.push(Newborn {
                    task: index,
                    thread,
                    stopped,
                });
            }
        }
    }
    Ok(born)
}

/// Creates a thread in a user namespace below that of the root, which may give it numbers of its own alone.
fn weakly(
    plan: &Plan,
    (task, thread): (usize, usize),
    users: u32,
    crew: &mut Crew,
) -> Result<Stopped, Error> {
    let node = &plan.nodes[task];
    let given = node.numbers_given_by(Some(users), &plan.namespaces);
    let wanted = Wanted::new(plan, node, node.set_tid(thread), given);
    let who = Who::Task(task);
    for _ in 0..PATIENCE {
        let mut script = Script::default();
        let op = birth(
            &mut script,
            SHARED,
            wanted.to_be_given(),
            wanted.outermost(),
        );
        let announced = wanted.announce(crew)?;
        let outcomes = crew.play(&[(who, script)])?;
        drop(announced);
        let seen = outcomes.first().and_then(|outcome| outcome.ok(op).ok());
        let seen = i32::try_from(seen.unwrap_or_default()).unwrap_or_default();
        let stopped = crew.newborn_thread_inside(seen, node.level())?;
        if wanted.is_met(&stopped)? {
            return Ok(stopped);
        }
        end(stopped, who, (node.own(0), seen), crew)?;
    }
    Err(taken(wanted.outermost(), crew.pid_namespace()))
}

/// Has a thread end that somebody else has taken the number from.
fn end(thread: Stopped, who: Who, (tgid, tid): (i32, i32), crew: &mut Crew) -> Result<(), Error> {
    let pid = thread.pid();
    let host = crew.body(who)?.host;
    let host = &mut crew.hosts[host];
    let mark = host.mark();
    let mut script = Script::default();
    script.call(nr::exit, [0.into()]);
    let identity = identity(tgid, tid, closing_signal(SigSet::EMPTY, SigSet::EMPTY));
    let boarded = host.board(thread, identity, script.tape.size());
    let mut carrier = boarded.map_err(|failed| tape_error(tid, failed))?;
    let started = carrier.start(&script.tape);
    started.map_err(|source| Error::Tape { pid: tid, source })?;
    await_death(pid)?;
    crew.hosts[crew.bodies[&who].host].reset(mark);
    Ok(())
}
