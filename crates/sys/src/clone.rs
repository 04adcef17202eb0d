//! `clone3(2)` with chosen pids.

use crate::aside::{Shared, Zeroed, block_all, end as end_with, unblock};
use crate::namespace::join;
use crate::proc::ns::Kind;
use crate::{Pid, syscall};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, Result};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// `struct clone_args` up to `cgroup` (88 bytes, `CLONE_ARGS_SIZE_VER2`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneArgs {
    /// `CLONE_*`.
    pub flags: u64,
    /// Where to store a pidfd.
    pub pidfd: u64,
    /// Where to store the tid in the child.
    pub child_tid: u64,
    /// Where to store the tid in the parent.
    pub parent_tid: u64,
    /// Signal sent to the parent when the child ends.
    pub exit_signal: u64,
    /// Lowest address of the child's stack; 0 for the parent's.
    pub stack: u64,
    /// Bytes of the stack.
    pub stack_size: u64,
    /// TLS value for `CLONE_SETTLS`.
    pub tls: u64,
    /// Address of an array of `pid_t`, innermost pid namespace first.
    pub set_tid: u64,
    /// Entries of that array.
    pub set_tid_size: u64,
    /// Descriptor for `CLONE_INTO_CGROUP`.
    pub cgroup: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 88);

#[cfg(test)]
crate::layout::same!(whole CloneArgs, linux_raw_sys::general::clone_args {
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size,
    cgroup,
});

impl CloneArgs {
    /// Offset of the address of the pids wanted.
    pub const SET_TID: usize = std::mem::offset_of!(Self, set_tid);

    /// The bytes handed to the kernel.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 88] {
        let words = [
            self.flags,
            self.pidfd,
            self.child_tid,
            self.parent_tid,
            self.exit_signal,
            self.stack,
            self.stack_size,
            self.tls,
            self.set_tid,
            self.set_tid_size,
            self.cgroup,
        ];
        let mut bytes = [0; 88];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// `CLONE_*` flags used here and on tapes.
pub mod flags {
    macro_rules! from_libc {
        ($($name:ident = $libc:ident;)*) => {
            $(#[doc = concat!("`", stringify!($libc), "`, `clone(2)`.")]
            pub const $name: u64 = libc::$libc as u32 as u64;)*
        };
    }

    from_libc! {
        VM = CLONE_VM;
        FS = CLONE_FS;
        FILES = CLONE_FILES;
        SIGHAND = CLONE_SIGHAND;
        PTRACE = CLONE_PTRACE;
        VFORK = CLONE_VFORK;
        PARENT = CLONE_PARENT;
        THREAD = CLONE_THREAD;
        SYSVSEM = CLONE_SYSVSEM;
        SETTLS = CLONE_SETTLS;
        UNTRACED = CLONE_UNTRACED;
        NEWNS = CLONE_NEWNS;
        NEWCGROUP = CLONE_NEWCGROUP;
        NEWUTS = CLONE_NEWUTS;
        NEWIPC = CLONE_NEWIPC;
        NEWUSER = CLONE_NEWUSER;
        NEWPID = CLONE_NEWPID;
        NEWNET = CLONE_NEWNET;
        NEWTIME = CLONE_NEWTIME;
    }

    /// Everything that threads of one process share.
    pub const SHARED_BY_THREADS: u64 = VM | FS | FILES | SIGHAND | THREAD | SYSVSEM;
}

/// Forks the caller into a child that ends at once, so that `wait(2)` tells `status`: an exit code in the second
/// byte, or a signal that ends processes in the first.
///
/// # Errors
///
/// As `fork(2)`.
pub fn fork_ending(status: i32) -> Result<Pid> {
    // SAFETY: the child calls nothing but what a signal handler may, and ends.
    match unsafe { libc::fork() } {
        0 => end(status),
        pid => Pid::from_raw(pid).ok_or_else(|| Errno::from_raw_os_error(errno())),
    }
}

/// Forks the caller. `None` in the child, which has everything that the caller had.
///
/// # Errors
///
/// As `fork(2)`, and `EBUSY` if there are other threads: the child would find locks taken that nobody gives back.
pub fn fork_alone() -> Result<Option<Pid>> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(Errno::BUSY);
    }
    // SAFETY: there is no other thread, so that nothing in the child is half done.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::from_raw_os_error(errno())),
        pid => Ok(Pid::from_raw(pid)),
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Ends this process with a status.
fn end(status: i32) -> ! {
    let signal = status & 0x7f;
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `none` and `all` are live locals, and nothing of this process is needed any more.
    unsafe {
        if signal != 0 && !crate::signal::stops(signal) {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::signal(signal, libc::SIG_DFL);
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::sigdelset(&raw mut all, signal);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
            libc::kill(libc::getpid(), signal);
            libc::kill(libc::getpid(), libc::SIGKILL);
        }
        libc::_exit(status >> 8 & 0xff)
    }
}

