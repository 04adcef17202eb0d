//! `/proc/PID/stat`: state, kinship, times and address-space boundaries of a task.

use super::text::{Fields, Malformed, Result, chomp, decimal, memchr, signed};
use super::{Error, TaskDir};

/// What a task is doing, the third field of `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// `R`: running or ready to.
    Running,
    /// `S`: sleeping, a signal would wake it.
    Sleeping,
    /// `D`: sleeping, no signal would wake it.
    DiskSleep,
    /// `T`: stopped by job control.
    Stopped,
    /// `t`: stopped by a tracer.
    TracingStop,
    /// `Z`: ended, not yet reaped.
    Zombie,
    /// `X`: being reaped.
    Dead,
    /// `I`: an idle kernel thread.
    Idle,
    /// `P`: parked kernel thread.
    Parked,
}

impl State {
    /// The state that `letter` stands for.
    pub fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'R' => Self::Running,
            b'S' => Self::Sleeping,
            b'D' => Self::DiskSleep,
            b'T' => Self::Stopped,
            b't' => Self::TracingStop,
            b'Z' => Self::Zombie,
            b'X' | b'x' => Self::Dead,
            b'I' => Self::Idle,
            b'P' => Self::Parked,
            _ => return None,
        })
    }

    /// Whether the task has ended.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Zombie | Self::Dead)
    }
}

/// The 52 fields of `/proc/PID/stat`, named as in `proc_pid_stat(5)`. Addresses, `wchan` and
/// `exit_code` are 0 for a reader without ptrace access. Times are in clock ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "fields without a remark mean what proc_pid_stat(5) says"
)]
pub struct Stat {
    pub pid: i32,
    /// Name of the thread, as it is: it may hold blanks, parentheses and newlines.
    pub comm: Vec<u8>,
    pub state: State,
    /// 0 if the parent is outside the pid namespace.
    pub ppid: i32,
    pub pgrp: i32,
    /// Session, field `session`.
    pub sid: i32,
    /// Controlling terminal as the kernel encodes device numbers, 0 if none.
    pub tty_nr: i32,
    /// Foreground group of the controlling terminal, -1 if none.
    pub tpgid: i32,
    /// `PF_*` of `linux/sched.h`.
    pub flags: u32,
    pub minflt: u64,
    pub cminflt: u64,
    pub majflt: u64,
    pub cmajflt: u64,
    pub utime: u64,
    pub stime: u64,
    pub cutime: i64,
    pub cstime: i64,
    pub priority: i64,
    pub nice: i64,
    pub num_threads: i64,
    /// Always 0.
    pub itrealvalue: i64,
    /// Clock ticks from boot to the birth of the task, in its time namespace's boot time.
    pub start_time: u64,
    /// Bytes of address space.
    pub vsize: u64,
    /// Resident pages.
    pub rss: i64,
    /// Soft limit on resident memory in bytes.
    pub rsslim: u64,
    pub start_code: u64,
    pub end_code: u64,
    pub start_stack: u64,
    pub kstkesp: u64,
    pub kstkeip: u64,
    pub signal: u64,
    pub blocked: u64,
    pub sigignore: u64,
    pub sigcatch: u64,
    pub wchan: u64,
    pub nswap: u64,
    pub cnswap: u64,
    /// Signal sent to the parent at the end; -1 for a thread that leads no group.
    pub exit_signal: i32,
    pub processor: i32,
    pub rt_priority: u32,
    /// `SCHED_*`.
    pub policy: u32,
    pub delayacct_blkio_ticks: u64,
    pub guest_time: u64,
    pub cguest_time: i64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    /// Status as `wait(2)` will report it, of a task that has ended.
    pub exit_code: i32,
}

/// Reads and parses `stat`.
pub fn read(task: &TaskDir) -> std::result::Result<Stat, Error> {
    task.parsed_record("stat", 1024, parse)
}

