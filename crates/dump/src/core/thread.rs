//! A thread: looked at, asked, recorded.

use std::sync::Arc;
use std::time::Instant;

use gelid_image::messages::{
    CoreEntry, CredsEntry, GelidDispatchEntry, GelidThreadEntry, March, ThreadCoreEntry,
    ThreadInfoX86, UserX86FpregsEntry,
};
use gelid_seize::Process;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::status::{self, Status};
use gelid_sys::ptrace::Stopped;
use gelid_sys::signal::{SigInfo, SigSet};
use gelid_sys::{Errno, Pid};
use gelid_tape::Tape;

use super::attributes::{AskedThread, OfThread, Pointers};
use super::before::{Before, Known};
use super::call::Answers;
use super::carry::Played;
use super::creds::{AskedBits, AskedCreds};
use super::sched::{Defaults, Sched};
use super::seccomp::{AskedRestraint, Restraint};
use super::signals::{Actions, AskedStack};
use super::{Error, creds, fpu, registers, signals, wrong_registers};
use crate::namespace::Users;

/// What looking at many threads takes.
#[derive(Debug)]
pub(super) struct Looks<'a> {
    pub(super) before: &'a Before,
    /// When the tree was frozen.
    pub(super) frozen: Instant,
    pub(super) vectors: fpu::Reader,
    /// Nothing is forbidden by seccomp for the time.
    pub(super) suspended: bool,
}

/// A thread that has been looked at, and what it is asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) tid: Pid,
    fpu: UserX86FpregsEntry,
    pointers: Pointers,
    sched: Sched,
    pub(super) private: Vec<SigInfo>,
    stack: AskedStack,
    attributes: AskedThread,
    bits: AskedBits,
    /// The call it sleeps in, if somebody has looked.
    known: Option<Known>,
    restraint: AskedRestraint,
    /// Of all but the leader.
    creds: Option<AskedCreds>,
    /// Threads that are asked the same share it.
    pub(super) tape: Arc<Tape>,
}

impl Asked {
    /// Looks at a thread of the process of `dir`. `leader` is the status of the leader, for another thread.
    pub(super) fn look(
        task: &Stopped,
        dir: &TaskDir,
        leader: Option<&Status>,
        looks: &mut Looks<'_>,
    ) -> Result<Self, Error> {
        let mut tape = Tape::new();
        Ok(Self {
            tid: task.pid(),
            fpu: looks.vectors.read(task)?,
            known: looks.before.of(dir, task, looks.frozen),
            pointers: Pointers::look(task)?,
            sched: Sched::look(task.pid())?,
            private: signals::pending(task, false)?,
            stack: AskedStack::ask(&mut tape),
            attributes: AskedThread::ask(&mut tape),
            bits: AskedBits::ask(&mut tape),
            restraint: AskedRestraint::look(task, looks.suspended, &mut tape)?,
            creds: leader.map(|leader| AskedCreds::ask(&mut tape, leader)),
            tape: Arc::new(tape),
        })
    }

    /// `status` is there for the leader; `shared` are the signals for the process that this thread will take.
    pub(super) fn record(
        self,
        process: &Process,
        status: Option<&Status>,
        played: &Played,
        shared: SigSet,
        actions: &Actions,
        (defaults, users, is_below): (&Defaults, &Users, bool),
    ) -> Result<(Box<CoreEntry>, OfThread), Error> {
        let tid = self.tid;
        let outcome = &played.outcome;
        let answers = Answers { tid, outcome };
        let pending = status.map_or(0, |status| status.sig_pending);
        let pending = SigSet(pending | signals::set(&self.private).0);
        let waiting = SigSet((pending.0 | shared.0) & !played.saved.mask.0);
        let left = |at| registers::nanoseconds(tid, at);
        let resolved = registers::resolve(
            &played.saved.regs,
            actions.restarts(waiting),
            self.known,
            left,
        );
        if !resolved.regs.is_native() {
            return Err(wrong_registers(tid, Errno::IO));
        }
        let mut thread = ThreadCoreEntry {
            blk_sigset: status.is_none().then_some(played.saved.mask.0),
            sas: Some(self.stack.answer(answers)?),
            signals_p: Some(signals::queue(&self.private, pending)),
            creds: Some(self.creds(process, status, answers, (users, is_below))?),
            ..Default::default()
        };
        let mut gelid = GelidThreadEntry {
            restart: resolved.restart,
            dispatch: played.dispatch.map(|it| GelidDispatchEntry {
                selector: it.selector,
                offset: it.offset,
                len: it.len,
            }),
            ..Default::default()
        };
        self.sched.record(defaults, &mut thread, &mut gelid);
        let pointers = &self.pointers;
        let rest = self
            .attributes
            .answer(answers, pointers, &mut thread, &mut gelid)?;
        thread.gelid = (gelid != GelidThreadEntry::default()).then_some(gelid);
        let mut info = ThreadInfoX86 {
            clear_tid_addr: rest.clear_tid,
            gpregs: registers::record(&resolved.regs),
            fpregs: self.fpu,
            tls: Vec::new(),
        };
        registers::no_descriptors(&mut info);
        let core = CoreEntry {
            mtype: March::X86_64 as i32,
            thread_info: Some(info),
            thread_core: Some(thread),
            ..Default::default()
        };
        Ok((Box::new(core), rest))
    }

    /// What it is forbidden.
    pub(super) fn restraint(&self, played: &Played) -> Result<Restraint, Error> {
        self.restraint.answer(Answers {
            tid: self.tid,
            outcome: &played.outcome,
        })
    }

    fn creds(
        &self,
        process: &Process,
        status: Option<&Status>,
        answers: Answers<'_>,
        (users, is_below): (&Users, bool),
    ) -> Result<CredsEntry, Error> {
        let bits = self.bits.answer(answers)?;
        if let Some(status) = status {
            return Ok(creds::of_status(status, bits));
        }
        // In a user namespace below the root's it has told who it is there.
        let asked = self.creds.as_ref().filter(|_| !is_below);
        if let Some(entry) = asked
            .map(|asked| asked.answer(answers, bits))
            .transpose()?
            .flatten()
        {
            return Ok(entry);
        }
        let dir = process.dir()?.thread(self.tid)?;
        let mut status = status::read(&dir)?;
        users.translate(&mut status)?;
        Ok(creds::of_status(&status, bits))
    }
}
