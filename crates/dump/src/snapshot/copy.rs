//! The copy of one address space, made by a tape of the task.
//!
//! The task makes a child in its own address space, and waits for it on the same tape. The child makes the copy,
//! and is ended. So the copy is nobody's child of the tree, no signal tells of it, and the task has no child more
//! than before. Where somebody in the tree would adopt it, it is the task's own child instead, whose end no signal
//! tells either, and [is collected](super::collect). All are born traced and stopped, and would end by themselves
//! without a tracer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gelid_sys::clone::flags;
use gelid_sys::proc::stat::{self, State};
use gelid_sys::proc::status::{self, Status};
use gelid_sys::proc::{self, TaskDir, tasks};
use gelid_sys::ptrace::{Options, Running, Stopped};
use gelid_sys::syscall::nr;
use gelid_sys::wait::wait_task;
use gelid_sys::{Errno, Pid};
use gelid_tape::{Arg, Carrier, Ground, Host, Identity, Outcome, Tape};
use rustix::process::{Signal, kill_process};

use crate::layout::Layout;

/// `close_range(2)`
const CLOSE_RANGE_UNSHARE: u64 = 2;
/// Waits for children of any kind.
pub(super) const WALL: u64 = 0x4000_0000;
/// Bytes for one tape of some calls.
pub(super) const ROOM: usize = 512;
const PAUSE: Duration = Duration::from_micros(50);
/// A birth takes microseconds, and a few milliseconds for each gigabyte.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A tape could not be played.
    #[error(transparent)]
    Tape(#[from] gelid_tape::Error),
    /// Something in `/proc`.
    #[error(transparent)]
    Proc(#[from] proc::Error),
    /// A call by the dumper, or by the task.
    #[error("{operation}: {errno}")]
    Call {
        operation: &'static str,
        errno: Errno,
    },
    /// Something of ours lies in memory of the program while tapes are played.
    #[error("its memory has no room for a tape")]
    Cramped,
}

/// Whose child a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// Whoever adopts orphans outside of the tree.
    Outside,
    /// The task.
    Task,
}

/// A process that has the pages and never runs; ended when it is dropped.
#[derive(Debug)]
pub(super) struct Copy {
    pid: Pid,
    parent: Parent,
}

impl Copy {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn parent(&self) -> Parent {
        self.parent
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        end(self.pid);
    }
}

/// Ends a tracee and takes its end.
fn end(pid: Pid) {
    // ESRCH: it has ended already, which is still to be taken.
    let _ = kill_process(pid, Signal::KILL);
    while wait_task(pid).is_ok_and(|status| !status.is_dead()) {}
}

/// Copies the address space of a task, which is as it was afterwards; `None` for it if it is gone.
pub(super) fn make(
    task: Stopped,
    identity: Identity,
    ground: &Ground,
    layout: &Layout,
    parent: Parent,
) -> (Option<Stopped>, Result<Copy, Error>) {
    let room = 2 * Host::region_size(ROOM);
    let (mut host, mut carrier) = match Host::seized(task, identity, ground, room, ROOM) {
        Ok(made) => made,
        Err((error, task)) => return (task, Err(error.into())),
    };
    let copy = match host.lent().iter().all(|range| layout.is_in_vdso(range)) {
        true => by_a_child(&mut host, &mut carrier, parent),
        false => Err(Error::Cramped),
    };
    match host.leave(carrier) {
        Ok(task) => (Some(task), copy),
        Err((error, task)) => (task, Err(error.into())),
    }
}

