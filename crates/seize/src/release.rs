//! Letting go of seized tasks, whatever state they are in.

use std::time::{Duration, Instant};

use gelid_sys::ptrace::{Running, Stopped};
use gelid_sys::wait::{self, Status, Whom};
use gelid_sys::{Errno, Pid};

use crate::backoff::Backoff;
use crate::{ThawError, scan};

/// How long a task that runs may take to stop, so that it can be detached.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Detaches `stopped`, then stops and detaches `running`, and reaps what has been killed meanwhile.
/// Goes on after an error and returns the first.
pub(crate) fn release(
    stopped: impl IntoIterator<Item = Stopped>,
    running: impl IntoIterator<Item = Running>,
) -> Result<(), ThawError> {
    let mut first = Ok(());
    let mut awaited: Vec<Running> = Vec::new();
    for task in running {
        // A task that has gone is found out below.
        let _ = task.interrupt();
        awaited.push(task);
    }
    for task in stopped {
        let tid = task.pid();
        match task.detach(0) {
            Ok(()) => {}
            // Killed, or moved by an execve, since it stopped: the wait tells.
            Err(Errno::SRCH) => awaited.push(Running::attached(tid)),
            Err(errno) => {
                first = first.and(Err(ThawError::Ptrace {
                    operation: "PTRACE_DETACH",
                    tid,
                    errno,
                }))
            }
        }
    }
    first.and(detach_as_they_stop(awaited))
}

fn detach_as_they_stop(mut awaited: Vec<Running>) -> Result<(), ThawError> {
    let end = Instant::now() + PATIENCE;
    let mut backoff = Backoff::new();
    loop {
        let before = awaited.len();
        awaited.retain(|task| !is_let_go(task.pid()));
        let Some(task) = awaited.first() else {
            return Ok(());
        };
        if Instant::now() > end {
            let (tid, others) = (task.pid(), awaited.len() - 1);
            tracing::warn!(%tid, others, "tasks could not be detached");
            return Err(ThawError::Straggler {
                tid,
                comm: scan::comm(tid),
                others,
            });
        }
        if awaited.len() < before {
            backoff.reset();
        }
        backoff.pause();
    }
}

/// Detaches `tid` if it has stopped by now; true also if it is gone.
fn is_let_go(tid: Pid) -> bool {
    let status = match wait::wait(Whom::Task(tid), false) {
        Ok(Some((_, status))) => status,
        // A child of the caller that is no tracee any more would be waited for in vain.
        Ok(None) => return Running::attached(tid).interrupt() == Err(Errno::SRCH),
        Err(_) => return true,
    };
    let signal = match status {
        status if status.is_dead() => return true,
        Status::SignalStop(signal) => signal,
        _ => 0,
    };
    // ESRCH: killed in this moment; the next wait reaps it.
    Running::attached(tid).stopped().detach(signal) != Err(Errno::SRCH)
}
