//! What only a thread can tell, or tells at less cost than anybody else.
//!
//! A call that somebody makes for himself takes .15 to .3 us here, a request of `ptrace(2)` .45 to 1.3, a small file of
//! procfs 5 to 13. So all is asked of the thread for which it has a call.

use gelid_sys::prctl::{
    PR_CAPBSET_READ, PR_GET_CHILD_SUBREAPER, PR_GET_DUMPABLE, PR_GET_IO_FLUSHER, PR_GET_MDWE,
    PR_GET_MEMORY_MERGE, PR_GET_NAME, PR_GET_NO_NEW_PRIVS, PR_GET_PDEATHSIG, PR_GET_SECCOMP,
    PR_GET_SECUREBITS, PR_GET_SPECULATION_CTRL, PR_GET_THP_DISABLE, PR_GET_TID_ADDRESS,
    PR_GET_TIMERSLACK, PR_GET_TSC, PR_MCE_KILL_GET,
};
use gelid_sys::syscall::nr;
use gelid_sys::{PAGE_SIZE, pkey};

use crate::script::{Arg, Script};

/// Sets an id of the file system to nothing, which fails, and tells it.
const QUERY: u64 = u32::MAX as u64;
/// Capabilities that there are.
const CAPABILITIES: u64 = 41;
/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION: u32 = 0x2008_0522;
const GROUPS: u64 = 32;
const PERSONALITY_QUERY: u64 = 0xffff_ffff;
const IOPRIO_WHO_PROCESS: u64 = 1;
/// `MEMBARRIER_CMD_GET_REGISTRATIONS`
const REGISTRATIONS: u64 = 1 << 9;
/// `PR_GET_AUXV`
const PR_GET_AUXV: u64 = 0x4155_5856;
const LIMITS: u64 = 16;
const SIGNALS: u64 = 8;

/// Numbers of `fcntl(2)` and `ioctl(2)`.
const F_GETFD: u64 = 1;
const F_GETFL: u64 = 3;
const F_GETOWN_EX: u64 = 16;
const F_GETSIG: u64 = 11;
const F_GETPIPE_SZ: u64 = 1032;
const FIONREAD: u64 = 0x541b;
const SEEK_CUR: u64 = 1;

fn prctl(script: &mut Script, option: u64, argument: Arg) {
    let zero = Arg::Value(0);
    script.call(nr::prctl, [option.into(), argument, zero, zero, zero]);
}

/// What a thread is asked. Pending signals without a `siginfo` are told here, and who has none has no need for a request
/// for them; a thread without filters none for those; and the nice value of one that is not of a real-time class is
/// among its attributes.
pub(crate) fn thread(script: &mut Script) {
    let zero = Arg::Value(0);
    let mask = script.space(SIGNALS);
    script.call(nr::rt_sigprocmask, [zero, zero, mask, SIGNALS.into()]);
    let pending = script.space(SIGNALS);
    script.call(nr::rt_sigpending, [pending, SIGNALS.into()]);
    let stack = script.space(24);
    script.call(nr::sigaltstack, [zero, stack]);
    let (head, len) = (script.space(8), script.space(8));
    script.call(nr::get_robust_list, [zero, head, len]);
    let attributes = script.space(56);
    script.call(nr::sched_getattr, [zero, attributes, 56.into(), zero]);
    let processors = script.space(128);
    script.call(nr::sched_getaffinity, [zero, 128.into(), processors]);
    script.call(nr::ioprio_get, [IOPRIO_WHO_PROCESS.into(), zero]);
    for (option, bytes) in [
        (PR_GET_TID_ADDRESS, 8),
        (PR_GET_PDEATHSIG, 4),
        (PR_GET_NAME, 16),
        (PR_GET_TSC, 4),
    ] {
        let space = script.space(bytes);
        prctl(script, option, space);
    }
    for option in [
        PR_GET_TIMERSLACK,
        PR_GET_IO_FLUSHER,
        PR_MCE_KILL_GET,
        PR_GET_SECUREBITS,
        PR_GET_NO_NEW_PRIVS,
        PR_GET_SECCOMP,
    ] {
        prctl(script, option, zero);
    }
    for which in [0, 1, 2] {
        prctl(script, PR_GET_SPECULATION_CTRL, Arg::Value(which));
    }
    script.call(nr::personality, [PERSONALITY_QUERY.into()]);
    credentials(script);
}

/// One call for each capability: nobody else but `status` tells the bounding set, and that takes as long.
fn credentials(script: &mut Script) {
    for number in [nr::getresuid, nr::getresgid] {
        let ids = [(); 3].map(|()| script.space(4));
        script.call(number, ids);
    }
    script.call(nr::setfsuid, [QUERY.into()]);
    script.call(nr::setfsgid, [QUERY.into()]);
    let groups = script.space(GROUPS * 4);
    script.call(nr::getgroups, [GROUPS.into(), groups]);
    let (header, sets) = (script.bytes(&VERSION.to_ne_bytes()), script.space(24));
    script.call(nr::capget, [header, sets]);
    for capability in 0..CAPABILITIES {
        prctl(script, PR_CAPBSET_READ, Arg::Value(capability));
    }
}

