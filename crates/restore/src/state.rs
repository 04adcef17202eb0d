//! State of tasks and threads beside memory and files: what their images say, checked, and the system calls
//! that bring it back.
//!
//! `read` turns records into plain values and refuses what makes no sense or cannot be had; `check` compares
//! them with the machine; `write` puts the calls on a tape of the task or thread itself. A tape of a thread
//! ends with its credentials, so whatever needs rights comes before, on the tape of the process.

mod attributes;
mod creds;
mod error;
mod fpu;
mod limits;
mod machine;
mod registers;
mod restart;
mod sched;
pub(crate) mod seccomp;
mod signals;
mod timers;

use std::collections::HashMap;

use gelid_image::messages::{CoreEntry, March, TaskCoreEntry, ThreadCoreEntry, ThreadInfoX86};
use gelid_sys::Pid;
use gelid_sys::arch::UserRegs;
use gelid_sys::ptrace::{Dispatch, Stopped};
use gelid_sys::signal::SigSet;
use gelid_tape::{Saved, Tape};

pub use error::Error;
pub(crate) use machine::Machine;

use attributes::{ProcessAttributes, ThreadAttributes};
use creds::Creds;
pub(crate) use creds::Inside;
use gelid_sys::lsm::Module;

use crate::LsmProfile;
use fpu::Fpu;
use limits::Limits;
use restart::Restart;
use sched::Sched;
use signals::{Actions, AltStack, Queue};
use timers::Timers;

/// What belongs to a process, from the image of its leader.
#[derive(Debug, Clone)]
pub(crate) struct ProcessState {
    pid: i32,
    /// How it calls itself.
    number: i32,
    actions: Actions,
    timers: Timers,
    limits: Limits,
    pending: Queue,
    attributes: ProcessAttributes,
}

/// What belongs to a thread.
#[derive(Debug, Clone)]
pub(crate) struct ThreadState {
    tid: i32,
    regs: UserRegs,
    fpu: Fpu,
    mask: SigSet,
    restart: Option<Restart>,
    /// How its system calls are diverted, if they are.
    dispatch: Option<Dispatch>,
    /// How it calls itself.
    number: i32,
    attributes: ThreadAttributes,
    alt_stack: AltStack,
    pending: Queue,
    sched: Sched,
    creds: Option<Creds>,
}

impl ProcessState {
    /// The process part of a leader's image.
    pub(crate) fn read(pid: i32, core: &CoreEntry) -> Result<Self, Error> {
        let tc = process_part(pid, core)?;
        Ok(Self {
            pid,
            number: pid,
            actions: Actions::read(pid, tc)?,
            timers: Timers::read(pid, tc.timers.as_ref())?,
            limits: Limits::read(pid, tc.rlimits.as_ref())?,
            pending: Queue::read(pid, tc.signals_s.as_ref())?,
            attributes: ProcessAttributes::read(pid, tc)?,
        })
    }

    /// Takes note of how the process calls itself, and its threads by their numbers in the images.
    pub(crate) fn called(mut self, number: i32, threads: &HashMap<i32, i32>) -> Self {
        self.number = number;
        self.timers.call_threads(threads);
        self
    }

    /// Signals that will be pending for the process.
    pub(crate) fn pending(&self) -> SigSet {
        self.pending.set()
    }

    /// Refuses what this machine and the rights of this process cannot bring back.
    pub(crate) fn check(&self, machine: &Machine) -> Result<(), Error> {
        self.limits.check(self.pid, machine)?;
        self.timers.check(self.pid, machine)
    }

    /// Puts the signal handlers on the leader's own tape; before anything is made pending for a thread, as
    /// that flushes what the births of children have left. `handles` tells that the table of handlers is this
    /// process's to set, if it is shared.
    pub(crate) fn write_actions(&self, tape: &mut Tape, handles: bool) {
        self.actions.write(tape, handles);
    }

    /// Lives in a user namespace, where `inside` tells who somebody is.
    pub(crate) fn enter_users(&mut self, inside: impl Fn(u32) -> Option<u32>) {
        self.attributes.enter_users(inside);
    }

    /// Puts the audit user on the leader's own tape, while it has the root of this process and no threads yet.
    pub(crate) fn log_in(&self, tape: &mut Tape, machine: &Machine) {
        self.attributes.log_in(tape, machine);
    }

