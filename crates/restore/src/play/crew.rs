//! The tasks that have been made so far. Until they are let go, dropping the crew ends them all.

mod reaping;
mod showing;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use gelid_sys::ptrace::{Running, Stopped};
use gelid_sys::syscall::nr;
use gelid_sys::wait::{self, Status, Whom};
use gelid_sys::{Errno, Pid, prctl, proc, syscall};
use gelid_tape::{Carrier, Host, Identity, Outcome};
use rustix::process::{Signal, kill_process};

use self::reaping::{reap, reap_all, reap_in_turns, tracer};
pub(crate) use self::showing::Showing;
use super::births::WALL;
use super::births::taken::namespace_of;
use super::script::{Object, Script};
use crate::Error;
use crate::plan::births::Who;

/// How long ended tasks may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that plays tapes.
#[derive(Debug)]
pub(crate) struct Body {
    /// As this process sees it.
    pub(crate) pid: Pid,
    /// How it calls itself.
    pub(crate) number: i32,
    pub(crate) carrier: Carrier,
    /// Index of the place of its tapes.
    pub(crate) host: usize,
}

/// All processes made so far.
#[derive(Debug, Default)]
pub(crate) struct Crew {
    pub(crate) bodies: HashMap<Who, Body>,
    pub(crate) hosts: Vec<Host>,
    /// Who is in its process group already.
    pub(crate) joined: HashSet<Who>,
    /// Whoever has to be ended on failure.
    born: Vec<Pid>,
    /// Threads that are no leaders, and end with them.
    threads: Vec<Pid>,
    /// Pids that are given on a tape whose end has not been seen.
    expected: Vec<Pid>,
    /// Where numbers in the tree may be others than what this process sees.
    numbers: Option<Numbers>,
    /// Whoever is born ends with the root.
    root_is_init: bool,
    /// The root is in another pid namespace than this process.
    is_inside: bool,
}

/// Who gives tasks the numbers that images have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// This process sees them.
    Outer,
    /// This process sees them, but not those that tasks of pid namespaces below call each other.
    Above,
    /// The pid namespace of the tree.
    OfTree,
    /// The pid namespace that the tree is in with others.
    Given,
}

/// Pids, as this process sees them, by their numbers in the pid namespace of the tree.
#[derive(Debug)]
struct Numbers {
    /// How far below that of this process the namespace is.
    depth: usize,
    pids: HashMap<i32, Pid>,
    /// Whose first stop has been seen, and not yet been asked for.
    arrived: HashSet<i32>,
}

impl Numbers {
    /// A task or thread, or else a group or session whose leader has ended.
    fn pid_of(&self, number: i32) -> Option<Pid> {
        let of_leader = |pid: &Pid| {
            let status = proc::status::read(&proc::TaskDir::open(*pid).ok()?).ok()?;
            let all = [status.ns_pgid, status.ns_sid];
            let mut all = all.iter();
            let ids = all.find(|ids| ids.get(self.depth) == Some(&number))?;
            Pid::from_raw(*ids.first()?)
        };
        let known = self.pids.get(&number).copied();
        known.or_else(|| self.pids.values().find_map(of_leader))
    }

    /// Takes note of a task that has just been seen; gives its number.
    fn meet(&mut self, pid: Pid) -> Result<i32, Error> {
        let status = proc::status::read(&proc::TaskDir::open(pid)?)?;
        let number = status.ns_pid.get(self.depth).copied();
        let number = number.ok_or(Error::Task {
            operation: "finding the number",
            pid: pid.as_raw_pid(),
            errno: Errno::SRCH,
        })?;
        self.pids.insert(number, pid);
        Ok(number)
    }
}

impl Crew {
    /// Remembers the root, so that it does not outlive a failure.
    pub(crate) fn note_root(&mut self, pid: Pid, numbering: Numbering) -> Result<(), Error> {
        self.born.push(pid);
        self.root_is_init = numbering == Numbering::OfTree;
        self.is_inside = matches!(numbering, Numbering::OfTree | Numbering::Given);
        if numbering != Numbering::Outer {
            let status = proc::status::read(&proc::TaskDir::open(pid)?)?;
            let mut numbers = Numbers {
                depth: status.ns_pid.len().saturating_sub(1),
                pids: HashMap::new(),
                arrived: HashSet::new(),
            };
            numbers.meet(pid)?;
            self.numbers = Some(numbers);
        }
        Ok(())
    }

