//! A thread: looked at, asked, recorded.

use std::sync::Arc;
use std::time::Instant;

use gelid_image::messages::{
    CoreEntry, CredsEntry, GelidDispatchEntry, GelidThreadEntry, March, RseqEntry, ThreadCoreEntry,
    ThreadInfoX86, UserX86FpregsEntry,
};
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::status::{self, Status};
use gelid_sys::ptrace::Stopped;
use gelid_sys::signal::{SigInfo, SigSet};
use gelid_sys::{Errno, Pid, proc};
use gelid_tape::Tape;

use super::attributes::{self, AskedThread, OfThread};
use super::before::{Before, Known};
use super::call::Answers;
use super::carry::Played;
use super::creds::{AskedBits, AskedCreds};
use super::descriptors::Tables;
use super::sched::{Defaults, Sched};
use super::seccomp::{self, AskedMode, Filter, Restraint};
use super::signals::{Actions, AskedStack};
use super::{Error, creds, fpu, process, registers, signals, wrong_registers};
use crate::namespace::Users;

/// What looking at many threads takes.
#[derive(Debug)]
pub(super) struct Looks<'a> {
    pub(super) before: &'a Before,
    /// When the tree was frozen.
    pub(super) frozen: Instant,
    pub(super) vectors: fpu::Reader<'a>,
    /// Nothing is forbidden by seccomp for the time.
    pub(super) suspended: bool,
    pub(super) tables: Tables,
    /// What is asked of all processes that have nothing special.
    pub(super) usual: Option<Arc<process::Questions>>,
}

/// What threads are asked, on one tape.
#[derive(Debug)]
pub(super) struct Questions {
    stack: AskedStack,
    attributes: AskedThread,
    bits: AskedBits,
    mode: AskedMode,
    /// Of all but the leader.
    creds: Option<AskedCreds>,
}

impl Questions {
    /// Asks them. `leader` is the status of the leader, for another thread.
    pub(super) fn ask(tape: &mut Tape, leader: Option<&Status>) -> Self {
        Self {
            stack: AskedStack::ask(tape),
            attributes: AskedThread::ask(tape),
            bits: AskedBits::ask(tape),
            mode: AskedMode::ask(tape),
            creds: leader.map(|leader| AskedCreds::ask(tape, leader)),
        }
    }
}

/// A thread that its tracer has looked at, and what it is asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) tid: Pid,
    fpu: UserX86FpregsEntry,
    rseq: Option<RseqEntry>,
    pub(super) private: Vec<SigInfo>,
    /// The call it sleeps in, if somebody has looked.
    known: Option<Known>,
    filters: Vec<Filter>,
    /// Thousands of threads are asked the same.
    questions: Arc<Questions>,
}

impl Asked {
    /// Looks at a thread of the process of `dir`.
    pub(super) fn look(
        task: &Stopped,
        dir: &TaskDir,
        questions: &Arc<Questions>,
        looks: &mut Looks<'_>,
    ) -> Result<Self, Error> {
        Ok(Self {
            tid: task.pid(),
            fpu: looks.vectors.read(task)?,
            known: looks.before.of(dir, task, looks.frozen),
            rseq: attributes::rseq(task)?,
            private: signals::pending(task, false)?,
            filters: seccomp::filters(task, looks.suspended)?,
            questions: Arc::clone(questions),
        })
    }

    /// `living` is a thread of its process, `status` is there for the leader; `shared` are the signals for the process that this thread will take.
    pub(super) fn record(
        self,
        living: Pid,
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
        let asked = &self.questions;
        let mut thread = ThreadCoreEntry {
            blk_sigset: status.is_none().then_some(played.saved.mask.0),
            sas: Some(asked.stack.answer(answers)?),
            signals_p: Some(signals::queue(&self.private, pending)),
            creds: Some(self.creds(living, status, answers, (users, is_below))?),
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
        // Its tracer need not look at this, and the tape leaves it alone.
        Sched::look(tid)?.record(defaults, &mut thread, &mut gelid);
        attributes::robust_list(tid, &mut thread)?;
        thread.rseq_entry = self.rseq;
        let rest = asked.attributes.answer(answers, &mut thread, &mut gelid)?;
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

    /// It is under no filter.
    pub(super) fn is_unfiltered(&self) -> bool {
        self.filters.is_empty()
    }

    /// What it is forbidden.
    pub(super) fn restraint(&self, played: &Played) -> Result<Restraint, Error> {
        let answers = Answers {
            tid: self.tid,
            outcome: &played.outcome,
        };
        self.questions.mode.answer(&self.filters, answers)
    }

    fn creds(
        &self,
        living: Pid,
        status: Option<&Status>,
        answers: Answers<'_>,
        (users, is_below): (&Users, bool),
    ) -> Result<CredsEntry, Error> {
        let bits = self.questions.bits.answer(answers)?;
        if let Some(status) = status {
            return Ok(creds::of_status(status, bits));
        }
        // In a user namespace below the root's it has told who it is there.
        let asked = self.questions.creds.as_ref().filter(|_| !is_below);
        if let Some(entry) = asked
            .map(|asked| asked.answer(answers, bits))
            .transpose()?
            .flatten()
        {
            return Ok(entry);
        }
        let dir = proc::task_dir(living)?.thread(self.tid)?;
        let mut status = status::read(&dir)?;
        users.translate(&mut status)?;
        Ok(creds::of_status(&status, bits))
    }
}
