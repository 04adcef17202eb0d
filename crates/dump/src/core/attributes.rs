//! What `prctl(2)` and its relatives tell, and what stands in `/proc`.

use gelid_image::messages::{
    GelidTaskEntry, GelidThreadEntry, RseqEntry, TaskCoreEntry, ThreadCoreEntry,
};
use gelid_sys::prctl::{
    PR_GET_CHILD_SUBREAPER, PR_GET_DUMPABLE, PR_GET_IO_FLUSHER, PR_GET_MDWE, PR_GET_MEMORY_MERGE,
    PR_GET_NAME, PR_GET_PDEATHSIG, PR_GET_SPECULATION_CTRL, PR_GET_THP_DISABLE, PR_GET_TID_ADDRESS,
    PR_GET_TIMERSLACK, PR_GET_TSC, PR_MCE_KILL_GET,
};
use gelid_sys::proc::{TaskDir, scalar};
use gelid_sys::ptrace::Stopped;
use gelid_sys::syscall::nr;
use gelid_sys::{Errno, Pid, proc, sched};
use gelid_tape::{Arg, Data, Op, Tape};

use super::Error;
use super::call::{Answers, prctl, prctl_out};

/// `MEMBARRIER_CMD_GET_REGISTRATIONS`
const GET_REGISTRATIONS: u64 = 1 << 9;
/// Asks for the personality and leaves it.
const PERSONALITY_QUERY: u64 = 0xffff_ffff;
/// Slack of timers that nobody has set.
const TIMER_SLACK: u64 = 50_000;
const TSC_FORBIDDEN: u32 = 2;
/// `PR_SPEC_PRCTL`
const SPECULATION_BY_THREAD: u64 = 1;
/// `PR_SPEC_DISABLE`, `PR_SPEC_FORCE_DISABLE`, `PR_SPEC_DISABLE_NOEXEC`
const SPECULATION_DISABLED: u64 = 0x1c;
/// The policy for memory errors that nobody has set.
const MCE_DEFAULT: u64 = 2;

/// What a process has, as seen from outside.
#[derive(Debug)]
pub(super) struct Outside {
    oom_score_adj: i32,
    login_uid: Option<u32>,
    coredump_filter: Option<u64>,
    /// Of its session's group, unless the leader is outside of the tree.
    autogroup_nice: Option<i32>,
}

impl Outside {
    /// `own_session` tells that the session's leader is this process, or gone.
    pub(super) fn look(dir: &TaskDir, own_session: bool) -> Result<Self, Error> {
        Ok(Self {
            oom_score_adj: scalar::oom_score_adj(dir)?,
            login_uid: match scalar::loginuid(dir) {
                Ok(uid) => Some(uid),
                Err(proc::Error::Read {
                    errno: Errno::NOENT,
                    ..
                }) => None,
                Err(error) => return Err(error.into()),
            },
            coredump_filter: scalar::coredump_filter(dir)?,
            autogroup_nice: match own_session {
                true => scalar::autogroup_nice(dir)?.filter(|nice| *nice != 0),
                false => None,
            },
        })
    }
}

/// Attributes of a process, asked for.
#[derive(Debug)]
pub(super) struct AskedProcess {
    subreaper: (Op, Data),
    dumpable: Op,
    thp_disable: Op,
    mdwe: Op,
    memory_merge: Op,
    brk: Op,
    membarrier: Op,
}

/// What is recorded of the address space.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfSpace {
    pub(super) brk: u64,
    pub(super) dumpable: i32,
    pub(super) thp_disabled: bool,
}

impl AskedProcess {
    pub(super) fn ask(tape: &mut Tape) -> Self {
        let registrations = [GET_REGISTRATIONS, 0, 0].map(Arg::Value);
        Self {
            subreaper: prctl_out(tape, PR_GET_CHILD_SUBREAPER, 4),
            dumpable: prctl(tape, PR_GET_DUMPABLE, 0),
            thp_disable: prctl(tape, PR_GET_THP_DISABLE, 0),
            mdwe: prctl(tape, PR_GET_MDWE, 0),
            memory_merge: prctl(tape, PR_GET_MEMORY_MERGE, 0),
            brk: tape.call(nr::brk, [0.into()]),
            membarrier: tape.call(nr::membarrier, registrations),
        }
    }

    /// Fills the fields of the record.
    pub(super) fn answer(
        &self,
        answers: Answers<'_>,
        outside: &Outside,
        tc: &mut TaskCoreEntry,
    ) -> Result<OfSpace, Error> {
        let (subreaper, data) = self.subreaper;
        answers.must(subreaper, "prctl(PR_GET_CHILD_SUBREAPER)")?;
        tc.child_subreaper = Some(answers.half(data, 0) != 0);
        tc.oom_score_adj = Some(outside.oom_score_adj);
        tc.loginuid = outside.login_uid;
        let registrations = answers.may(self.membarrier, "membarrier")?;
        tc.membarrier_registration_mask = registrations
            .map(|mask| mask as u32)
            .filter(|mask| *mask != 0);
        let mdwe = answers.may(self.mdwe, "prctl(PR_GET_MDWE)")?;
        let merge = answers.may(self.memory_merge, "prctl(PR_GET_MEMORY_MERGE)")?;
        tc.gelid = Some(GelidTaskEntry {
            undo: Vec::new(),
            coredump_filter: outside.coredump_filter,
            mdwe: mdwe.map(|bits| bits as u32).filter(|bits| *bits != 0),
            memory_merge: merge.map(|on| on != 0).filter(|on| *on),
            lock_future: None,
            stop_told: None,
            no_terminal: None,
            autogroup_nice: outside.autogroup_nice,
        });
        Ok(OfSpace {
            brk: answers.must(self.brk, "brk")?,
            dumpable: answers.must(self.dumpable, "prctl(PR_GET_DUMPABLE)")? as i32,
            thp_disabled: answers.must(self.thp_disable, "prctl(PR_GET_THP_DISABLE)")? != 0,
        })
    }
}