    /// Remembers numbers that are about to be given, until their first stops have been seen.
    pub(crate) fn expect(&mut self, numbers: &[i32]) {
        // Whoever is in a namespace of its own ends with the first process there; in one of others they are looked for.
        if !self.is_inside {
            let pids = numbers.iter().filter_map(|number| Pid::from_raw(*number));
            self.expected.extend(pids);
        }
    }

    /// The root of the tree.
    pub(crate) fn root(&mut self) -> Result<Pid, Error> {
        Ok(self.body(Who::Task(0))?.pid)
    }

    /// The task or thread that has a number in the tree, as this process sees it.
    pub(crate) fn pid_of(&self, number: i32) -> Option<Pid> {
        match &self.numbers {
            None => Pid::from_raw(number),
            Some(numbers) => numbers.pid_of(number),
        }
    }

    /// Whether the numbers that images have are those that this process sees, as far as it can tell.
    pub(crate) fn sees_numbers(&self) -> bool {
        self.numbers.is_none()
    }

    /// Somebody in the pid namespace that the numbers are of, if that is not the one of this process.
    pub(crate) fn inside(&self) -> Option<Pid> {
        let root = self.bodies.get(&Who::Task(0))?;
        self.is_inside.then_some(root.pid)
    }

    /// The inode of that pid namespace.
    pub(crate) fn pid_namespace(&self) -> Option<u64> {
        namespace_of(self.inside()?)
    }

    /// The first stop of a process that was born as the caller's tracee, under a number in the tree.
    pub(crate) fn newborn(&mut self, number: i32) -> Result<Stopped, Error> {
        let stopped = self.first_stop(number)?;
        self.born.push(stopped.pid());
        Ok(stopped)
    }

    /// The same for one whose number only those so many pid namespaces below the root's know.
    pub(crate) fn newborn_inside(&mut self, number: i32, level: usize) -> Result<Stopped, Error> {
        let numbers = self.numbers.as_ref();
        let levels = numbers.map_or(0, |numbers| numbers.depth) + 1 + level;
        let is_it = |pid: Pid| -> Result<bool, Error> {
            let ids = proc::status::read(&proc::TaskDir::open(pid)?)?.ns_pid;
            // It may have begun a namespace of its own.
            Ok(ids.get(levels - 1) == Some(&number))
        };
        let mut found = None;
        if let Some(numbers) = numbers {
            for arrived in &numbers.arrived {
                let pid = numbers.pids.get(arrived).copied();
                if pid.map(is_it).transpose()? == Some(true) {
                    found = Some(*arrived);
                }
            }
        }
        while found.is_none() {
            let (pid, met) = self.next_arrival(number)?;
            found = is_it(pid)?.then_some(met);
        }
        self.newborn(found.unwrap_or(number))
    }

    /// Waits for somebody's first stop; tells the number as images have it.
    fn next_arrival(&mut self, wanted: i32) -> Result<(Pid, i32), Error> {
        let failed = |errno| Error::Task {
            operation: "waiting for the first stop",
            pid: wanted,
            errno,
        };
        let seen = wait::wait(Whom::OfThread, true).map_err(failed)?;
        let (pid, status) = seen.ok_or(failed(Errno::CHILD))?;
        if status.is_dead() {
            return Err(Error::Ended { pid, status });
        }
        let numbers = self.numbers.as_mut().ok_or(failed(Errno::SRCH))?;
        let met = numbers.meet(pid)?;
        numbers.arrived.insert(met);
        Ok((pid, met))
    }

    /// The same of a thread of a process.
    pub(crate) fn newborn_thread(&mut self, number: i32) -> Result<Stopped, Error> {
        let stopped = self.first_stop(number)?;
        if self.is_inside {
            self.threads.push(stopped.pid());
        }
        Ok(stopped)
    }

