//! Threads come under seccomp, which is suspended as long as they are held.

use gelid_sys::signal::SigSet;
use gelid_tape::closing_signal;

use super::births::tape_error;
use super::crew::{Crew, finish, identity};
use super::script::{Reel, Script};
use super::state::{Newborns, release};
use crate::Error;
use crate::plan::births::Who;
use crate::plan::tree::Node;
use crate::plan::{Alive, Life, Plan};
use crate::state::seccomp;

/// Installs all filters: first those that a process's threads have in common, then what each has beyond.
pub(crate) fn restrain(plan: &Plan, newborns: &mut Newborns, crew: &mut Crew) -> Result<(), Error> {
    if !plan.is_restrained() {
        return Ok(());
    }
    let (mut common, mut own) = (Vec::new(), Vec::new());
    for (index, life) in plan.lives.iter().enumerate() {
        let Life::Alive(alive) = life else { continue };
        let who = Who::Task(index);
        let room = crew.body(who)?.carrier.room();
        let filters = alive.threads[0].restraint.filters();
        let (of_all, _) = filters.split_at(alive.common_filters);
        let mut reel = Reel::new(room);
        for filter in of_all {
            let script = reel.script(filter.size());
            filter.write(&mut script.tape, alive.threads.len() > 1);
        }
        common.push((who, reel.into_scripts()));
        own.push((who, scripts(alive, 0, room)));
    }
    crew.play_reels(common)?;
    crew.play_reels(own)?;
    for (index, life) in plan.lives.iter().enumerate() {
        if let Life::Alive(alive) = life {
            threads(&plan.nodes[index], index, alive, newborns, crew)?;
        }
    }
    Ok(())
}

/// What a thread has that others of its process do not.
fn scripts(alive: &Alive, thread: usize, room: usize) -> Vec<Script> {
    let restraint = &alive.threads[thread].restraint;
    let mut reel = Reel::new(room);
    for filter in &restraint.filters()[alive.common_filters..] {
        filter.write(&mut reel.script(filter.size()).tape, false);
    }
    if restraint.is_strict() {
        const CALL: usize = 256;
        seccomp::write_strict(&mut reel.script(CALL).tape);
    }
    reel.into_scripts()
}

/// Threads that are no leaders, one after the other.
fn threads(
    node: &Node,
    index: usize,
    alive: &Alive,
    newborns: &mut Newborns,
    crew: &mut Crew,
) -> Result<(), Error> {
    let Some(waiting) = newborns.remove(&index) else {
        return Ok(());
    };
    let host = crew.body(Who::Task(index))?.host;
    let host = &mut crew.hosts[host];
    let signal = closing_signal(SigSet::EMPTY, alive.pending());
    let mut done = Vec::with_capacity(waiting.len());
    for mut newborn in waiting {
        let (pid, tid) = (node.own(0), node.own(newborn.thread));
        let scripts = scripts(alive, newborn.thread, host.left());
        let size = scripts.iter().map(|script| script.tape.size()).max();
        if let Some(size) = size {
            let mark = host.mark();
            let boarded = host.board(newborn.stopped, identity(pid, tid, signal), size);
            let mut carrier = boarded.map_err(|failed| tape_error(tid, failed))?;
            for script in &scripts {
                carrier
                    .start(&script.tape)
                    .map_err(|source| Error::Tape { pid: tid, source })?;
                let tid = carrier.tid();
                finish(&mut carrier, tid, script)?;
            }
            newborn.stopped = release(carrier, SigSet::ALL)?;
            host.reset(mark);
        }
        done.push(newborn);
    }
    newborns.insert(index, done);
    Ok(())
}