    /// Puts everything else on the leader's own tape, when memory and descriptors are in place and all signals
    /// are blocked.
    pub(crate) fn write(&self, tape: &mut Tape, machine: &Machine) {
        self.limits.write_raised(tape, machine);
        let rearmed = self.timers.fires_anew(&self.pending);
        self.timers.write(tape, &rearmed, machine);
        if self.pending.parts().next().is_none() {
            self.pending.write_shared(tape, self.number, &rearmed);
        }
        self.attributes.write(tape);
        self.limits.write_lowered(tape, machine);
    }

    /// Signals that are too many for that tape, on tapes of the leader that are played before.
    pub(crate) fn many_pending(&self, machine: &Machine) -> Vec<Tape> {
        let rearmed = self.timers.fires_anew(&self.pending);
        let parts = self.pending.parts().map(|part| {
            let mut tape = Tape::new();
            self.limits.write_raised(&mut tape, machine);
            part.write_shared(&mut tape, self.number, &rearmed);
            tape
        });
        parts.collect()
    }

    /// What the credentials of any of the threads would undo, or would be hindered by; after all of them, by
    /// one process of each address space. The arguments are those of the image of the address space.
    pub(crate) fn write_last(
        &self,
        tape: &mut Tape,
        dumpable: Option<i32>,
        thp_disabled: Option<bool>,
    ) {
        self.attributes.write_last(tape, dumpable, thp_disabled);
    }

    /// What is set from outside, as far as a task is not born with it. Whoever shares its address space `may_differ`;
    /// what is of a session `is_asked` of one of its tasks.
    pub(crate) fn outside(
        &self,
        task: Pid,
        machine: &Machine,
        (may_differ, is_asked): (bool, bool),
    ) -> Result<(), Error> {
        self.limits.raise(task, machine)?;
        let asked = (may_differ, is_asked);
        self.attributes.outside(self.pid, task, machine, asked)
    }
}

impl ThreadState {
    /// The state of thread `tid` of process `pid` from its image.
    pub(crate) fn read(pid: i32, tid: i32, core: &CoreEntry) -> Result<Self, Error> {
        let machine = machine_part(tid, core)?;
        let thread = core.thread_core.as_ref();
        let thread = thread.ok_or(Error::Missing {
            tid,
            what: "the part of the thread",
        })?;
        let leader = tid == pid;
        let tc = leader.then(|| process_part(tid, core)).transpose()?;
        let gelid = thread.gelid.clone().unwrap_or_default();
        let regs = registers::read(tid, &machine.gpregs)?;
        Ok(Self {
            tid,
            number: tid,
            regs,
            fpu: Fpu::read(tid, &machine.fpregs)?,
            mask: mask(tid, tc, thread)?,
            dispatch: gelid.dispatch.as_ref().map(|it| Dispatch {
                mode: 1,
                selector: it.selector,
                offset: it.offset,
                len: it.len,
            }),
            restart: Restart::read(tid, &regs, gelid.restart.as_ref())?,
            attributes: ThreadAttributes::read(tid, tc, thread, machine)?,
            alt_stack: AltStack::read(tid, thread.sas.as_ref())?,
            pending: Queue::read(tid, thread.signals_p.as_ref())?,
            sched: Sched::read(tid, thread, &gelid)?,
            creds: thread
                .creds
                .as_ref()
                .map(|creds| Creds::read(tid, creds))
                .transpose()?,
        })
    }

    /// Takes note of how the thread calls itself.
    pub(crate) fn called(mut self, number: i32) -> Self {
        self.number = number;
        self
    }

    /// Decides about its label, which is one of `module` if it was recorded.
    pub(crate) fn label(&mut self, module: Option<Module>, wanted: Option<&LsmProfile>) {
        if let Some(creds) = &mut self.creds {
            creds.label(module, wanted);
        }
    }

    /// Puts on its tape what makes it the users that it is to be. See [`Creds::write_users`].
    pub(crate) fn write_users(
        &self,
        tape: &mut Tape,
        machine: &Machine,
        inside: Option<&Inside<'_>>,
    ) {
        if let Some(creds) = &self.creds {
            creds.write_users(tape, machine, inside);
        }
    }

    /// Its users, groups (real, effective, saved, filesystem), and supplementary groups.
    pub(crate) fn ids(&self) -> Option<([u32; 4], [u32; 4], &[u32])> {
        self.creds.as_ref().map(Creds::ids)
    }

    /// Sees that its users and groups are known outside; makes them those unless it `stays`.
    pub(crate) fn leave_users<E>(
        &mut self,
        uid: impl Fn(u32) -> std::result::Result<u32, E>,
        gid: impl Fn(u32) -> std::result::Result<u32, E>,
        stays: bool,
    ) -> std::result::Result<(), E> {
        let creds = self.creds.as_mut();
        creds.map_or(Ok(()), |creds| creds.leave_users(uid, gid, stays))
    }

