//! `/proc/PID/status`: ids, credentials, signals and seccomp state of a task.

use super::stat::State;
use super::text::{
    Fields, Malformed, Result, chomp, decimal, hex, lines, number, signed, split_once,
};
use super::{Error, TaskDir};

/// The lines of `/proc/PID/status` that a checkpoint needs. What this kernel does not print is
/// `None`, empty or 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Name of the thread with newlines and backslashes escaped; `stat` and `comm` have it as it is.
    pub name: Vec<u8>,
    /// Mask of new files; `None` for a task that has ended.
    pub umask: Option<u32>,
    /// What the task is doing.
    pub state: State,
    /// Process, the id of the thread group.
    pub tgid: i32,
    /// NUMA group, 0 if none.
    pub ngid: i32,
    /// The thread itself.
    pub pid: i32,
    /// Parent process, 0 if it is outside the pid namespace.
    pub ppid: i32,
    /// Tracer, 0 if none.
    pub tracer_pid: i32,
    /// Real, effective, saved and filesystem user, in the reader's user namespace.
    pub uid: [u32; 4],
    /// Real, effective, saved and filesystem group.
    pub gid: [u32; 4],
    /// Slots in the descriptor table.
    pub fd_size: u32,
    /// Supplementary groups, ascending.
    pub groups: Vec<u32>,
    /// Process id in each pid namespace, from that of the procfs mount inwards.
    pub ns_tgid: Vec<i32>,
    /// Thread id likewise.
    pub ns_pid: Vec<i32>,
    /// Process group likewise.
    pub ns_pgid: Vec<i32>,
    /// Session likewise.
    pub ns_sid: Vec<i32>,
    /// A kernel thread (since Linux 6.8).
    pub kthread: bool,
    /// Resident memory in bytes, 0 for a task without an address space.
    pub vm_rss: u64,
    /// Memory in swap in bytes.
    pub vm_swap: u64,
    /// Whether transparent huge pages are not disabled by `PR_SET_THP_DISABLE`; `None` if not said.
    pub thp_enabled: Option<bool>,
    /// Threads of the process.
    pub threads: u32,
    /// Signals queued for the real user, and the limit.
    pub sig_queue: (u64, u64),
    /// Signals pending for the thread; bit n-1 is signal n, as in all that follow.
    pub sig_pending: u64,
    /// Signals pending for the process.
    pub shared_pending: u64,
    /// Blocked signals. Of a task under `PTRACE_SETSIGMASK` it is the mask last set.
    pub sig_blocked: u64,
    /// Ignored signals.
    pub sig_ignored: u64,
    /// Signals with a handler.
    pub sig_caught: u64,
    /// Capability sets; bit n is capability n.
    pub caps: Caps,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// Seccomp mode: 0 off, 1 strict, 2 filter.
    pub seccomp: u32,
    /// Number of seccomp filters (since Linux 5.9).
    pub seccomp_filters: Option<u32>,
}

/// The five capability sets of a thread, `capabilities(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(missing_docs, reason = "the names are those of capabilities(7)")]
pub struct Caps {
    pub inheritable: u64,
    pub permitted: u64,
    pub effective: u64,
    pub bounding: u64,
    pub ambient: u64,
}

/// Reads and parses `status`.
pub fn read(task: &TaskDir) -> std::result::Result<Status, Error> {
    task.parsed_record("status", 4096, parse)
}

/// Lines that are always there, as bits of a set.
const NEEDED: [&str; 8] = [
    "State", "Tgid", "Pid", "PPid", "Uid", "Gid", "SigBlk", "CapEff",
];

/// Parses the text of `status`.
pub fn parse(text: &[u8]) -> Result<Status> {
    let mut status = empty();
    let mut seen = 0u32;
    for line in lines(text) {
        let (key, value) = split_once(line, b':').ok_or(Malformed("line"))?;
        let value = value.strip_prefix(b"\t").unwrap_or(value);
        let needed = NEEDED.iter().position(|name| name.as_bytes() == key);
        seen |= needed.map_or(0, |at| 1 << at);
        field(&mut status, key, value)?;
    }
    match (0..NEEDED.len()).find(|at| seen & 1 << at == 0) {
        Some(missing) => Err(Malformed(NEEDED[missing])),
        None => Ok(status),
    }
}

