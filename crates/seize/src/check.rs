//! The proof, when all is said to have stopped, that it has.

use std::time::Duration;

use gelid_sys::Errno;
use gelid_sys::ptrace::{self, Running, Stopped};
use gelid_sys::wait::{self, Whom};

use crate::roundup::{Group, Kind, Place, Prey, Roundup, Slot};
use crate::{Error, scan};

/// Rounds of a millisecond that a dead main thread with live others is given to turn out as the end of
/// its whole process. That others are held says that it is not: whoever is killed leaves its stop.
const DEAD_LEADER_ROUNDS: u32 = 4;

impl Roundup<'_> {
    /// Makes sure, when all is said to have stopped, that it is so, and sets the options for the time of
    /// the hold: the filters of seccomp are suspended only now, when the tasks cannot make use of it.
    pub(crate) fn validate(&mut self) -> Result<(), Error> {
        for index in 0..self.groups.len() {
            self.check_leader(index)?;
            for thread in 0..self.groups[index].threads.len() {
                self.check_thread((index, thread))?;
            }
            self.agree_on_stop(index)?;
        }
        Ok(())
    }

    fn check_leader(&mut self, index: usize) -> Result<(), Error> {
        let group = &mut self.groups[index];
        if std::mem::take(&mut group.exec_suspected) {
            // If the leader's id was taken over, there may be a stop that nobody has waited for.
            let _ = wait::wait(Whom::Task(group.pid), false);
        }
        if matches!(group.kind, Kind::Alive | Kind::Gone) {
            return Ok(());
        }
        let pid = group.pid;
        match (scan::stat(pid)?, group.kind) {
            (Some(stat), Kind::Zombie) if stat.state.is_dead() => Ok(()),
            // Reaped, and the id given away.
            (None, _) | (_, Kind::Zombie) => self.end_of(index),
            (Some(stat), _) if stat.num_threads <= 1 => {
                self.leader_is_dead(index, stat.num_threads)
            }
            (Some(stat), Kind::DeadLeader(_)) if !stat.state.is_dead() => {
                // Another thread has become the main thread by execve.
                self.groups[index].kind = Kind::Alive;
                self.seize_thread(index, pid)
            }
            (_, Kind::DeadLeader(rounds))
                if rounds < DEAD_LEADER_ROUNDS || !self.is_held(index) =>
            {
                // Perhaps the end of the process has only begun.
                std::thread::sleep(Duration::from_millis(1));
                self.groups[index].kind = Kind::DeadLeader(rounds + 1);
                self.restless = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_thread(&mut self, place: Place) -> Result<(), Error> {
        let prey = &mut self.groups[place.0].threads[place.1];
        let Slot::Stopped(task, _) = &prey.slot else {
            return Ok(());
        };
        let tid = prey.tid;
        match hold(task, &mut self.suspend_seccomp) {
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => {
                // Killed, or its id taken over by a thread that has called execve.
                prey.slot = Slot::Seized(Running::attached(tid));
                self.awaited.push(place);
                self.restless = true;
                self.ask(place)
            }
            Err(errno) => Err(Error::Ptrace {
                operation: "PTRACE_SETOPTIONS",
                tid,
                errno,
            }),
        }
    }

    /// Lets threads that stopped before their process was stopped by job control, or before it was
    /// continued, see that: in one process all must tell the same.
    fn agree_on_stop(&mut self, index: usize) -> Result<(), Error> {
        let signals = |group: &Group| -> Vec<i32> {
            let signal = |prey: &Prey| match prey.slot {
                Slot::Stopped(_, signal) => Some(signal),
                _ => None,
            };
            group.threads.iter().filter_map(signal).collect()
        };
        if signals(&self.groups[index])
            .windows(2)
            .all(|pair| pair[0] == pair[1])
        {
            return Ok(());
        }
        for thread in 0..self.groups[index].threads.len() {
            self.stop_again((index, thread))?;
        }
        self.restless = true;
        Ok(())
    }
}

/// Sets the options of a held task; fails with `ESRCH` if it is not in a stop.
fn hold(task: &Stopped, suspend_seccomp: &mut bool) -> Result<(), Errno> {
    if *suspend_seccomp {
        match task.set_options(ptrace::Options::TRACESYSGOOD | ptrace::Options::SUSPEND_SECCOMP) {
            // Without CAP_SYS_ADMIN, or under seccomp oneself, or on a kernel that cannot.
            Err(Errno::PERM | Errno::INVAL) => *suspend_seccomp = false,
            result => return result,
        }
    }
    task.set_options(ptrace::Options::TRACESYSGOOD)
}
