//! Copies that were children of tasks, ended and collected by them.
//!
//! What has ended stays with its parent until that waits for it, which no program does for a child that no signal
//! told it of. So the tree is stopped once more, for as long as it takes to play one call.

use std::time::Duration;

use gelid_seize::{Process, Tree};
use gelid_sys::Pid;
use gelid_sys::proc::stat::{self, State};
use gelid_sys::proc::{TaskDir, smaps, status};
use gelid_sys::ptrace::Stopped;
use gelid_sys::syscall::nr;
use gelid_tape::{Arg, Ground, Host, Identity, Tape};

use super::copy::{self, Copy, Parent, ROOM, WALL};
use crate::core;

/// Does not wait for the end of one that lives.
const NOHANG: u64 = 1;

/// Why a copy that has ended stays.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The tree could not be stopped, or not be let go.
    #[error(transparent)]
    Freeze(#[from] gelid_seize::Error),
    /// The same.
    #[error(transparent)]
    Thaw(#[from] gelid_seize::ThawError),
}

/// Why one of them stays.
#[derive(Debug, thiserror::Error)]
enum Stays {
    /// Something of its parent in `/proc`.
    #[error(transparent)]
    Proc(#[from] gelid_sys::proc::Error),
    /// A tape could not be played.
    #[error(transparent)]
    Tape(#[from] gelid_tape::Error),
    /// Registers of its parent.
    #[error(transparent)]
    Core(#[from] core::Error),
    /// Its parent is not in the tree any more, or has no first thread.
    #[error("its parent {parent} cannot collect it")]
    Away { parent: i32 },
}

/// A process that has ended, and who it was.
struct Ended {
    pid: Pid,
    born: u64,
}

/// Ends copies, and has those collected that are children of tasks. How long the tree of `root`, which runs, stood still
/// for that.
pub(super) fn all(root: Pid, copies: Vec<Copy>) -> Duration {
    let mut ended = Vec::new();
    for copy in copies {
        if copy.parent() == Parent::Task
            && let Ok(stat) = TaskDir::open(copy.pid()).and_then(|dir| stat::read(&dir))
        {
            let (pid, born) = (copy.pid(), stat.start_time);
            ended.push(Ended { pid, born });
        }
        drop(copy);
    }
    if ended.is_empty() {
        return Duration::ZERO;
    }
    by_the_tree(root, &ended).unwrap_or_else(|error| {
        // With the tree, they have gone as well.
        tracing::debug!(%error, "copies that have ended stay with their parents");
        Duration::ZERO
    })
}

fn by_the_tree(root: Pid, ended: &[Ended]) -> Result<Duration, Error> {
    let mut tree = gelid_seize::freeze(&gelid_seize::Options::new(root))?;
    for copy in ended {
        if let Err(error) = one(&mut tree, copy) {
            let pid = copy.pid.as_raw_pid();
            tracing::warn!(pid, %error, "a copy that has ended stays with its parent");
        }
    }
    let frozen = tree.frozen_for();
    tree.thaw()?;
    Ok(frozen)
}

fn one(tree: &mut Tree, copy: &Ended) -> Result<(), Stays> {
    let stat = match TaskDir::open(copy.pid).and_then(|dir| stat::read(&dir)) {
        Ok(stat) if stat.start_time == copy.born && stat.state == State::Zombie => stat,
        // Somebody has collected it, and the number may be another's by now.
        Ok(_) => return Ok(()),
        Err(error) if error.is_gone() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // It may have been adopted meanwhile.
    let parent = stat.ppid;
    let mut processes = tree.processes_mut().iter_mut();
    let process = processes.find(|process| process.pid.as_raw_pid() == parent);
    let process = process.filter(|process| process.is_alive() && process.ended_leader.is_none());
    let process = process.ok_or(Stays::Away { parent })?;
    let copy = status::read(&TaskDir::open(copy.pid)?)?;
    wait(process, copy::own_number(&copy))
}

/// Has a process wait for a child.
fn wait(process: &mut Process, child: i32) -> Result<(), Stays> {
    let dir = process.dir()?;
    let status = status::read(&dir)?;
    let ground = core::ground(process, &smaps::read(&dir)?)?;
    // Of a first thread they are the same.
    let number = copy::own_number(&status);
    let identity = core::identity_by(&status, (number, number));
    let parent = process.pid.as_raw_pid();
    let away = Stays::Away { parent };
    let leader = process.threads.first_mut().ok_or(away)?;
    let Some(stopped) = leader.take() else {
        return Err(Stays::Away { parent });
    };
    let (stopped, waited) = play(stopped, identity, &ground, child);
    if let Some(stopped) = stopped {
        leader.put(stopped);
    }
    Ok(waited?)
}

fn play(
    stopped: Stopped,
    identity: Identity,
    ground: &Ground,
    child: i32,
) -> (Option<Stopped>, Result<(), gelid_tape::Error>) {
    let (host, mut carrier) = match Host::seized(stopped, identity, ground, ROOM, ROOM) {
        Ok(made) => made,
        Err((error, task)) => return (task, Err(error)),
    };
    let mut tape = Tape::new();
    let nobody = Arg::Value(0);
    // What it says does not matter: there is no such child any more, or it was not one.
    let child = Arg::Value(i64::from(child).cast_unsigned());
    tape.call(nr::wait4, [child, nobody, (WALL | NOHANG).into(), nobody]);
    let played = carrier.play(&tape).map(drop);
    match host.leave(carrier) {
        Ok(task) => (Some(task), played),
        Err((error, task)) => (task, Err(error)),
    }
}
