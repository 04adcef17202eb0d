//! What `prctl(2)` and its relatives set, and what is written to `/proc`.

use gelid_image::messages::{TaskCoreEntry, ThreadCoreEntry, ThreadInfoX86};
use gelid_sys::Pid;
use gelid_sys::prctl::{
    PR_MCE_KILL, PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, PR_SET_IO_FLUSHER, PR_SET_MDWE,
    PR_SET_MEMORY_MERGE, PR_SET_NAME, PR_SET_PDEATHSIG, PR_SET_SPECULATION_CTRL,
    PR_SET_THP_DISABLE, PR_SET_TIMERSLACK, PR_SET_TSC,
};
use gelid_sys::proc::{self, TaskDir};
use gelid_sys::signal::NSIG;
use gelid_sys::syscall::nr;
use gelid_tape::{Arg, Tape};
use rustix::fs::OFlags;
use rustix::io::write;

use super::{Error, Machine};

/// Commands of `membarrier(2)` that register a process for something: global expedited, private expedited,
/// with serialising instruction, with restartable sequences.
const REGISTRATIONS: u32 = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8;
/// Name of a thread with its final NUL (`TASK_COMM_LEN`).
const NAME_LEN: usize = 16;
/// `PR_MCE_KILL_SET`
const MCE_KILL_SET: u64 = 1;
/// The part of a policy for memory errors that means the default.
const MCE_DEFAULT: u32 = 2;
const TSC_FORBIDDEN: u32 = 2;
/// `PR_SPEC_DISABLE`, `PR_SPEC_FORCE_DISABLE`, `PR_SPEC_DISABLE_NOEXEC`
const SPECULATION_STATES: [u32; 3] = [4, 8, 16];
/// `MCL_FUTURE`, and `MCL_ONFAULT`.
const LOCK_FUTURE: u32 = 2 | 4;
/// Bytes of the smallest area for restartable sequences.
const RSEQ_LEN: u32 = 32;

/// Attributes of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ProcessAttributes {
    subreaper: bool,
    membarrier: u32,
    memory_merge: bool,
    mdwe: u32,
    lock_future: u32,
    oom_score_adj: Option<i32>,
    coredump_filter: Option<u64>,
    login_uid: Option<u32>,
    autogroup_nice: Option<i32>,
}

impl ProcessAttributes {
    pub(super) fn read(tid: i32, tc: &TaskCoreEntry) -> Result<Self, Error> {
        let wrong = |what| Error::Wrong { tid, what };
        let gelid = tc.gelid.clone().unwrap_or_default();
        let membarrier = tc.membarrier_registration_mask.unwrap_or(0);
        if membarrier & !REGISTRATIONS != 0 {
            let what = "a registration of membarrier(2) that is not known";
            let remedy = "restore with a newer gelid";
            return Err(Error::Unsupported { tid, what, remedy });
        }
        if tc
            .oom_score_adj
            .is_some_and(|value| !(-1000..=1000).contains(&value))
        {
            return Err(wrong("oom_score_adj is out of bounds"));
        }
        let lock_future = gelid.lock_future.unwrap_or(0);
        if lock_future & !LOCK_FUTURE != 0 {
            return Err(wrong("mappings to come are locked in an unknown way"));
        }
        Ok(Self {
            subreaper: tc.child_subreaper == Some(true),
            membarrier,
            memory_merge: gelid.memory_merge == Some(true),
            mdwe: gelid.mdwe.unwrap_or(0),
            lock_future,
            oom_score_adj: tc.oom_score_adj,
            coredump_filter: gelid.coredump_filter,
            login_uid: tc.loginuid,
            autogroup_nice: gelid.autogroup_nice.filter(|nice| (-20..20).contains(nice)),
        })
    }

    /// Makes of the audit user, which images have as the dumper saw it, the one inside a user namespace.
    pub(super) fn enter_users(&mut self, inside: impl Fn(u32) -> Option<u32>) {
        self.login_uid = self.login_uid.and_then(inside);
    }