    /// The same of a thread whose number only those so many pid namespaces below the root's know.
    pub(crate) fn newborn_thread_inside(
        &mut self,
        number: i32,
        level: usize,
    ) -> Result<Stopped, Error> {
        let Some(numbers) = &self.numbers else {
            self.expect_threads(std::iter::once(number));
            return self.first_stop(number);
        };
        let levels = numbers.depth + 1 + level;
        loop {
            let (pid, met) = self.next_arrival(number)?;
            let ids = proc::status::read(&proc::TaskDir::open(pid)?)?.ns_pid;
            if ids.get(levels - 1) == Some(&number) {
                return self.newborn_thread(met);
            }
        }
    }

    fn first_stop(&mut self, number: i32) -> Result<Stopped, Error> {
        let failed = |errno| Error::Task {
            operation: "waiting for the first stop",
            pid: number,
            errno,
        };
        let arrived = |numbers: &mut Numbers| {
            let pid = numbers.pids.get(&number).copied();
            numbers.arrived.remove(&number).then_some(pid).flatten()
        };
        let pid = loop {
            let Some(numbers) = &mut self.numbers else {
                let pid = Pid::from_raw(number).ok_or(failed(Errno::SRCH))?;
                return newborn(pid);
            };
            if let Some(pid) = arrived(numbers) {
                break Some(pid);
            }
            // They come in any order, and all that this thread waits for now are newborns.
            self.next_arrival(number)?;
        };
        Ok(Running::attached(pid.ok_or(failed(Errno::SRCH))?).stopped())
    }

    /// All that were expected have been noted.
    pub(crate) fn expect_no_more(&mut self) {
        self.expected.clear();
    }

    /// Remembers threads of the processes that are about to be born.
    pub(crate) fn expect_threads(&mut self, numbers: impl Iterator<Item = i32>) {
        if !self.is_inside {
            self.threads.extend(numbers.filter_map(Pid::from_raw));
        }
    }

    /// Forgets one that has ended.
    pub(crate) fn forget(&mut self, pid: Pid) {
        self.born.retain(|other| *other != pid);
    }

    /// Nothing is ended from now on.
    pub(crate) fn let_go(&mut self) {
        self.born.clear();
    }

    /// The body of a process; a plan names none that is not born.
    pub(crate) fn body(&mut self, who: Who) -> Result<&mut Body, Error> {
        self.bodies.get_mut(&who).ok_or(Error::Task {
            operation: "finding the body",
            pid: 0,
            errno: Errno::SRCH,
        })
    }

    /// Ends a child of a process that plays tapes, which waits for it; `number` is what the process calls it.
    pub(crate) fn end_child(&mut self, parent: Who, pid: Pid, number: i32) -> Result<(), Error> {
        // ESRCH: it has ended already, which is found out next.
        let _ = kill_process(pid, Signal::KILL);
        await_death(pid)?;
        self.forget(pid);
        let mut script = Script::default();
        let args = [number.into(), 0.into(), WALL.into(), 0.into()];
        script.must(Object::Task(number), nr::wait4, args);
        self.play(&[(parent, script)]).map(drop)
    }

    /// Plays one script for each of several processes, all at the same time.
    pub(crate) fn play(&mut self, work: &[(Who, Script)]) -> Result<Vec<Outcome>, Error> {
        let mut failed = None;
        let mut started = 0;
        for (who, script) in work {
            if let Err(error) = self.start(*who, script) {
                failed = Some(error);
                break;
            }
            started += 1;
        }
        let mut outcomes = Vec::with_capacity(started);
        for (who, script) in &work[..started] {
            let body = self.body(*who)?;
            match finish(&mut body.carrier, body.pid, script) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(outcomes), Err)
    }

    /// Plays several scripts for each of several processes: one after the other for each, many processes at the same
    /// time.
    pub(crate) fn play_reels(&mut self, reels: Vec<(Who, Vec<Script>)>) -> Result<(), Error> {
        let mut showing = Showing::default();
        for (who, scripts) in reels {
            showing.begin(who, scripts, self)?;
        }
        showing.end(self)
    }

    /// Has a process begin with a script.
    fn start(&mut self, who: Who, script: &Script) -> Result<(), Error> {
        let body = self.body(who)?;
        let pid = body.pid.as_raw_pid();
        let started = body.carrier.start(&script.tape);
        started.map_err(|source| Error::Tape { pid, source })
    }
}