fn empty() -> Status {
    Status {
        name: Vec::new(),
        umask: None,
        state: State::Running,
        tgid: 0,
        ngid: 0,
        pid: 0,
        ppid: 0,
        tracer_pid: 0,
        uid: [0; 4],
        gid: [0; 4],
        fd_size: 0,
        groups: Vec::new(),
        ns_tgid: Vec::new(),
        ns_pid: Vec::new(),
        ns_pgid: Vec::new(),
        ns_sid: Vec::new(),
        kthread: false,
        vm_rss: 0,
        vm_swap: 0,
        thp_enabled: None,
        threads: 0,
        sig_queue: (0, 0),
        sig_pending: 0,
        shared_pending: 0,
        sig_blocked: 0,
        sig_ignored: 0,
        sig_caught: 0,
        caps: Caps::default(),
        no_new_privs: false,
        seccomp: 0,
        seccomp_filters: None,
    }
}

fn field(status: &mut Status, key: &[u8], value: &[u8]) -> Result<()> {
    match key {
        b"Name" => status.name = value.to_vec(),
        b"Umask" => status.umask = Some(small(number(value, 8, "Umask")?, "Umask")?),
        b"State" => {
            let state = value.first().and_then(|letter| State::from_letter(*letter));
            status.state = state.ok_or(Malformed("State"))?;
        }
        b"Tgid" => status.tgid = signed(value, "Tgid")?,
        b"Ngid" => status.ngid = signed(value, "Ngid")?,
        b"Pid" => status.pid = signed(value, "Pid")?,
        b"PPid" => status.ppid = signed(value, "PPid")?,
        b"TracerPid" => status.tracer_pid = signed(value, "TracerPid")?,
        b"Uid" => status.uid = four(value, "Uid")?,
        b"Gid" => status.gid = four(value, "Gid")?,
        b"FDSize" => status.fd_size = decimal(value, "FDSize")?,
        b"Groups" => {
            status.groups = Fields(value)
                .map(|id| decimal(id, "Groups"))
                .collect::<Result<_>>()?;
        }
        b"NStgid" => status.ns_tgid = ids(value, "NStgid")?,
        b"NSpid" => status.ns_pid = ids(value, "NSpid")?,
        b"NSpgid" => status.ns_pgid = ids(value, "NSpgid")?,
        b"NSsid" => status.ns_sid = ids(value, "NSsid")?,
        b"Kthread" => status.kthread = flag(value, "Kthread")?,
        b"VmRSS" => status.vm_rss = kilobytes(value, "VmRSS")?,
        b"VmSwap" => status.vm_swap = kilobytes(value, "VmSwap")?,
        b"THP_enabled" => status.thp_enabled = Some(flag(value, "THP_enabled")?),
        b"Threads" => status.threads = decimal(value, "Threads")?,
        _ => return signals_and_rights(status, key, value),
    }
    Ok(())
}

fn signals_and_rights(status: &mut Status, key: &[u8], value: &[u8]) -> Result<()> {
    match key {
        b"SigQ" => {
            let (queued, limit) = split_once(value, b'/').ok_or(Malformed("SigQ"))?;
            status.sig_queue = (decimal(queued, "SigQ")?, decimal(limit, "SigQ")?);
        }
        b"SigPnd" => status.sig_pending = hex(value, "SigPnd")?,
        b"ShdPnd" => status.shared_pending = hex(value, "ShdPnd")?,
        b"SigBlk" => status.sig_blocked = hex(value, "SigBlk")?,
        b"SigIgn" => status.sig_ignored = hex(value, "SigIgn")?,
        b"SigCgt" => status.sig_caught = hex(value, "SigCgt")?,
        b"CapInh" => status.caps.inheritable = hex(value, "CapInh")?,
        b"CapPrm" => status.caps.permitted = hex(value, "CapPrm")?,
        b"CapEff" => status.caps.effective = hex(value, "CapEff")?,
        b"CapBnd" => status.caps.bounding = hex(value, "CapBnd")?,
        b"CapAmb" => status.caps.ambient = hex(value, "CapAmb")?,
        b"NoNewPrivs" => status.no_new_privs = flag(value, "NoNewPrivs")?,
        b"Seccomp" => status.seccomp = decimal(value, "Seccomp")?,
        b"Seccomp_filters" => status.seccomp_filters = Some(decimal(value, "Seccomp_filters")?),
        _ => {}
    }
    Ok(())
}

fn small(value: u64, what: &'static str) -> Result<u32> {
    u32::try_from(value).map_err(|_| Malformed(what))
}

fn flag(value: &[u8], what: &'static str) -> Result<bool> {
    decimal::<u8>(value, what).map(|value| value != 0)
}