    /// Sets the audit user, which only a task itself can do, by its own name in procfs. Where auditing is set up so that
    /// nobody may, it stays that of this process.
    pub(super) fn log_in(&self, tape: &mut Tape, machine: &Machine) {
        let Some(wanted) = self
            .login_uid
            .filter(|wanted| machine.login_uid.is_some_and(|own| own != *wanted))
        else {
            return;
        };
        let flags = u64::from(OFlags::WRONLY.bits() | OFlags::CLOEXEC.bits());
        let path = tape.bytes(b"/proc/self/loginuid\0");
        // Closed when the table of descriptors is filled, as all that does not belong there.
        let fd = tape.call(nr::open, [path.into(), flags.into()]);
        let text = wanted.to_string();
        let bytes = tape.bytes(text.as_bytes());
        let len = text.len() as u64;
        tape.call(nr::write, [fd.into(), bytes.into(), len.into()]);
    }

    pub(super) fn write(&self, tape: &mut Tape) {
        if self.subreaper {
            prctl(tape, PR_SET_CHILD_SUBREAPER, [1, 0]);
        }
        for command in (0..32).filter(|bit| self.membarrier & 1 << bit != 0) {
            let args = [1_u64 << command, 0, 0].map(Arg::Value);
            tape.must(nr::membarrier, args);
        }
        if self.memory_merge {
            prctl(tape, PR_SET_MEMORY_MERGE, [1, 0]);
        }
        if self.lock_future != 0 {
            tape.must(nr::mlockall, [u64::from(self.lock_future).into()]);
        }
    }

    /// `dumpable` and `thp_disabled` are those of the address space.
    pub(super) fn write_last(
        &self,
        tape: &mut Tape,
        dumpable: Option<i32>,
        thp_disabled: Option<bool>,
    ) {
        if thp_disabled == Some(true) {
            prctl(tape, PR_SET_THP_DISABLE, [1, 0]);
        }
        if let Some(dumpable) = dumpable {
            prctl(tape, PR_SET_DUMPABLE, [u64::from(dumpable == 1), 0]);
        }
        if self.mdwe != 0 {
            prctl(tape, PR_SET_MDWE, [self.mdwe.into(), 0]);
        }
    }

    /// Sets from outside what `task` has not been born with, unless that `may_differ` from what this process has, and
    /// what the group of its session has not, if that `is_asked`.
    pub(super) fn outside(
        &self,
        pid: i32,
        task: Pid,
        machine: &Machine,
        (may_differ, is_asked): (bool, bool),
    ) -> Result<(), Error> {
        let oom = self.oom_score_adj;
        let oom = oom.filter(|_| may_differ || oom != machine.oom_score_adj);
        let filter = self.coredump_filter;
        let filter = filter.filter(|_| may_differ || filter != machine.coredump_filter);
        let nice = self.autogroup_nice.filter(|_| is_asked);
        if oom.is_none() && filter.is_none() && nice.is_none() {
            return Ok(());
        }
        let task = &TaskDir::open(task)?;
        if let Some(wanted) = oom
            && wanted != proc::scalar::oom_score_adj(task)?
        {
            let remedy = "a lower value than that of this process takes CAP_SYS_RESOURCE";
            put(pid, task, "oom_score_adj", wanted.to_string(), remedy)?;
        }
        if let Some(wanted) = filter
            && Some(wanted) != proc::scalar::coredump_filter(task)?
        {
            let remedy = "restore as the user of the task or as root";
            put(pid, task, "coredump_filter", format!("{wanted:#x}"), remedy)?;
        }
        // Where sessions have no groups there is nothing to be set.
        if let Some(wanted) = nice
            && let Some(found) = proc::scalar::autogroup_nice(task)?
            && wanted != found
        {
            let remedy = "restore as root";
            put(pid, task, "autogroup", wanted.to_string(), remedy)?;
        }
        Ok(())
    }
}