/// Forks the caller into a child that has the pid `pid` in the pid namespace that it is born into, and does nothing
/// but sleep, with every signal as the caller has it, until its tracer gives it something to run. If it is a child of the
/// caller, it ends with the thread that has forked it; whoever is to outlive that calls `PR_SET_PDEATHSIG`.
///
/// # Errors
///
/// As `clone3(2)`: `EEXIST` if the pid is taken, `EPERM` without `CAP_CHECKPOINT_RESTORE`.
pub fn fork_sleeper(pid: Option<Pid>, parent: bool) -> Result<Pid> {
    sleeper(pid, parent, 0)
}

/// The same for the first process of new namespaces, by their `CLONE_NEW*` flags. It shares the descriptors of the
/// caller until it leaves them (`unshare(2)`).
///
/// # Errors
///
/// As [`fork_sleeper`].
pub fn fork_inside(namespaces: u64, pid: Option<Pid>, parent: bool) -> Result<Pid> {
    let new = flags::NEWNS
        | flags::NEWCGROUP
        | flags::NEWUTS
        | flags::NEWIPC
        | flags::NEWUSER
        | flags::NEWPID
        | flags::NEWNET;
    sleeper(pid, parent, namespaces & new | flags::FILES)
}

/// What a go-between has to tell: the number of its child, or an error.
#[derive(Debug, Clone, Copy)]
struct Told {
    pid: i32,
    errno: i32,
}

// SAFETY: numbers.
unsafe impl Zeroed for Told {}

/// The same in new namespaces that belong to a user namespace which is there already, as the child does: a go-between
/// joins it, bears the child for the caller, and ends. With `parent` the caller's parent is told of that end too.
///
/// # Errors
///
/// As [`fork_sleeper`], and `EINVAL` for the user namespace that the caller is in.
pub fn fork_within(
    users: impl AsFd,
    namespaces: u64,
    pid: Option<Pid>,
    parent: bool,
) -> Result<Pid> {
    let mut told = Shared::<Told>::new()?;
    let told = &mut *told;
    let new = namespaces & !flags::NEWUSER;
    let mut pidfd = -1;
    let args = CloneArgs {
        flags: flags::FILES | libc::CLONE_PIDFD as u64 | if parent { flags::PARENT } else { 0 },
        pidfd: (&raw mut pidfd) as u64,
        // The child gets the signal of the go-between.
        exit_signal: if parent { 0 } else { libc::SIGCHLD as u64 },
        ..CloneArgs::default()
    };
    let before = block_all()?;
    // SAFETY: `args` and `pidfd` outlive the call. The go-between shares no memory with the caller but what it is to
    // write, and makes nothing but system calls.
    let between = unsafe {
        let args = (&raw const args) as usize;
        let size = size_of::<CloneArgs>();
        syscall::call(libc::SYS_clone3 as usize, [args, size, 0, 0, 0, 0])
    };
    if between == Ok(0) {
        end_with(|| {
            unblock(&before);
            let born = join(users, Kind::User).and_then(|()| fork_inside(new, pid, true));
            match born {
                Ok(pid) => told.pid = pid.as_raw_nonzero().get(),
                Err(errno) => told.errno = errno.raw_os_error(),
            }
            Ok(())
        });
    }
    unblock(&before);
    let between = between? as i32;
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    while let Err(Errno::INTR) = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None) {}
    if !parent {
        // SAFETY: numbers; nobody is told how it has ended.
        unsafe { libc::waitpid(between, std::ptr::null_mut(), libc::__WALL) };
    }
    match (told.pid, told.errno) {
        (0, 0) => Err(Errno::CHILD),
        (0, errno) => Err(Errno::from_raw_os_error(errno)),
        (pid, _) => Pid::from_raw(pid).ok_or(Errno::INVAL),
    }
}

