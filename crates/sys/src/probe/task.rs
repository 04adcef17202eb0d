//! Probes of what the kernel tells and does about tasks.

use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::io::{Errno, Result};
use rustix::process::Pid;

use super::{Reason, Support};
use crate::clone::{CloneArgs, fork_sleeper};
use crate::ptrace::{Options, Stopped, seize};
use crate::syscall::call;
use crate::wait::wait_task;
use crate::{mm, pidfd as descriptor, prctl, proc};

fn me() -> Pid {
    rustix::process::getpid()
}

/// What `read` gets from the caller's own directory.
fn own<T>(read: impl FnOnce(&proc::TaskDir) -> std::result::Result<T, proc::Error>) -> Result<T> {
    proc::task_dir(me())
        .and_then(|task| read(&task))
        .map_err(|error| error.errno())
}

/// `linux/sched.h` says that `set_tid` without a size is an error, where it says anything of `set_tid`.
pub(super) fn clone3_set_tid() -> Support {
    let args = CloneArgs {
        set_tid: 0,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    let args = [&raw const args as usize, size_of::<CloneArgs>(), 0, 0, 0, 0];
    // SAFETY: the arguments contradict each other: a size without a pointer. A kernel that knows
    // the field refuses them with EINVAL, an older one the size with E2BIG; none makes a child.
    match unsafe { call(libc::SYS_clone3 as usize, args) } {
        Err(Errno::INVAL) => may_choose_pids(),
        Err(errno) => Support::No(Reason::Errno(errno)),
        Ok(_) => Support::Unknown(Reason::Says("contradicting arguments were taken")),
    }
}

fn may_choose_pids() -> Support {
    match (cap_checkpoint_restore(), cap_sys_admin()) {
        (Support::No(_), Support::No(_)) => Support::No(Reason::Says(
            "neither CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN",
        )),
        _ => Support::Yes,
    }
}

pub(super) fn pidfd() -> Support {
    descriptor::open(me())
        .and_then(|fd| descriptor::getfd(&fd, fd.as_raw_fd()))
        .into()
}

pub(super) fn kcmp() -> Support {
    crate::kcmp::shared(crate::kcmp::Kind::Vm, me(), me()).into()
}

pub(super) fn kcmp_epoll() -> Support {
    use rustix::event::epoll;
    let find = || {
        let (reader, _writer) = rustix::pipe::pipe()?;
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &set,
            &reader,
            epoll::EventData::new_u64(0),
            epoll::EventFlags::IN,
        )?;
        let (efd, tfd) = (set.as_raw_fd() as u32, reader.as_raw_fd() as u32);
        let slot = crate::kcmp::EpollSlot { efd, tfd, toff: 0 };
        crate::kcmp::epoll(me(), reader.as_raw_fd(), me(), slot)
    };
    find().into()
}

/// A child that does nothing, killed and reaped when this goes away.
struct Child(Pid);

impl Drop for Child {
    fn drop(&mut self) {
        // It cannot have gone before, for nobody else reaps it and nobody else knows it.
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::KILL);
        while wait_task(self.0).is_ok_and(|status| !status.is_dead()) {}
    }
}

/// Lets `ask` ask something of a stopped tracee.
fn with_tracee<T>(ask: impl FnOnce(&Stopped) -> Result<T>) -> Support {
    let traced = || {
        let child = Child(fork_sleeper(None, false)?);
        let running = seize(child.0, Options::EXITKILL)?;
        running.interrupt()?;
        if wait_task(child.0)?.is_dead() {
            return Err(Errno::SRCH);
        }
        ask(&running.stopped())
    };
    traced().into()
}

fn ptrace(request: usize, task: &Stopped, address: usize, data: usize) -> Result<usize> {
    let args = [
        request,
        task.pid().as_raw_pid() as usize,
        address,
        data,
        0,
        0,
    ];
    // SAFETY: private to this module, whose callers pass live memory of the length that the request
    // writes, or none.
    unsafe { call(libc::SYS_ptrace as usize, args) }
}

pub(super) fn get_rseq_conf() -> Support {
    with_tracee(Stopped::rseq)
}

pub(super) fn get_syscall_info() -> Support {
    const PTRACE_GET_SYSCALL_INFO: usize = 0x420e;
    with_tracee(|task| {
        let mut info = [0u8; 128];
        ptrace(
            PTRACE_GET_SYSCALL_INFO,
            task,
            info.len(),
            info.as_mut_ptr() as usize,
        )
    })
}

pub(super) fn peek_siginfo() -> Support {
    with_tracee(|task| task.pending(false).and(task.sigmask()))
}

/// Offset of `u_debugreg[n]` in `struct user`.
fn debug_register(n: usize) -> usize {
    std::mem::offset_of!(libc::user, u_debugreg) + 8 * n
}

pub(super) fn breakpoints() -> Support {
    /// Enables breakpoint 0 locally, on execution of one byte.
    const ENABLE_FIRST: usize = 1;
    with_tracee(|task| {
        ptrace(
            libc::PTRACE_POKEUSER as usize,
            task,
            debug_register(0),
            0x1000,
        )?;
        ptrace(
            libc::PTRACE_POKEUSER as usize,
            task,
            debug_register(7),
            ENABLE_FIRST,
        )
    })
}

