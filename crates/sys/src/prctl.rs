//! `prctl(2)`: numbers for tapes, and the calls on the caller itself that rustix lacks.
//!
//! Almost all of what `prctl` sets belongs to the calling task alone, so a dump and a restore issue it on
//! the task's own tape, where only the numbers are needed.

use rustix::io::Result;
use rustix::process::Pid;

use crate::syscall::call;

macro_rules! numbers {
    ($($name:ident = $value:literal $about:literal;)*) => {
        $(#[doc = $about]
        pub const $name: u64 = $value;)*
    };
}

numbers! {
    PR_SET_PDEATHSIG = 1 "Sets the signal sent when the parent thread ends.";
    PR_GET_PDEATHSIG = 2 "Writes that signal, as an `int`, to the address given.";
    PR_GET_DUMPABLE = 3 "Returns whether the process may be dumped: 0, 1 or 2.";
    PR_SET_DUMPABLE = 4 "Sets it, to 0 or 1.";
    PR_SET_KEEPCAPS = 8 "Keep capabilities when the last user id 0 is given up.";
    PR_SET_NAME = 15 "Sets the name of the thread from 16 bytes at the address given.";
    PR_GET_NAME = 16 "Writes it there.";
    PR_GET_SECCOMP = 21 "Returns the seccomp mode (kills the caller in strict mode).";
    PR_SET_SECCOMP = 22 "Sets the seccomp mode.";
    PR_CAPBSET_READ = 23 "Returns whether a capability is in the bounding set.";
    PR_CAPBSET_DROP = 24 "Drops a capability from the bounding set.";
    PR_GET_TSC = 25 "Writes whether `rdtsc` is allowed.";
    PR_SET_TSC = 26 "Sets it: 1 allowed, 2 `SIGSEGV`.";
    PR_GET_SECUREBITS = 27 "Returns the secure bits.";
    PR_SET_SECUREBITS = 28 "Sets them.";
    PR_SET_TIMERSLACK = 29 "Sets the timer slack in nanoseconds; 0 for the default.";
    PR_GET_TIMERSLACK = 30 "Returns the timer slack in nanoseconds.";
    PR_MCE_KILL = 33 "Sets the policy for memory errors.";
    PR_MCE_KILL_GET = 34 "Returns it.";
    PR_SET_CHILD_SUBREAPER = 36 "Sets whether orphans of the subtree come to this process.";
    PR_GET_CHILD_SUBREAPER = 37 "Writes it, as an `int`.";
    PR_SET_NO_NEW_PRIVS = 38 "Sets the no-new-privileges flag, for ever.";
    PR_GET_NO_NEW_PRIVS = 39 "Returns it.";
    PR_GET_TID_ADDRESS = 40 "Writes the address set by `set_tid_address(2)`.";
    PR_SET_THP_DISABLE = 41 "Sets whether transparent huge pages are disabled.";
    PR_GET_THP_DISABLE = 42 "Returns it.";
    PR_CAP_AMBIENT = 47 "Works on the ambient set; the next argument is one of the four below.";
    PR_CAP_AMBIENT_IS_SET = 1 "Returns whether a capability is in the ambient set.";
    PR_CAP_AMBIENT_RAISE = 2 "Adds a capability.";
    PR_CAP_AMBIENT_LOWER = 3 "Removes a capability.";
    PR_CAP_AMBIENT_CLEAR_ALL = 4 "Removes all.";
    PR_GET_SPECULATION_CTRL = 52 "Returns the state of a speculation misfeature.";
    PR_SET_SPECULATION_CTRL = 53 "Sets it.";
    PR_SET_IO_FLUSHER = 57 "Sets whether the task flushes I/O.";
    PR_GET_IO_FLUSHER = 58 "Returns it.";
    PR_SET_SYSCALL_USER_DISPATCH = 59 "Sets the dispatch of system calls to user space.";
    PR_SCHED_CORE = 62 "Works on core-scheduling cookies.";
    PR_SET_MDWE = 65 "Sets memory-deny-write-execute, for ever.";
    PR_GET_MDWE = 66 "Returns it.";
    PR_SET_MEMORY_MERGE = 67 "Sets whether all memory is mergeable (KSM).";
    PR_GET_MEMORY_MERGE = 68 "Returns it.";
    PR_TIMER_CREATE_RESTORE_IDS = 77 "Works on the mode of `timer_create` in which the id is given.";
    PR_TIMER_CREATE_RESTORE_IDS_OFF = 0 "Leaves the mode.";
    PR_TIMER_CREATE_RESTORE_IDS_ON = 1 "Enters it: `timer_create` takes the id from its third argument.";
    PR_TIMER_CREATE_RESTORE_IDS_GET = 2 "Returns whether it is on.";
    PR_FUTEX_HASH = 78 "Works on the private futex hash.";
    PR_SET_VMA = 0x53564d41 "Sets an attribute of mappings; the only one is the name below.";
    PR_SET_VMA_ANON_NAME = 0 "Names anonymous memory: address, length, address of the name.";
    PR_GET_AUXV = 0x41555856 "Copies the auxiliary vector out.";
    PR_SET_PTRACER = 0x59616d61 "Names the task that Yama lets trace this one.";
}