/// Parses the text of `stat`.
pub fn parse(text: &[u8]) -> Result<Stat> {
    let open = memchr(b'(', text).ok_or(Malformed("comm"))?;
    // The name may hold anything, and nothing after it holds a parenthesis.
    let close = text
        .iter()
        .rposition(|b| *b == b')')
        .filter(|close| *close > open);
    let close = close.ok_or(Malformed("comm"))?;
    let pid = signed(Fields(&text[..open]).need("pid")?, "pid")?;
    let mut fields = Fields(chomp(&text[close + 1..]));
    let state = match fields.need("state")? {
        [letter] => State::from_letter(*letter),
        _ => None,
    };
    let mut rest = Numbers(fields);
    // The initialisers run in the order in which they are written, which is that of the fields.
    Ok(Stat {
        pid,
        comm: text[open + 1..close].to_vec(),
        state: state.ok_or(Malformed("state"))?,
        ppid: rest.i("ppid")?,
        pgrp: rest.i("pgrp")?,
        sid: rest.i("session")?,
        tty_nr: rest.i("tty_nr")?,
        tpgid: rest.i("tpgid")?,
        flags: rest.u("flags")?,
        minflt: rest.u("minflt")?,
        cminflt: rest.u("cminflt")?,
        majflt: rest.u("majflt")?,
        cmajflt: rest.u("cmajflt")?,
        utime: rest.u("utime")?,
        stime: rest.u("stime")?,
        cutime: rest.i("cutime")?,
        cstime: rest.i("cstime")?,
        priority: rest.i("priority")?,
        nice: rest.i("nice")?,
        num_threads: rest.i("num_threads")?,
        itrealvalue: rest.i("itrealvalue")?,
        start_time: rest.u("starttime")?,
        vsize: rest.u("vsize")?,
        rss: rest.i("rss")?,
        rsslim: rest.u("rsslim")?,
        start_code: rest.u("startcode")?,
        end_code: rest.u("endcode")?,
        start_stack: rest.u("startstack")?,
        kstkesp: rest.u("kstkesp")?,
        kstkeip: rest.u("kstkeip")?,
        signal: rest.u("signal")?,
        blocked: rest.u("blocked")?,
        sigignore: rest.u("sigignore")?,
        sigcatch: rest.u("sigcatch")?,
        wchan: rest.u("wchan")?,
        nswap: rest.u("nswap")?,
        cnswap: rest.u("cnswap")?,
        exit_signal: rest.i("exit_signal")?,
        processor: rest.i("processor")?,
        rt_priority: rest.u("rt_priority")?,
        policy: rest.u("policy")?,
        delayacct_blkio_ticks: rest.u("delayacct_blkio_ticks")?,
        guest_time: rest.u("guest_time")?,
        cguest_time: rest.i("cguest_time")?,
        start_data: rest.u("start_data")?,
        end_data: rest.u("end_data")?,
        start_brk: rest.u("start_brk")?,
        arg_start: rest.u("arg_start")?,
        arg_end: rest.u("arg_end")?,
        env_start: rest.u("env_start")?,
        env_end: rest.u("env_end")?,
        exit_code: rest.i("exit_code")?,
    })
}

struct Numbers<'a>(Fields<'a>);

impl Numbers<'_> {
    fn u<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T> {
        decimal(self.0.need(what)?, what)
    }

    fn i<T: TryFrom<i64>>(&mut self, what: &'static str) -> Result<T> {
        signed(self.0.need(what)?, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASH: &[u8] = b"7181 (bash) S 7180 7181 4482 0 -1 4194368 152 62 3 4 5 6 7 8 20 0 1 0 118243 \
        4595712 496 18446744073709551615 94880793632768 94880794422173 140726951926448 0 0 0 65536 0 81922 \
        1 0 0 17 1 0 0 9 10 11 94880794655472 94880794703716 94881856155648 140726951930748 140726951930763 \
        140726951930763 140726951931882 256\n";

    #[test]
    fn every_field_is_in_its_place() {
        let stat = parse(BASH).unwrap();
        assert_eq!(
            (stat.pid, &stat.comm[..], stat.state),
            (7181, &b"bash"[..], State::Sleeping)
        );
        assert_eq!(
            (stat.ppid, stat.pgrp, stat.sid, stat.tty_nr, stat.tpgid),
            (7180, 7181, 4482, 0, -1)
        );
        assert_eq!(
            (stat.flags, stat.minflt, stat.cminflt, stat.majflt),
            (4194368, 152, 62, 3)
        );
        assert_eq!(
            (
                stat.cmajflt,
                stat.utime,
                stat.stime,
                stat.cutime,
                stat.cstime
            ),
            (4, 5, 6, 7, 8)
        );
        assert_eq!(
            (stat.priority, stat.nice, stat.num_threads, stat.start_time),
            (20, 0, 1, 118243)
        );
        assert_eq!(
            (stat.vsize, stat.rss, stat.rsslim),
            (4595712, 496, u64::MAX)
        );
        assert_eq!(
            (stat.start_code, stat.end_code),
            (94880793632768, 94880794422173)
        );
        assert_eq!(
            (stat.start_stack, stat.blocked, stat.sigcatch),
            (140726951926448, 65536, 81922)
        );
        assert_eq!(
            (
                stat.exit_signal,
                stat.processor,
                stat.rt_priority,
                stat.policy
            ),
            (17, 1, 0, 0)
        );
        assert_eq!(
            (
                stat.delayacct_blkio_ticks,
                stat.guest_time,
                stat.cguest_time
            ),
            (9, 10, 11)
        );
        assert_eq!(
            (stat.start_data, stat.end_data),
            (94880794655472, 94880794703716)
        );
        assert_eq!(
            (stat.start_brk, stat.arg_start),
            (94881856155648, 140726951930748)
        );
        assert_eq!((stat.env_end, stat.exit_code), (140726951931882, 256));
    }

    #[test]
    fn names_may_hold_anything() {
        let rest = &BASH[11..];
        for name in [
            &b"a) R 1 (b"[..],
            b"",
            b") ",
            b"((",
            b"))",
            b"a\nb c",
            b"\xff",
        ] {
            let text = [b"1 (", name, b")", rest].concat();
            let stat = parse(&text).unwrap();
            assert_eq!((&stat.comm[..], stat.ppid), (name, 7180));
        }
    }

    #[test]
    fn truncated_texts_are_refused() {
        let end = BASH.len() - b" 256\n".len();
        for len in 0..end {
            parse(&BASH[..len]).unwrap_err();
        }
        assert_eq!(parse(&BASH[..end]), Err(Malformed("exit_code")));
        assert_eq!(parse(b"1 )a( S"), Err(Malformed("comm")));
    }
}