/// What the first thread is asked for its process. `changed` are the signals that are not as they are by default, as
/// `status` tells: of the others there is nothing to ask.
pub(crate) fn process(script: &mut Script, changed: u64) {
    let zero = Arg::Value(0);
    for signal in (1..=64).filter(|signal| changed >> (signal - 1) & 1 != 0) {
        let action = script.space(32);
        script.call(
            nr::rt_sigaction,
            [signal.into(), zero, action, SIGNALS.into()],
        );
    }
    for limit in 0..LIMITS {
        let space = script.space(16);
        script.call(nr::prlimit64, [zero, limit.into(), zero, space]);
    }
    for which in 0..3 {
        let space = script.space(32);
        script.call(nr::getitimer, [which.into(), space]);
    }
    let space = script.space(4);
    prctl(script, PR_GET_CHILD_SUBREAPER, space);
    for option in [
        PR_GET_DUMPABLE,
        PR_GET_THP_DISABLE,
        PR_GET_MDWE,
        PR_GET_MEMORY_MERGE,
    ] {
        prctl(script, option, zero);
    }
    let words = script.space(512);
    script.call(
        nr::prctl,
        [PR_GET_AUXV.into(), words, 512.into(), zero, zero],
    );
    script.call(nr::brk, [zero]);
    script.call(nr::membarrier, [REGISTRATIONS.into(), zero, zero]);
    if pkey::are_there() {
        // Given to memory that there is not.
        for key in 1..=pkey::LAST {
            let args = [pkey::NOWHERE, PAGE_SIZE as u64, 0, key.into()];
            script.call(nr::pkey_mprotect, args.map(Into::into));
        }
    }
}

/// Where in the area of a descriptor is what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Negative if there is no such descriptor.
    pub(crate) flags: u64,
    /// How it is open.
    pub(crate) status: u64,
    /// What `fstat(2)` tells.
    pub(crate) stat: Arg,
}

/// What is asked of a descriptor.
pub(crate) fn descriptor(script: &mut Script, number: Arg) -> Found {
    let flags = script.call(nr::fcntl, [number, F_GETFD.into()]);
    if let Arg::Item = number {
        script.or_none();
    }
    let status = script.call(nr::fcntl, [number, F_GETFL.into()]);
    script.call(nr::lseek, [number, 0.into(), SEEK_CUR.into()]);
    let (stat, owner) = (script.space(144), script.space(8));
    script.call(nr::fstat, [number, stat]);
    script.call(nr::fcntl, [number, F_GETOWN_EX.into(), owner]);
    script.call(nr::fcntl, [number, F_GETSIG.into()]);
    Found {
        flags,
        status,
        stat,
    }
}

/// What is asked of a pipe, and where it tells how much waits in it.
pub(crate) fn pipe() -> (Script, Arg) {
    let mut script = Script::default();
    script.call(nr::fcntl, [Arg::Item, F_GETPIPE_SZ.into()]);
    let waiting = script.space(4);
    script.call(nr::ioctl, [Arg::Item, FIONREAD.into(), waiting]);
    (script, waiting)
}

/// What is asked of a socket: what waits, and each option that a program can set.
pub(crate) fn socket() -> (Script, Arg) {
    const SOL_SOCKET: u64 = 1;
    /// Numbers of options, and the bytes of their values.
    const OPTIONS: [(u64, u32); 23] = [
        (2, 4),   // SO_REUSEADDR
        (5, 4),   // SO_DONTROUTE
        (6, 4),   // SO_BROADCAST
        (7, 4),   // SO_SNDBUF
        (8, 4),   // SO_RCVBUF
        (9, 4),   // SO_KEEPALIVE
        (10, 4),  // SO_OOBINLINE
        (11, 4),  // SO_NO_CHECK
        (12, 4),  // SO_PRIORITY
        (13, 8),  // SO_LINGER
        (15, 4),  // SO_REUSEPORT
        (16, 4),  // SO_PASSCRED
        (17, 12), // SO_PEERCRED
        (18, 4),  // SO_RCVLOWAT
        (25, 16), // SO_BINDTODEVICE
        (26, 0),  // SO_GET_FILTER, how many
        (34, 4),  // SO_PASSSEC
        (36, 4),  // SO_MARK
        (39, 4),  // SO_DOMAIN
        (42, 4),  // SO_PEEK_OFF
        (66, 16), // SO_RCVTIMEO_NEW
        (67, 16), // SO_SNDTIMEO_NEW
        (72, 4),  // SO_BUF_LOCK
    ];
    let mut script = Script::default();
    let waiting = script.space(4);
    script.call(nr::ioctl, [Arg::Item, FIONREAD.into(), waiting]);
    for (option, bytes) in OPTIONS {
        // Each has the same length for every socket.
        let len = script.bytes(&bytes.to_ne_bytes());
        let value = script.space(bytes.into());
        let option = Arg::Value(option);
        script.call(
            nr::getsockopt,
            [Arg::Item, SOL_SOCKET.into(), option, value, len],
        );
    }
    (script, waiting)
}
