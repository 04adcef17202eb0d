//! The hunt itself: list, seize, interrupt, wait, look again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use gelid_sys::ptrace::{self, Running, Stopped};
use gelid_sys::{Errno, Pid};

use crate::cgroup::{Freezer, Frozen, Thawed};
use crate::listing::Depth;
use crate::refuse::{Refused, why};
use crate::release::{PATIENCE, release};
use crate::scan::{self, Scanner};
use crate::tree::{Stats, Tree};
use crate::{Error, Options};

/// While a thread becomes the leader by `execve` the leader cannot be traced, for a moment.
const ATTEMPTS: u32 = 4;

/// Where a thread stands.
pub(crate) enum Slot {
    /// Seized; it runs and has not been asked to stop.
    Seized(Running),
    /// Asked to stop.
    Asked(Running),
    /// In an event stop; the signal of the group-stop, or 0.
    Stopped(Stopped, i32),
    /// Ended, or in the middle of a change.
    Gone,
}

/// A thread of the tree, as far as known.
pub(crate) struct Prey {
    pub(crate) tid: Pid,
    pub(crate) slot: Slot,
}

/// A process of the tree, as far as known.
pub(crate) struct Group {
    pub(crate) pid: Pid,
    pub(crate) ppid: i32,
    /// Orders siblings by birth: round in which it was found, and place in the list.
    pub(crate) rank: (u32, usize),
    pub(crate) threads: Vec<Prey>,
    pub(crate) kind: Kind,
    /// One of its threads has vanished without a word, as one does that calls `execve`: it goes on under the
    /// id of the leader.
    pub(crate) exec_suspected: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Alive,
    /// The main thread has ended, others have not; how often this was seen.
    DeadLeader(u32),
    Zombie,
    Gone,
}

/// Index of a process and of a thread in it.
pub(crate) type Place = (usize, usize);

pub(crate) enum Cgroup {
    None,
    Frozen(Frozen),
    Thawed(Thawed),
}

impl Cgroup {
    /// Whether a task is, or may be, pinned in a stop of job control. Its state tells nothing: all that is
    /// frozen is shown as uninterruptible.
    fn pins(&self, tid: Pid) -> bool {
        let Self::Frozen(frozen) = self else {
            return false;
        };
        let place = || scan::word(tid.as_raw_pid(), "wchan");
        frozen.pins_stopped_tasks()
            && matches!(
                place().as_str(),
                "do_signal_stop" | "get_signal" | "0" | "?"
            )
    }
}

/// A tree while it is being seized. Dropping it lets go of everything.
pub(crate) struct Roundup<'a> {
    pub(crate) options: &'a Options,
    pub(crate) deadline: Instant,
    pub(crate) scanner: Scanner,
    pub(crate) groups: Vec<Group>,
    /// Processes that are not gone.
    pub(crate) by_pid: HashMap<Pid, usize>,
    /// Threads that are not gone.
    pub(crate) by_tid: HashMap<Pid, Place>,
    /// Threads seized whose stop has not been seen.
    pub(crate) awaited: Vec<Place>,
    /// Threads in `vfork`, and the child that each waits for, which has been let run.
    pub(crate) lent: Vec<(Place, usize)>,
    /// Something has appeared, ended or run on since the last listing began, which so proves nothing.
    pub(crate) restless: bool,
    /// When the first task was asked to stop.
    pub(crate) since: Option<Instant>,
    pub(crate) stats: Stats,
    pub(crate) suspend_seccomp: bool,
    pub(crate) lists_children: bool,
    pub(crate) cgroup: Cgroup,
}

/// Freezes the tree of `options`, whose root has been looked at.
pub(crate) fn run(options: &Options) -> Result<Tree, Error> {
    let mut roundup = Roundup::new(options);
    if let Some(path) = &options.freeze_cgroup {
        let frozen = Freezer::open(path)?.freeze(roundup.deadline, options.timeout)?;
        roundup.cgroup = Cgroup::Frozen(frozen);
    }
    roundup.add(options.root, 0, 0)?;
    roundup.encircle()?;
    roundup.thaw_cgroup()?;
    roundup.close_in()?;
    roundup.into_tree()
}

