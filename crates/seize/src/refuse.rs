//! Trees and tasks that are not frozen, and the reasons.

use gelid_sys::{Errno, Pid, pidfd, proc};

use crate::{Error, scan};

/// `PF_KTHREAD` of `linux/sched.h`.
const PF_KTHREAD: u32 = 0x0020_0000;

/// A process that can be the root of a tree to be frozen, as far as that was told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked(Pid);

impl Checked {
    /// Whether it is that one.
    pub(crate) fn is(self, root: Pid) -> bool {
        self.0 == root
    }
}

/// Refuses a root of which it can be told before anything is touched that it cannot be frozen.
///
/// # Errors
///
/// Why not.
pub fn check_root(root: Pid) -> Result<Checked, Error> {
    let stat = scan::stat(root)?.ok_or(Error::Gone { pid: root })?;
    if stat.flags & PF_KTHREAD != 0 {
        return Err(Error::KernelThread {
            pid: root,
            comm: scan::comm(root),
        });
    }
    if stat.state.is_dead() && stat.num_threads <= 1 {
        return Err(Error::RootIsZombie {
            pid: root,
            comm: scan::comm(root),
        });
    }
    // That this can be opened says that it is a process.
    if pidfd::open(root).is_err() {
        let status = scan::status(root)?.ok_or(Error::Gone { pid: root })?;
        if status.tgid != root.as_raw_pid() {
            return Err(Error::NotAProcess {
                tid: root,
                pid: status.tgid,
            });
        }
    }
    not_our_ancestor(root, stat.num_threads)?;
    Ok(Checked(root))
}

/// The caller is in the tree of `root` if `root` is itself or one of its ancestors.
fn not_our_ancestor(root: Pid, threads: i64) -> Result<(), Error> {
    let own = rustix::process::getpid();
    // Three calls for each ancestor can be spared.
    let is_childless = root != own && threads == 1 && scan::is_childless(root);
    let mut next = (!is_childless).then_some(own);
    while let Some(pid) = next {
        if pid == root {
            return Err(Error::ContainsSelf {
                root,
                comm: scan::comm(root),
                own,
            });
        }
        next = parent(pid)?;
    }
    Ok(())
}

/// The parent of a process, `None` if it is not seen or the process is gone.
fn parent(pid: Pid) -> Result<Option<Pid>, Error> {
    let identity = pidfd::open(pid).and_then(pidfd::identity);
    let ppid = match identity {
        Ok(identity) => Some(identity.ppid),
        // `stat` costs ten times as much.
        Err(_) => scan::stat(pid)?.map(|stat| stat.ppid),
    };
    Ok(ppid.and_then(Pid::from_raw))
}

/// What a task is that the kernel refused to seize.
pub(crate) enum Refused {
    /// It has gone, or is about to be.
    Gone,
    /// It has ended; this is how many threads its process still lists, itself among them.
    Zombie(i64),
    /// The caller has no right to trace it; or it was in the middle of a change, which is over.
    Denied,
    /// The caller traces it already: it has taken over the id of a thread that was seized.
    Ours,
}

/// Finds out why `PTRACE_SEIZE` of `tid` failed with `errno`.
pub(crate) fn why(tid: Pid, errno: Errno) -> Result<Refused, Error> {
    if errno == Errno::SRCH {
        return Ok(Refused::Gone);
    }
    let Some(stat) = scan::stat(tid)? else {
        return Ok(Refused::Gone);
    };
    match stat.state {
        proc::stat::State::Zombie => return Ok(Refused::Zombie(stat.num_threads)),
        proc::stat::State::Dead => return Ok(Refused::Gone),
        _ => {}
    }
    let Some(status) = scan::status(tid)? else {
        return Ok(Refused::Gone);
    };
    if status.tracer_pid == rustix::thread::gettid().as_raw_pid() {
        return Ok(Refused::Ours);
    }
    if status.tracer_pid != 0 {
        let tracer_comm = scan::word(status.tracer_pid, "comm");
        return Err(Error::Traced {
            tid,
            comm: scan::comm(tid),
            tracer: status.tracer_pid,
            tracer_comm,
        });
    }
    if stat.flags & PF_KTHREAD != 0 {
        return Err(Error::KernelThread {
            pid: tid,
            comm: scan::comm(tid),
        });
    }
    Ok(Refused::Denied)
}