    /// Its supplementary groups.
    pub(crate) fn groups(&self) -> &[u32] {
        self.creds.as_ref().map_or(&[], Creds::groups)
    }

    /// Has somebody with the rights for it give the thread its place among others, where its own rights are those of a
    /// user namespace.
    pub(crate) fn schedule(&self, tid: Pid, machine: &Machine) -> Result<(), Error> {
        match machine.is_inside {
            true => self.sched.set(self.tid, tid, machine),
            false => Ok(()),
        }
    }

    /// Signals that will be pending for the thread.
    pub(crate) fn pending(&self) -> SigSet {
        self.pending.set()
    }

    /// Refuses what this machine and the rights of this process cannot bring back.
    pub(crate) fn check(&self, machine: &Machine) -> Result<(), Error> {
        self.fpu.check(self.tid, machine)?;
        match &self.creds {
            Some(creds) => creds.check(self.tid, machine),
            None => Ok(()),
        }
    }

    /// Puts everything on the thread's own tape, when memory is in place and all signals are blocked. `pid`
    /// is its process, as it calls itself.
    pub(crate) fn write(&self, tape: &mut Tape, machine: &Machine, pid: i32) {
        self.attributes.write(tape, machine);
        self.alt_stack.write(tape);
        if !machine.is_inside {
            self.sched.write(tape, machine);
        }
        if self.pending.parts().next().is_none() {
            self.pending.write_private(tape, pid, self.number);
        }
        if let Some(creds) = &self.creds {
            creds.write(tape, machine);
        }
        self.attributes.write_last(tape);
    }

    /// Signals that are too many for that tape, on tapes that are played before.
    pub(crate) fn many_pending(&self, pid: i32) -> Vec<Tape> {
        let parts = self.pending.parts().map(|part| {
            let mut tape = Tape::new();
            part.write_private(&mut tape, pid, self.number);
            tape
        });
        parts.collect()
    }

    /// Whether an interrupted system call has to be [taken up](Self::take_up) before the registers are set.
    pub(crate) fn has_restart(&self) -> bool {
        self.restart.is_some()
    }

    /// Lets the thread enter its interrupted system call with the time that was left, and takes it out
    /// again: the kernel then knows how to go on with it. To be done after the last tape and before the
    /// registers are set, with all signals blocked. `syscall_at` is the address of a system call instruction,
    /// `scratch` that of 16 bytes the thread can read and write.
    ///
    /// # Errors
    ///
    /// What the thread refused; it is lost then.
    pub(crate) fn take_up(
        &mut self,
        task: Stopped,
        syscall_at: u64,
        scratch: u64,
    ) -> Result<Stopped, Error> {
        match &mut self.restart {
            Some(restart) => restart.take_up(self.tid, task, &mut self.regs, syscall_at, scratch),
            None => Ok(task),
        }
    }

    /// How its system calls are diverted from the end on, if they are.
    pub(crate) fn dispatch(&self) -> Option<Dispatch> {
        self.dispatch
    }

    /// Registers and mask for the end.
    pub(crate) fn saved(&self) -> Saved {
        Saved {
            regs: self.regs,
            mask: self.mask,
        }
    }

    /// Sets the floating point and vector registers.
    pub(crate) fn set_fpu(&self, task: &Stopped, machine: &Machine) -> Result<(), Error> {
        self.fpu.set(self.tid, task, machine)
    }
}

fn process_part(tid: i32, core: &CoreEntry) -> Result<&TaskCoreEntry, Error> {
    let what = "the part of the process";
    core.tc.as_ref().ok_or(Error::Missing { tid, what })
}

fn machine_part(tid: i32, core: &CoreEntry) -> Result<&ThreadInfoX86, Error> {
    if core.mtype != March::X86_64 as i32 {
        let found = March::try_from(core.mtype).unwrap_or(March::Unknown);
        return Err(Error::Architecture { tid, found });
    }
    let what = "the machine state";
    core.thread_info
        .as_ref()
        .ok_or(Error::Missing { tid, what })
}

/// The mask is in the process part for the leader, in the thread part for the others.
fn mask(tid: i32, tc: Option<&TaskCoreEntry>, thread: &ThreadCoreEntry) -> Result<SigSet, Error> {
    let what = "the signal mask";
    let mask = tc.map(|tc| tc.blk_sigset).or(thread.blk_sigset);
    mask.map(SigSet).ok_or(Error::Missing { tid, what })
}
