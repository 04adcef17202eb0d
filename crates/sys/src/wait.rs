//! `wait4(2)` with the flags and the status bits of tracing.

use crate::{Pid, syscall};
use rustix::io::{Errno, Result};

/// What `wait4(2)` reported of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The task ended with `exit(code)`.
    Exited(i32),
    /// The task was killed by a signal; true if it dumped core.
    Signaled(i32, bool),
    /// A signal is about to be delivered to a traced task (signal-delivery-stop).
    SignalStop(i32),
    /// System call entry or exit, seen with `PTRACE_O_TRACESYSGOOD`.
    SyscallStop,
    /// `PTRACE_EVENT_STOP`: the stop asked for by `PTRACE_INTERRUPT` or a new task's first stop
    /// (signal `SIGTRAP`), or a group-stop (the stopping signal).
    EventStop(i32),
    /// Another `PTRACE_EVENT_*`, by its number.
    Event(i32),
    /// A stopped child went on.
    Continued,
}

impl Status {
    /// Decodes the status word of `wait4(2)`.
    #[must_use]
    pub fn from_raw(raw: i32) -> Self {
        if libc::WIFEXITED(raw) {
            return Self::Exited(libc::WEXITSTATUS(raw));
        }
        if libc::WIFSIGNALED(raw) {
            return Self::Signaled(libc::WTERMSIG(raw), libc::WCOREDUMP(raw));
        }
        if libc::WIFCONTINUED(raw) {
            return Self::Continued;
        }
        let signal = libc::WSTOPSIG(raw);
        match raw >> 16 {
            0 if signal == libc::SIGTRAP | 0x80 => Self::SyscallStop,
            0 => Self::SignalStop(signal),
            libc::PTRACE_EVENT_STOP => Self::EventStop(signal),
            event => Self::Event(event),
        }
    }

    /// True if the task is gone.
    #[must_use]
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Exited(_) | Self::Signaled(..))
    }
}

/// Whom to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Any child or tracee of the caller.
    Any,
    /// Any child or tracee of the calling thread.
    OfThread,
    /// This task.
    Task(Pid),
}

/// Waits for a state change of any kind of child or tracee (`__WALL`); returns the task and its raw
/// status. With `block` false an unchanged task gives `None`.
///
/// # Errors
///
/// As `wait4(2)`: `ECHILD` if there is nothing to wait for. `EINTR` is retried.
pub fn wait(whom: Whom, block: bool) -> Result<Option<(Pid, Status)>> {
    let pid = match whom {
        Whom::Any | Whom::OfThread => -1,
        Whom::Task(pid) => pid.as_raw_nonzero().get(),
    };
    let own = match whom {
        Whom::OfThread => libc::__WNOTHREAD,
        Whom::Any | Whom::Task(_) => 0,
    };
    let options = libc::__WALL | own | if block { 0 } else { libc::WNOHANG };
    loop {
        let mut raw = 0_i32;
        // SAFETY: `raw` outlives the call; the usage pointer is null.
        let got = unsafe {
            syscall::call(
                libc::SYS_wait4 as usize,
                [
                    pid as usize,
                    (&raw mut raw) as usize,
                    options as usize,
                    0,
                    0,
                    0,
                ],
            )
        };
        match got {
            Ok(got) => return Ok(Pid::from_raw(got as i32).map(|pid| (pid, Status::from_raw(raw)))),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits, blocking, for one task (`__WALL`).
///
/// # Errors
///
/// As [`wait`].
pub fn wait_task(pid: Pid) -> Result<Status> {
    match wait(Whom::Task(pid), true)? {
        Some((_, status)) => Ok(status),
        None => Err(Errno::CHILD),
    }
}