/// Whether the bounding set of the caller holds a capability.
///
/// # Errors
///
/// `EINVAL` for a number that this kernel has no capability for.
pub fn bounding_set_has(capability: u32) -> Result<bool> {
    query(PR_CAPBSET_READ, capability as usize).map(|value| value != 0)
}

/// Whether the next `timer_create(2)` of the caller takes the id it is given.
///
/// # Errors
///
/// `EINVAL` on kernels before 6.16.
pub fn timer_restore_ids() -> Result<bool> {
    query(
        PR_TIMER_CREATE_RESTORE_IDS,
        PR_TIMER_CREATE_RESTORE_IDS_GET as usize,
    )
    .map(|value| value != 0)
}

/// Sets that mode of the calling process.
pub fn set_timer_restore_ids(on: bool) -> Result<()> {
    query(PR_TIMER_CREATE_RESTORE_IDS, usize::from(on)).map(drop)
}

/// Whether the caller's memory may be dumped, and its files in procfs are its own: 0, 1 or 2.
pub fn dumpable() -> Result<usize> {
    query(PR_GET_DUMPABLE, 0)
}

/// Sets it.
///
/// # Errors
///
/// `EINVAL` for anything but 0 and 1.
pub fn set_dumpable(dumpable: usize) -> Result<()> {
    query(PR_SET_DUMPABLE, dumpable).map(drop)
}

/// The slack of the caller's timers, in nanoseconds; 0 for a real-time thread.
pub fn timer_slack() -> Result<u64> {
    query(PR_GET_TIMERSLACK, 0).map(|slack| slack as u64)
}

/// Whether transparent huge pages are disabled for the caller.
pub fn thp_disabled() -> Result<bool> {
    query(PR_GET_THP_DISABLE, 0).map(|value| value != 0)
}

/// Sets whether orphans of the caller's subtree come to it rather than to init.
pub fn set_child_subreaper(on: bool) -> Result<()> {
    query(PR_SET_CHILD_SUBREAPER, usize::from(on)).map(drop)
}

/// The core-scheduling cookie of a thread, or of the caller: whoever has the same one may share a core with it. 0 for none.
///
/// # Errors
///
/// `EINVAL` where the kernel knows of no cookies, `ENODEV` where there is nothing to be shared, `EPERM` for threads that the
/// caller may not look into.
pub fn core_cookie(tid: Option<Pid>) -> Result<u64> {
    const GET: usize = 0;
    const OF_THREAD: usize = 0;
    let tid = tid.map_or(0, |tid| tid.as_raw_pid() as usize);
    let mut cookie = 0_u64;
    let args = [
        PR_SCHED_CORE as usize,
        GET,
        tid,
        OF_THREAD,
        (&raw mut cookie) as usize,
        0,
    ];
    // SAFETY: the kernel writes one number of that size, which is a live local.
    unsafe { call(libc::SYS_prctl as usize, args) }?;
    Ok(cookie)
}

/// A `prctl` whose arguments are numbers.
fn query(option: u64, value: usize) -> Result<usize> {
    // SAFETY: private to this module, and called only with options that take no address and change
    // nothing that memory safety rests on.
    unsafe {
        call(
            libc::SYS_prctl as usize,
            [option as usize, value, 0, 0, 0, 0],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn numbers_are_those_of_the_c_library() {
        for (ours, theirs) in [
            (PR_SET_PDEATHSIG, libc::PR_SET_PDEATHSIG),
            (PR_SET_NAME, libc::PR_SET_NAME),
            (PR_CAPBSET_DROP, libc::PR_CAPBSET_DROP),
            (PR_SET_SECUREBITS, libc::PR_SET_SECUREBITS),
            (PR_GET_TIMERSLACK, libc::PR_GET_TIMERSLACK),
            (PR_SET_CHILD_SUBREAPER, libc::PR_SET_CHILD_SUBREAPER),
            (PR_GET_TID_ADDRESS, libc::PR_GET_TID_ADDRESS),
            (PR_GET_THP_DISABLE, libc::PR_GET_THP_DISABLE),
            (PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT),
            (PR_SET_VMA, libc::PR_SET_VMA),
            (PR_SET_SPECULATION_CTRL, libc::PR_SET_SPECULATION_CTRL),
        ] {
            assert_eq!(ours, theirs as u64);
        }
    }

    #[test]
    fn the_caller_answers() {
        assert!(bounding_set_has(0).is_ok());
        assert_eq!(bounding_set_has(1000), Err(Errno::INVAL));
        assert_eq!(thp_disabled(), Ok(false));
        match core_cookie(None) {
            Ok(cookie) => assert_eq!(cookie, 0),
            Err(errno) => assert!([Errno::INVAL, Errno::NODEV].contains(&errno)),
        }
        match timer_restore_ids() {
            Ok(on) => assert!(!on),
            Err(errno) => assert_eq!(errno, Errno::INVAL),
        }
    }
}