/// Waits for the end of a tape, all of whose calls must have succeeded that had to.
pub(crate) fn finish(carrier: &mut Carrier, pid: Pid, script: &Script) -> Result<Outcome, Error> {
    let pid = pid.as_raw_pid();
    let outcome = carrier
        .finish()
        .map_err(|source| Error::Tape { pid, source })?;
    refuse(pid, script, &outcome)?;
    Ok(outcome)
}

/// The same if nobody wants to know what the calls have returned.
pub(crate) fn finish_unread(carrier: &mut Carrier, pid: Pid, script: &Script) -> Result<(), Error> {
    let pid = pid.as_raw_pid();
    let outcome = carrier
        .finish_unread()
        .map_err(|source| Error::Tape { pid, source })?;
    outcome.map_or(Ok(()), |outcome| refuse(pid, script, &outcome))
}

/// Fails if a call did that had to succeed.
fn refuse(pid: i32, script: &Script, outcome: &Outcome) -> Result<(), Error> {
    match script.failure(outcome) {
        Some((nr, object, errno)) => Err(Error::Call {
            pid,
            call: syscall::name(nr).map_or_else(|| format!("system call {nr}"), str::to_owned),
            object,
            errno,
        }),
        None => Ok(()),
    }
}

/// The first stop of a task that was born as the caller's tracee.
fn newborn(pid: Pid) -> Result<Stopped, Error> {
    let status = wait::wait_task(pid).map_err(|errno| Error::Task {
        operation: "waiting for the first stop",
        pid: pid.as_raw_pid(),
        errno,
    })?;
    if status.is_dead() {
        return Err(Error::Ended { pid, status });
    }
    Ok(Running::attached(pid).stopped())
}

/// How a task knows itself, if nothing speaks against the first choice of a signal.
pub(crate) fn identity(tgid: i32, tid: i32, signal: i32) -> Identity {
    Identity { tgid, tid, signal }
}

/// Waits until a tracee has ended.
pub(crate) fn await_death(pid: Pid) -> Result<Status, Error> {
    loop {
        match wait::wait_task(pid) {
            Ok(status) if status.is_dead() => return Ok(status),
            Ok(_) => {}
            Err(errno) => {
                return Err(Error::Task {
                    operation: "waiting for the end",
                    pid: pid.as_raw_pid(),
                    errno,
                });
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Of those whose birth was not seen any more, only the tracees of this thread are meant.
        let me = rustix::thread::gettid().as_raw_pid();
        let expected = std::mem::take(&mut self.expected);
        let born = expected.into_iter().filter(|pid| tracer(*pid) == Some(me));
        self.born.extend(born);
        if self.born.is_empty() {
            return;
        }
        if self.is_inside && !self.root_is_init {
            let unseen = reaping::unseen(&self.born, me);
            self.born.extend(unseen);
        }
        // Children of those that end now come to this process, so that their pids are free at once.
        let adopting = prctl::set_child_subreaper(true).is_ok();
        for pid in &self.born {
            let _ = kill_process(*pid, Signal::KILL);
        }
        if self.is_inside {
            // The first process of a namespace is the last to be gone, when all others have been waited for; who was
            // born unseen is among them. In a namespace of others threads may have been.
            let last = match self.root_is_init {
                true => &self.born[..1],
                false => &self.born,
            };
            reap_all(last.to_vec(), Instant::now() + PATIENCE);
        }
        // A leader is reported after its threads, which nobody but the tracer reaps; a child twice: to the
        // tracer, and to its parent, which is this process in the end.
        let tracees = self.threads.iter().chain(&self.born);
        let all: Vec<Pid> = tracees.chain(&self.born).copied().collect();
        let deadline = Instant::now() + PATIENCE;
        match self.numbers {
            // The first process of a namespace waits for all others there, so no order will do.
            Some(_) => {
                let tracees = self.threads.iter().chain(&self.born).copied().collect();
                reap_in_turns(tracees, deadline);
                reap_in_turns(self.born.clone(), deadline);
            }
            None => all.into_iter().for_each(|pid| reap(pid, deadline)),
        }
        if adopting {
            let _ = prctl::set_child_subreaper(false);
        }
    }
}