fn put(
    pid: i32,
    task: &TaskDir,
    file: &'static str,
    value: String,
    remedy: &'static str,
) -> Result<(), Error> {
    let fd = task.open_file(file, OFlags::WRONLY)?;
    match write(&fd, value.as_bytes()) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Error::Outside {
            pid,
            file,
            value,
            errno,
            remedy,
        }),
    }
}

/// An area for restartable sequences, `rseq(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rseq {
    at: u64,
    len: u32,
    signature: u32,
}

/// Attributes of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ThreadAttributes {
    name: [u8; NAME_LEN],
    rseq: Option<Rseq>,
    robust_list: (u64, u32),
    clear_tid: u64,
    death_signal: i32,
    personality: Option<u32>,
    timer_slack: Option<u64>,
    tsc_forbidden: bool,
    io_flusher: bool,
    mce_kill: Option<u32>,
    /// By misfeature, what is disabled of it.
    speculation: Vec<u32>,
}

impl ThreadAttributes {
    /// `tc` is there for the leader.
    pub(super) fn read(
        tid: i32,
        tc: Option<&TaskCoreEntry>,
        thread: &ThreadCoreEntry,
        machine: &ThreadInfoX86,
    ) -> Result<Self, Error> {
        let wrong = |what| Error::Wrong { tid, what };
        let gelid = thread.gelid.clone().unwrap_or_default();
        let comm = thread.comm.as_ref().or(tc.map(|tc| &tc.comm));
        let comm = comm.map_or(&[][..], |comm| &comm[..]);
        let mut name = [0; NAME_LEN];
        let fits = name.get_mut(..comm.len()).filter(|_| comm.len() < NAME_LEN);
        fits.ok_or(wrong("the name of the thread is too long"))?
            .copy_from_slice(comm);
        let death_signal = thread.pdeath_sig.unwrap_or(0);
        if death_signal > NSIG as u32 {
            return Err(wrong("the parent death signal does not exist"));
        }
        // Others have written this number as decimal what the kernel prints as hexadecimal digits.
        let whole = tc.is_some_and(|tc| tc.personality == 0).then_some(0);
        let tsc = gelid.tsc.unwrap_or(0);
        let wrong_state = |state: &u32| *state != 0 && !SPECULATION_STATES.contains(state);
        if gelid.speculation.len() > 3 || gelid.speculation.iter().any(wrong_state) {
            return Err(wrong("the control of speculation makes no sense"));
        }
        Ok(Self {
            name,
            rseq: rseq(tid, thread)?,
            robust_list: (thread.futex_rla, thread.futex_rla_len),
            clear_tid: machine.clear_tid_addr,
            death_signal: death_signal.cast_signed(),
            personality: gelid.personality.or(whole),
            timer_slack: gelid.timer_slack.filter(|slack| *slack != 0),
            tsc_forbidden: tsc == TSC_FORBIDDEN,
            io_flusher: gelid.io_flusher == Some(true),
            mce_kill: gelid.mce_kill.filter(|policy| *policy < MCE_DEFAULT),
            speculation: gelid.speculation,
        })
    }

    pub(super) fn write(&self, tape: &mut Tape, machine: &Machine) {
        let name = tape.bytes(&self.name);
        tape.must(nr::prctl, [PR_SET_NAME.into(), name.into()]);
        tape.must(nr::set_tid_address, [self.clear_tid.into()]);
        let (head, len) = self.robust_list;
        if head != 0 {
            tape.must(nr::set_robust_list, [head.into(), u64::from(len).into()]);
        }
        if let Some(rseq) = self.rseq {
            let [len, signature] = [rseq.len, rseq.signature].map(|word| Arg::Value(word.into()));
            tape.must(nr::rseq, [rseq.at.into(), len, 0.into(), signature]);
        }
        if let Some(slack) = self
            .timer_slack
            .filter(|slack| *slack != machine.timer_slack)
        {
            prctl(tape, PR_SET_TIMERSLACK, [slack, 0]);
        }
        if self.tsc_forbidden {
            prctl(tape, PR_SET_TSC, [TSC_FORBIDDEN.into(), 0]);
        }
        if self.io_flusher {
            prctl(tape, PR_SET_IO_FLUSHER, [1, 0]);
        }
        if let Some(policy) = self.mce_kill {
            prctl(tape, PR_MCE_KILL, [MCE_KILL_SET, policy.into()]);
        }
        for (which, state) in (0_u64..).zip(&self.speculation) {
            if *state != 0 {
                // A processor without the misfeature refuses it, and need not be told.
                let args = [PR_SET_SPECULATION_CTRL, which, (*state).into(), 0, 0];
                tape.call(nr::prctl, args.map(Arg::Value));
            }
        }
        if let Some(personality) = self.personality.filter(|own| *own != machine.personality) {
            tape.must(nr::personality, [u64::from(personality).into()]);
        }
    }