/// Whether the kernel has seccomp filters and `CONFIG_CHECKPOINT_RESTORE`, which both ptrace requests
/// about filters depend on, and the caller the right to make them.
fn seccomp_requests() -> Support {
    const SECCOMP_GET_ACTION_AVAIL: usize = 2;
    let allow = libc::SECCOMP_RET_ALLOW;
    let args = [
        SECCOMP_GET_ACTION_AVAIL,
        0,
        &raw const allow as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel reads one 32-bit number.
    let filters = unsafe { call(libc::SYS_seccomp as usize, args) };
    match filters.and(mm::map_size()) {
        Err(errno) => Support::No(Reason::Errno(errno)),
        Ok(_) => match own(proc::status::read) {
            Ok(status) if status.seccomp != 0 => {
                Support::No(Reason::Says("the caller is under seccomp itself"))
            }
            Ok(_) => cap_sys_admin(),
            Err(errno) => Support::Unknown(Reason::Errno(errno)),
        },
    }
}

pub(super) fn seccomp_suspend() -> Support {
    seccomp_requests()
}

pub(super) fn seccomp_filters() -> Support {
    seccomp_requests()
}

pub(super) fn timer_restore_ids() -> Support {
    prctl::timer_restore_ids().into()
}

pub(super) fn proc_timers() -> Support {
    own(proc::timers::read).into()
}

pub(super) fn proc_children() -> Support {
    own(|task| proc::tasks::children_of(task, task.pid())).into()
}

pub(super) fn ns_pid() -> Support {
    match own(proc::status::read) {
        Ok(status) => Support::when(!status.ns_pid.is_empty(), "no NSpid in status"),
        Err(errno) => Support::No(Reason::Errno(errno)),
    }
}

fn has_namespace(kind: proc::ns::Kind) -> Support {
    match own(|task| proc::ns::id(task, kind)) {
        Ok(id) => Support::when(id != 0, "no such link in /proc/PID/ns"),
        Err(errno) => Support::No(Reason::Errno(errno)),
    }
}

pub(super) fn userns() -> Support {
    match has_namespace(proc::ns::Kind::User) {
        Support::Yes => mm::map_size().into(),
        no => no,
    }
}

pub(super) fn cgroupns() -> Support {
    has_namespace(proc::ns::Kind::Cgroup)
}

pub(super) fn timens() -> Support {
    match has_namespace(proc::ns::Kind::Time) {
        Support::Yes => own(proc::ns::clock_offsets).into(),
        no => no,
    }
}

/// Sets the audit user to what it is.
pub(super) fn loginuid() -> Support {
    let set = || {
        let uid = own(proc::scalar::loginuid)?;
        let written = std::fs::write("/proc/self/loginuid", uid.to_string());
        written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    set().into()
}

pub(super) fn apparmor_stacking() -> Support {
    let path = "/sys/kernel/security/apparmor/features/domain/stack";
    match std::fs::read(path) {
        Ok(text) => Support::when(text.starts_with(b"yes"), "AppArmor does not stack"),
        Err(_) => Support::No(Reason::Says("AppArmor is not enabled")),
    }
}

/// The root group has no `cgroup.freeze`, so some other group has to be found.
pub(super) fn cgroup_v2_freeze() -> Support {
    let Ok(mounts) = own(proc::mountinfo::read) else {
        return Support::Unknown(Reason::Says("mountinfo cannot be read"));
    };
    let Some(mount) = mounts.iter().find(|mount| mount.fs_type == b"cgroup2") else {
        return Support::No(Reason::Says("cgroup version 2 is not mounted"));
    };
    let Ok(root) = std::str::from_utf8(&mount.mount_point).map(Path::new) else {
        return Support::Unknown(Reason::Says("the mount point is no text"));
    };
    if root.join("cgroup.freeze").exists() {
        return Support::Yes;
    }
    let Ok(groups) = std::fs::read_dir(root) else {
        return Support::Unknown(Reason::Says("the mount point cannot be listed"));
    };
    // A few are enough: all groups but the root have it.
    let mut groups = groups
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .take(4);
    match groups.next() {
        Some(group) => Support::when(group.join("cgroup.freeze").exists(), "no cgroup.freeze"),
        None => Support::Unknown(Reason::Says("there is no group but the root")),
    }
}

fn capability(number: u32, missing: &'static str) -> Support {
    match own(proc::status::read) {
        Ok(status) => Support::when(status.caps.effective >> number & 1 != 0, missing),
        Err(errno) => Support::Unknown(Reason::Errno(errno)),
    }
}

pub(super) fn cap_net_admin() -> Support {
    capability(12, "CAP_NET_ADMIN is not effective")
}

pub(super) fn cap_sys_ptrace() -> Support {
    capability(19, "CAP_SYS_PTRACE is not effective")
}

pub(super) fn cap_sys_admin() -> Support {
    capability(21, "CAP_SYS_ADMIN is not effective")
}

pub(super) fn cap_sys_resource() -> Support {
    capability(24, "CAP_SYS_RESOURCE is not effective")
}

pub(super) fn cap_checkpoint_restore() -> Support {
    capability(40, "CAP_CHECKPOINT_RESTORE is not effective")
}