fn four(value: &[u8], what: &'static str) -> Result<[u32; 4]> {
    let mut ids = [0; 4];
    let mut fields = Fields(value);
    for id in &mut ids {
        *id = decimal(fields.need(what)?, what)?;
    }
    Ok(ids)
}

fn ids(value: &[u8], what: &'static str) -> Result<Vec<i32>> {
    Fields(value).map(|id| signed(id, what)).collect()
}

/// The bytes of a size printed as `1234 kB`.
pub(super) fn kilobytes(value: &[u8], what: &'static str) -> Result<u64> {
    let digits = Fields(chomp(value)).need(what)?;
    decimal::<u64>(digits, what)?
        .checked_mul(1024)
        .ok_or(Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: &[u8] = b"Name:\ta\\nb\nUmask:\t0027\nState:\tt (tracing stop)\nTgid:\t71\nNgid:\t0\n\
        Pid:\t72\nPPid:\t70\nTracerPid:\t9\nUid:\t1\t2\t3\t4294967295\nGid:\t5\t6\t7\t8\nFDSize:\t256\n\
        Groups:\t0 10 4294967294 \nNStgid:\t71\t1\nNSpid:\t72\t2\nNSpgid:\t71\t1\nNSsid:\t4482\t0\n\
        Kthread:\t0\nVmRSS:\t    2184 kB\nVmSwap:\t       1 kB\nTHP_enabled:\t1\nuntag_mask:\t0xffff\n\
        Threads:\t2\nSigQ:\t1/96365\nSigPnd:\t0000000000000001\nShdPnd:\t8000000000000000\n\
        SigBlk:\t0000000000010000\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000014002\n\
        CapInh:\t0000000000000001\nCapPrm:\t000001fffeffffff\nCapEff:\t000001fffefffffe\n\
        CapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000002\nNoNewPrivs:\t1\nSeccomp:\t2\n\
        Seccomp_filters:\t3\nMems_allowed:\t1\n";

    #[test]
    fn every_line_is_understood() {
        let status = parse(NESTED).unwrap();
        assert_eq!(
            (&status.name[..], status.umask),
            (&b"a\\nb"[..], Some(0o27))
        );
        assert_eq!(status.state, State::TracingStop);
        assert_eq!(
            (status.tgid, status.pid, status.ppid, status.tracer_pid),
            (71, 72, 70, 9)
        );
        assert_eq!(
            (status.uid, status.gid),
            ([1, 2, 3, u32::MAX], [5, 6, 7, 8])
        );
        assert_eq!(status.groups, [0, 10, 4294967294]);
        assert_eq!(
            (&status.ns_tgid[..], &status.ns_pid[..]),
            (&[71, 1][..], &[72, 2][..])
        );
        assert_eq!(
            (&status.ns_pgid[..], &status.ns_sid[..]),
            (&[71, 1][..], &[4482, 0][..])
        );
        assert_eq!((status.vm_rss, status.vm_swap), (2184 << 10, 1 << 10));
        assert_eq!((status.thp_enabled, status.kthread), (Some(true), false));
        assert_eq!((status.threads, status.sig_queue), (2, (1, 96365)));
        assert_eq!((status.sig_pending, status.shared_pending), (1, 1 << 63));
        assert_eq!((status.sig_blocked, status.sig_ignored), (0x10000, 0x1000));
        assert_eq!((status.sig_caught, status.fd_size), (0x14002, 256));
        assert_eq!(
            (status.caps.inheritable, status.caps.permitted),
            (1, 0x1fffeffffff)
        );
        assert_eq!(
            (status.caps.effective, status.caps.ambient),
            (0x1fffefffffe, 2)
        );
        assert!(status.no_new_privs);
        assert_eq!((status.seccomp, status.seccomp_filters), (2, Some(3)));
    }

    #[test]
    fn missing_lines_are_named() {
        for name in NEEDED {
            let prefix = format!("{name}:");
            let rest = lines(NESTED).filter(|line| !line.starts_with(prefix.as_bytes()));
            let text = rest.collect::<Vec<_>>().join(&b'\n');
            assert_eq!(parse(&text), Err(Malformed(name)));
        }
        assert_eq!(parse(b"Uid:\t1\t2\t3\n"), Err(Malformed("Uid")));
        assert_eq!(parse(b"SigQ:\t1\n"), Err(Malformed("SigQ")));
        assert_eq!(parse(b"no colon\n"), Err(Malformed("line")));
    }
}