    /// What a change of credentials would undo.
    pub(super) fn write_last(&self, tape: &mut Tape) {
        if self.death_signal != 0 {
            prctl(tape, PR_SET_PDEATHSIG, [self.death_signal as u64, 0]);
        }
    }
}

fn rseq(tid: i32, thread: &ThreadCoreEntry) -> Result<Option<Rseq>, Error> {
    let entry = thread.rseq_entry.as_ref();
    let Some(entry) = entry.filter(|entry| entry.rseq_abi_pointer != 0) else {
        return Ok(None);
    };
    if entry.rseq_abi_size < RSEQ_LEN {
        let what = "the area for restartable sequences is too small";
        return Err(Error::Wrong { tid, what });
    }
    if entry.rseq_cs_pointer.is_some_and(|at| at != 0) {
        return Err(Error::Unsupported {
            tid,
            what: "a restartable sequence that is not to be aborted",
            remedy: "dump the program again, at another instant",
        });
    }
    Ok(Some(Rseq {
        at: entry.rseq_abi_pointer,
        len: entry.rseq_abi_size,
        signature: entry.signature,
    }))
}

fn prctl(tape: &mut Tape, option: u64, [first, second]: [u64; 2]) {
    let args = [option, first, second, 0, 0].map(Arg::Value);
    tape.must(nr::prctl, args);
}

#[cfg(test)]
mod tests {
    use gelid_image::messages::RseqEntry;

    use super::*;

    fn read(thread: &ThreadCoreEntry) -> Result<ThreadAttributes, Error> {
        ThreadAttributes::read(1, None, thread, &ThreadInfoX86::default())
    }

    #[test]
    fn names_have_an_end() {
        let mut thread = ThreadCoreEntry {
            comm: Some(vec![b'x'; 15]),
            ..Default::default()
        };
        assert_eq!(read(&thread).unwrap().name[15], 0);
        thread.comm = Some(vec![b'x'; 16]);
        assert!(read(&thread).is_err());
    }

    #[test]
    fn sequences_are_checked() {
        let mut entry = RseqEntry {
            rseq_abi_size: 32,
            ..Default::default()
        };
        let with = |entry: &RseqEntry| {
            read(&ThreadCoreEntry {
                rseq_entry: Some(entry.clone()),
                ..Default::default()
            })
        };
        assert_eq!(with(&entry).unwrap().rseq, None);
        entry.rseq_abi_pointer = 64;
        assert_eq!(with(&entry).unwrap().rseq.unwrap().at, 64);
        entry.rseq_abi_size = 31;
        assert!(with(&entry).is_err());
        entry.rseq_abi_size = 32;
        entry.rseq_cs_pointer = Some(8);
        assert!(with(&entry).is_err());
    }

    #[test]
    fn unknown_registrations_are_refused() {
        let mut tc = TaskCoreEntry {
            membarrier_registration_mask: Some(0x150),
            ..Default::default()
        };
        assert_eq!(ProcessAttributes::read(1, &tc).unwrap().membarrier, 0x150);
        tc.membarrier_registration_mask = Some(1);
        assert!(ProcessAttributes::read(1, &tc).is_err());
    }
}