/// The area for restartable sequences of a thread, as its tracer sees it.
pub(super) fn rseq(task: &Stopped) -> Result<Option<RseqEntry>, Error> {
    match task.rseq() {
        Ok(conf) => Ok(Some(RseqEntry {
            rseq_abi_pointer: conf.rseq_abi_pointer,
            rseq_abi_size: conf.rseq_abi_size,
            signature: conf.signature,
            rseq_cs_pointer: None,
        })),
        Err(Errno::IO | Errno::INVAL) => Ok(None),
        Err(errno) => Err(Error::Thread {
            tid: task.pid(),
            object: "the area for restartable sequences",
            errno,
        }),
    }
}

/// Records where the kernel finds the robust futexes of a thread.
pub(super) fn robust_list(tid: Pid, thread: &mut ThreadCoreEntry) -> Result<(), Error> {
    let object = "the robust futexes";
    let found = sched::robust_list(Some(tid));
    let (head, len) = found.map_err(|errno| Error::Thread { tid, object, errno })?;
    (thread.futex_rla, thread.futex_rla_len) = (head, len as u32);
    Ok(())
}

/// Attributes of a thread, asked for.
#[derive(Debug)]
pub(super) struct AskedThread {
    clear_tid: (Op, Data),
    death_signal: (Op, Data),
    name: (Op, Data),
    timer_slack: Op,
    personality: Op,
    tsc: (Op, Data),
    io_flusher: Op,
    mce_kill: Op,
    speculation: [Op; 3],
}

/// What is recorded of a thread outside of its own part.
#[derive(Debug, Clone)]
pub(super) struct OfThread {
    pub(super) clear_tid: u64,
    pub(super) name: Vec<u8>,
    pub(super) personality: u32,
}

impl AskedThread {
    pub(super) fn ask(tape: &mut Tape) -> Self {
        Self {
            clear_tid: prctl_out(tape, PR_GET_TID_ADDRESS, 8),
            death_signal: prctl_out(tape, PR_GET_PDEATHSIG, 4),
            name: prctl_out(tape, PR_GET_NAME, 16),
            timer_slack: prctl(tape, PR_GET_TIMERSLACK, 0),
            personality: tape.call(nr::personality, [PERSONALITY_QUERY.into()]),
            tsc: prctl_out(tape, PR_GET_TSC, 4),
            io_flusher: prctl(tape, PR_GET_IO_FLUSHER, 0),
            mce_kill: prctl(tape, PR_MCE_KILL_GET, 0),
            speculation: [0, 1, 2].map(|which| prctl(tape, PR_GET_SPECULATION_CTRL, which)),
        }
    }

    /// Fills the fields of the records.
    pub(super) fn answer(
        &self,
        answers: Answers<'_>,
        thread: &mut ThreadCoreEntry,
        gelid: &mut GelidThreadEntry,
    ) -> Result<OfThread, Error> {
        let (op, clear_tid) = self.clear_tid;
        answers.must(op, "prctl(PR_GET_TID_ADDRESS)")?;
        let (op, death_signal) = self.death_signal;
        answers.must(op, "prctl(PR_GET_PDEATHSIG)")?;
        let (op, name) = self.name;
        answers.must(op, "prctl(PR_GET_NAME)")?;
        let name = answers.outcome.data(name).split(|byte| *byte == 0).next();
        let name = name.unwrap_or_default().to_vec();
        thread.comm = Some(name.clone());
        thread.pdeath_sig = Some(answers.half(death_signal, 0)).filter(|signal| *signal != 0);

        let slack = answers.may(self.timer_slack, "prctl(PR_GET_TIMERSLACK)")?;
        gelid.timer_slack = slack.filter(|slack| ![0, TIMER_SLACK].contains(slack));
        let personality = answers.must(self.personality, "personality")? as u32;
        gelid.personality = Some(personality).filter(|flags| *flags != 0);
        let (op, tsc) = self.tsc;
        let tsc = answers
            .may(op, "prctl(PR_GET_TSC)")?
            .map(|_| answers.half(tsc, 0));
        gelid.tsc = tsc.filter(|mode| *mode == TSC_FORBIDDEN);
        // Only who has the capability to set it may ask.
        let flusher = answers.may(self.io_flusher, "prctl(PR_GET_IO_FLUSHER)")?;
        gelid.io_flusher = flusher.map(|on| on != 0).filter(|on| *on);
        let mce = answers.may(self.mce_kill, "prctl(PR_MCE_KILL_GET)")?;
        gelid.mce_kill = mce
            .filter(|policy| *policy != MCE_DEFAULT)
            .map(|policy| policy as u32);
        // Processors without a misfeature answer an error, and others do not leave it to threads.
        let states = self.speculation.map(|op| {
            let state = answers.outcome.ok(op).unwrap_or(0);
            let chosen = state & SPECULATION_BY_THREAD != 0;
            if chosen {
                (state & SPECULATION_DISABLED) as u32
            } else {
                0
            }
        });
        if states != [0; 3] {
            gelid.speculation = states.to_vec();
        }
        Ok(OfThread {
            clear_tid: answers.word(clear_tid, 0),
            name,
            personality,
        })
    }
}