/// The task makes a child, and waits for its end.
fn by_a_child(host: &mut Host, carrier: &mut Carrier, parent: Parent) -> Result<Copy, Error> {
    let mut tape = Tape::new();
    let child = tape.birth(
        nr::clone,
        clone_args(flags::VM | flags::FILES | flags::PTRACE),
    );
    let nobody = Arg::Value(0);
    tape.must(nr::wait4, [child.into(), nobody, WALL.into(), nobody]);
    let before = children(carrier.tid())?;
    carrier.start(&tape)?;
    let child = match newborn(carrier.tid(), &before) {
        Ok(child) => child,
        Err(error) => {
            let outcome = without_children(carrier, &before)?;
            let told = outcome.failure().map(|(_, errno)| errno);
            return Err(told.map_or(error, call("make a child")));
        }
    };
    let made = by(host, child, carrier.identity().signal, parent);
    let copy = made.and_then(|()| match parent {
        Parent::Outside => newborn(child, &[]),
        Parent::Task => newborn(carrier.tid(), &[&before[..], &[child]].concat()),
    });
    // The tape ends with the child.
    end(child);
    carrier.finish()?;
    Ok(Copy { pid: copy?, parent })
}

/// Waits for the end of a tape whose child has not come, and ends one that comes all the same: the tape would wait
/// for it.
fn without_children(carrier: &mut Carrier, before: &[Pid]) -> Result<Outcome, Error> {
    let (tid, over) = (carrier.tid(), AtomicBool::new(false));
    let watch = || {
        while !over.load(Ordering::Relaxed) {
            let late = children(tid).unwrap_or_default().into_iter();
            late.filter(|pid| !before.contains(pid)).for_each(end);
            std::thread::sleep(PAUSE);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(watch);
        let outcome = carrier.finish();
        over.store(true, Ordering::Relaxed);
        Ok(outcome?)
    })
}

/// The child makes the copy.
fn by(host: &mut Host, child: Pid, signal: i32, parent: Parent) -> Result<(), Error> {
    let stopped = Running::attached(child).stopped();
    let options = stopped.set_options(Options::TRACESYSGOOD | Options::EXITKILL);
    options.map_err(call("PTRACE_SETOPTIONS"))?;
    let number = own_number(&status::read(&TaskDir::open(child)?)?);
    let identity = Identity {
        tgid: number,
        tid: number,
        signal,
    };
    let mut carrier = host
        .board(stopped, identity, ROOM)
        .map_err(|(error, _)| error)?;
    let mut tape = Tape::new();
    // Files that it kept open would not end when the program closes them.
    let all = [0, u64::from(u32::MAX), CLOSE_RANGE_UNSHARE];
    tape.must(nr::close_range, all.map(Arg::Value));
    tape.birth(
        nr::clone,
        clone_args(match parent {
            Parent::Outside => flags::PTRACE,
            Parent::Task => flags::PTRACE | flags::PARENT,
        }),
    );
    let outcome = carrier.play(&tape)?;
    let failure = outcome.failure();
    failure.map_or(Ok(()), |(_, errno)| Err(call("copy the memory")(errno)))
}

/// How a process is called in its own pid namespace.
pub(super) fn own_number(status: &Status) -> i32 {
    status.ns_pid.last().copied().unwrap_or(status.tgid)
}

fn clone_args(flags: u64) -> [Arg; 5] {
    // Without a signal for the parent, whoever that is.
    [flags, 0, 0, 0, 0].map(Arg::Value)
}

/// The child that a task has not had `before`, which has come to its first stop.
fn newborn(parent: Pid, before: &[Pid]) -> Result<Pid, Error> {
    let start = Instant::now();
    loop {
        if let Some(child) = children(parent)?
            .into_iter()
            .find(|pid| !before.contains(pid))
        {
            let stop = wait_task(child).map_err(call("wait for the child"))?;
            return match stop.is_dead() {
                true => Err(call("wait for the child")(Errno::SRCH)),
                false => Ok(child),
            };
        }
        // A stop without a child says that the tape has failed.
        let state = stat::read(&TaskDir::open(parent)?)?.state;
        if state == State::TracingStop || start.elapsed() > PATIENCE {
            return Err(call("make a child")(Errno::TIMEDOUT));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The children of the first thread of a process.
fn children(leader: Pid) -> Result<Vec<Pid>, Error> {
    Ok(tasks::children_of(&TaskDir::open(leader)?, leader)?)
}

fn call(operation: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Call { operation, errno }
}