fn sleeper(pid: Option<Pid>, parent: bool, shared: u64) -> Result<Pid> {
    let set_tid = pid.map_or(0, |pid| pid.as_raw_nonzero().get());
    let args = CloneArgs {
        flags: shared | if parent { flags::PARENT } else { 0 },
        // With CLONE_PARENT the signal is that of the caller itself.
        exit_signal: if parent { 0 } else { libc::SIGCHLD as u64 },
        set_tid: if pid.is_some() {
            (&raw const set_tid) as u64
        } else {
            0
        },
        set_tid_size: u64::from(pid.is_some()),
        ..CloneArgs::default()
    };
    let caller = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: `args` and `set_tid` outlive the call. The child shares no memory with the caller and
    // makes nothing but bare system calls, so it needs no lock that another thread may have held.
    let got = unsafe {
        syscall::call(
            libc::SYS_clone3 as usize,
            [
                (&raw const args) as usize,
                size_of::<CloneArgs>(),
                0,
                0,
                0,
                0,
            ],
        )
    }?;
    if got == 0 {
        if !parent {
            follow(caller);
        }
        loop {
            // SAFETY: no arguments.
            let _ = unsafe { syscall::call(libc::SYS_pause as usize, [0; 6]) };
        }
    }
    Pid::from_raw(got as i32).ok_or(Errno::INVAL)
}

/// Lets this process, newly born, end with its parent, also one that has ended by now. A parent in another pid namespace
/// has no number here.
fn follow(parent: i32) {
    // SAFETY: neither call takes an address.
    unsafe {
        let kill = [
            libc::PR_SET_PDEATHSIG as usize,
            libc::SIGKILL as usize,
            0,
            0,
            0,
            0,
        ];
        let _ = syscall::call(libc::SYS_prctl as usize, kill);
        let now = syscall::call(libc::SYS_getppid as usize, [0; 6]);
        if now.is_ok_and(|now| now != 0 && now != parent as usize) {
            libc::_exit(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::{inode, owner};
    use crate::proc::{TaskDir, ns};
    use rustix::process::{Signal, WaitOptions, getpid, kill_process, waitpid};

    fn end(pid: Pid) {
        kill_process(pid, Signal::KILL).unwrap();
        waitpid(Some(pid), WaitOptions::empty()).unwrap();
    }

    #[test]
    fn what_is_born_within_belongs_there() {
        let Ok(first) = fork_inside(flags::NEWUSER, None, false) else {
            return; // Not allowed here.
        };
        let users = ns::open(&TaskDir::open(first).unwrap(), Kind::User).unwrap();
        let one = Pid::from_raw(1);
        let born = fork_within(&users, flags::NEWPID | flags::NEWUTS, one, false).unwrap();
        let task = TaskDir::open(born).unwrap();
        let of = |kind| inode(owner(ns::open(&task, kind).unwrap()).unwrap()).unwrap();
        let all = [Kind::Pid, Kind::Uts].map(of);
        assert_eq!(ns::id(&task, Kind::User).ok(), inode(&users).ok());
        end(born);
        end(first);
        assert_eq!(all.map(Ok), [inode(&users); 2]);
    }

    #[test]
    fn a_sleeper_ends_with_its_parent() {
        let forked = std::thread::spawn(|| {
            let pid = fork_sleeper(None, false).unwrap();
            // It has asked for its end before it sleeps.
            let call = format!("/proc/{}/syscall", pid.as_raw_nonzero());
            let sleeps = format!("{} ", libc::SYS_pause);
            while !std::fs::read_to_string(&call).unwrap().starts_with(&sleeps) {
                std::thread::yield_now();
            }
            pid
        });
        let pid = forked.join().unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.terminating_signal(), Some(9));
    }

    #[test]
    fn nobody_is_born_within_where_one_is() {
        let own = ns::open(&TaskDir::open(getpid()).unwrap(), Kind::User).unwrap();
        assert_eq!(fork_within(&own, 0, None, false), Err(Errno::INVAL));
    }
}