impl<'a> Roundup<'a> {
    fn new(options: &'a Options) -> Self {
        Self {
            options,
            deadline: Instant::now() + options.timeout,
            scanner: Scanner::new(),
            groups: Vec::new(),
            by_pid: HashMap::new(),
            by_tid: HashMap::new(),
            awaited: Vec::new(),
            lent: Vec::new(),
            restless: false,
            since: None,
            stats: Stats::default(),
            suspend_seccomp: true,
            lists_children: Scanner::lists_children(),
            cgroup: Cgroup::None,
        }
    }

    /// Seizes all that is to be seen of the running tree, then asks all of it to stop.
    fn encircle(&mut self) -> Result<(), Error> {
        self.list(Depth::Leaders)?;
        self.since = Some(Instant::now());
        for place in self.awaited.clone() {
            self.ask(place)?;
        }
        Ok(())
    }

    /// Lets the cgroup run into the stops that have been asked for.
    fn thaw_cgroup(&mut self) -> Result<(), Error> {
        if let Cgroup::Frozen(frozen) = std::mem::replace(&mut self.cgroup, Cgroup::None) {
            self.cgroup = Cgroup::Thawed(frozen.thaw()?);
        }
        Ok(())
    }

    /// Waits for the stops and lists the tree, until it stands still and a whole listing has found
    /// nothing new.
    fn close_in(&mut self) -> Result<(), Error> {
        loop {
            self.settle()?;
            self.stats.rounds += 1;
            self.restless = false;
            self.list(Depth::Threads)?;
            if !self.restless {
                self.validate()?;
            }
            if !self.restless {
                return Ok(());
            }
            if Instant::now() > self.deadline {
                let (pid, rounds, timeout) =
                    (self.options.root, self.stats.rounds, self.options.timeout);
                return Err(Error::Restless {
                    pid,
                    rounds,
                    timeout,
                });
            }
        }
    }

    /// Takes up a process with its main thread, unless it is known. `place` orders those found in one round.
    pub(crate) fn add(&mut self, pid: Pid, ppid: i32, place: usize) -> Result<(), Error> {
        if self.by_pid.contains_key(&pid) {
            return Ok(());
        }
        let index = self.groups.len();
        let threads = Vec::with_capacity(1);
        self.groups.push(Group {
            pid,
            ppid,
            rank: (self.stats.rounds, place),
            threads,
            kind: Kind::Alive,
            exec_suspected: false,
        });
        self.by_pid.insert(pid, index);
        self.restless = true;
        self.seize_thread(index, pid)
    }

    /// Seizes a thread of a known process and, unless the tree is only being listed, asks it to stop.
    pub(crate) fn seize_thread(&mut self, index: usize, tid: Pid) -> Result<(), Error> {
        self.restless = true;
        let is_leader = tid == self.groups[index].pid;
        if self.cgroup.pins(tid) {
            return Ok(()); // it is found again when the cgroup is thawed
        }
        let running = match attach(tid)? {
            Ok(running) => running,
            Err(Refused::Zombie(threads)) if is_leader => {
                return self.leader_is_dead(index, threads);
            }
            Err(_) if is_leader => return self.end_of(index),
            Err(_) => return Ok(()),
        };
        self.stats.seized += 1;
        let group = &mut self.groups[index];
        if is_leader {
            group.kind = Kind::Alive;
        }
        let place = (index, group.threads.len());
        group.threads.push(Prey {
            tid,
            slot: Slot::Seized(running),
        });
        self.by_tid.insert(tid, place);
        self.awaited.push(place);
        if self.since.is_some() {
            self.ask(place)
        } else {
            Ok(())
        }
    }

