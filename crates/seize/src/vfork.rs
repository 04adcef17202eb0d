//! Parents in `vfork(2)`.
//!
//! A task that has called `clone` with `CLONE_VFORK` sleeps, heedless of everything but death and the
//! cgroup freezer, until its child has called `execve` or ended; a stop asked for comes only then. If the
//! child is held it never comes. So the child is let run until the parent has stopped, and stopped again.

use gelid_sys::Pid;
use gelid_sys::kcmp;

use crate::roundup::{Kind, Place, Roundup, Slot};
use crate::settle::resume;
use crate::{Error, scan};

const SYS_CLONE: &str = "56";
const SYS_VFORK: &str = "58";
const SYS_CLONE3: &str = "435";
const CLONE_VFORK: u64 = 0x4000;

impl Roundup<'_> {
    /// Lets the child run that a thread in uninterruptible sleep waits for, if it does.
    pub(crate) fn look_at_sleeper(&mut self, waiter: Place) -> Result<(), Error> {
        let (pid, tid) = (
            self.groups[waiter.0].pid,
            self.groups[waiter.0].threads[waiter.1].tid,
        );
        if !may_be_in_vfork(tid) {
            return Ok(());
        }
        let mut children = Vec::new();
        self.scanner.children(pid, tid, &mut children)?;
        // The one it waits for was born last, but orphans may have been added behind.
        let shares_memory = |child: &&Pid| kcmp::shared(kcmp::Kind::Vm, tid, **child) == Ok(true);
        let child = children
            .iter()
            .rev()
            .find(shares_memory)
            .or(children.last());
        match child.and_then(|child| self.by_pid.get(child)) {
            Some(index) if self.groups[*index].kind == Kind::Alive => self.lend(waiter, *index),
            _ => Ok(()),
        }
    }

    /// Lets the threads of a process run that are held, but not if it is stopped by job control.
    fn lend(&mut self, waiter: Place, child: usize) -> Result<(), Error> {
        let mut ran = false;
        for (thread, prey) in self.groups[child].threads.iter_mut().enumerate() {
            match std::mem::replace(&mut prey.slot, Slot::Gone) {
                Slot::Stopped(task, 0) => {
                    prey.slot = Slot::Seized(resume(task, 0, false)?);
                    self.awaited.push((child, thread));
                    ran = true;
                }
                other => prey.slot = other,
            }
        }
        if ran {
            self.stats.vforks += 1;
            self.restless = true;
        }
        if !self.lent.contains(&(waiter, child)) {
            self.lent.push((waiter, child));
        }
        Ok(())
    }

    /// Asks the children let run to stop again, once their parents have stopped.
    pub(crate) fn recall(&mut self) -> Result<(), Error> {
        for (waiter, child) in std::mem::take(&mut self.lent) {
            if matches!(self.groups[waiter.0].threads[waiter.1].slot, Slot::Asked(_)) {
                self.lent.push((waiter, child));
                continue;
            }
            for thread in 0..self.groups[child].threads.len() {
                self.ask((child, thread))?;
            }
        }
        Ok(())
    }
}

/// Whether a task is in a system call that may wait for a child. A kernel that does not tell leaves it to
/// the list of children.
fn may_be_in_vfork(tid: Pid) -> bool {
    let line = scan::word(tid.as_raw_pid(), "syscall");
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        (Some(SYS_VFORK | SYS_CLONE3 | "?"), _) => true,
        (Some(SYS_CLONE), Some(flags)) => {
            let flags = u64::from_str_radix(flags.trim_start_matches("0x"), 16);
            flags.is_ok_and(|flags| flags & CLONE_VFORK != 0)
        }
        _ => false,
    }
}