    /// Asks a seized thread to stop.
    pub(crate) fn ask(&mut self, place: Place) -> Result<(), Error> {
        let prey = &mut self.groups[place.0].threads[place.1];
        let running = match std::mem::replace(&mut prey.slot, Slot::Gone) {
            Slot::Seized(running) => running,
            other => {
                prey.slot = other;
                return Ok(());
            }
        };
        let asked = running.interrupt();
        prey.slot = Slot::Asked(running);
        match asked {
            // Gone: the wait tells.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::Ptrace {
                operation: "PTRACE_INTERRUPT",
                tid: prey.tid,
                errno,
            }),
        }
    }

    /// Forgets a thread that has ended.
    pub(crate) fn drop_thread(&mut self, place: Place) {
        let prey = &mut self.groups[place.0].threads[place.1];
        prey.slot = Slot::Gone;
        self.by_tid.remove(&prey.tid);
        self.restless = true;
    }

    /// Forgets a process that has ended. If its zombie is there, the next listing finds it anew.
    pub(crate) fn end_of(&mut self, index: usize) -> Result<(), Error> {
        let group = &mut self.groups[index];
        group.kind = Kind::Gone;
        self.by_pid.remove(&group.pid);
        self.restless = true;
        if index == 0 {
            Err(Error::Gone { pid: group.pid })
        } else {
            Ok(())
        }
    }

    /// The main thread cannot be seized any more, because it has ended.
    pub(crate) fn leader_is_dead(&mut self, index: usize, threads: i64) -> Result<(), Error> {
        let group = &mut self.groups[index];
        match group.kind {
            Kind::DeadLeader(_) if threads > 1 => {}
            _ if threads > 1 => group.kind = Kind::DeadLeader(0),
            _ if index == 0 => {
                return Err(Error::RootIsZombie {
                    pid: group.pid,
                    comm: scan::comm(group.pid),
                });
            }
            _ => group.kind = Kind::Zombie,
        }
        Ok(())
    }

    /// All slots of all threads, taken out.
    pub(crate) fn take_slots(&mut self) -> (Vec<Stopped>, Vec<Running>) {
        let (mut stopped, mut running) = (Vec::new(), Vec::new());
        for prey in self.groups.drain(..).flat_map(|group| group.threads) {
            match prey.slot {
                Slot::Stopped(task, _) => stopped.push(task),
                Slot::Seized(task) | Slot::Asked(task) => running.push(task),
                Slot::Gone => {}
            }
        }
        (stopped, running)
    }
}

/// Seizes a task; the inner error says why there is nothing to seize.
fn attach(tid: Pid) -> Result<Result<Running, Refused>, Error> {
    let mut attempts = 0;
    loop {
        let errno = match ptrace::seize(tid, ptrace::Options::TRACESYSGOOD) {
            Ok(running) => return Ok(Ok(running)),
            Err(errno) => errno,
        };
        match why(tid, errno)? {
            Refused::Ours => return Ok(Ok(Running::attached(tid))),
            Refused::Denied if attempts >= ATTEMPTS => {
                return Err(Error::Seize {
                    tid,
                    comm: scan::comm(tid),
                    errno,
                });
            }
            Refused::Denied => attempts += 1,
            refused => return Ok(Err(refused)),
        }
    }
}

impl Drop for Roundup<'_> {
    fn drop(&mut self) {
        if self.groups.is_empty() {
            return;
        }
        // Tasks in a frozen cgroup cannot stop, and so not be detached.
        let is_thawed = self.thaw_cgroup();
        let restore = match std::mem::replace(&mut self.cgroup, Cgroup::None) {
            Cgroup::Thawed(thawed) => {
                self.stop_what_stops(Duration::min(PATIENCE, self.options.timeout));
                thawed.restore()
            }
            _ => Ok(()),
        };
        let (stopped, running) = self.take_slots();
        let released = release(stopped, running);
        if let Err(error) = is_thawed {
            tracing::warn!(%error, "thawing after a failure");
        }
        if let Err(error) = restore {
            tracing::warn!(%error, "thawing after a failure");
        }
        if let Err(error) = released {
            tracing::warn!(%error, "thawing after a failure");
        }
    }
}
