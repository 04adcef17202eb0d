//! Waiting for the next report of one task.

use gelid_sys::proc::{self, TaskDir};
use gelid_sys::wait::{Status, Whom, wait, wait_task};
use gelid_sys::{Errno, Pid};
use std::time::{Duration, Instant};

/// Nearly all tapes end within this time: until then the processor is only yielded. The shortest sleep, and the look
/// whether the task has ended, take longer than most tapes.
const YIELD: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(1);

/// Waits for the next stop or the end of a task. `ESRCH` if it is the first thread of a process, `leads`,
/// and has ended: the kernel reports that only after the end of all other threads, which may be tracees
/// of the caller that nobody else waits for.
pub(crate) fn report(tid: Pid, leads: bool) -> Result<Status, Errno> {
    let since = Instant::now();
    let mut pause = Duration::from_micros(20);
    loop {
        if let Some(status) = poll(tid)? {
            return Ok(status);
        }
        if since.elapsed() < YIELD {
            std::thread::yield_now();
        } else if !leads {
            return wait_task(tid);
        } else if has_ended(tid) {
            // It may have ended between the two looks, and be reported now.
            return poll(tid)?.ok_or(Errno::SRCH);
        } else {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST);
        }
    }
}

fn poll(tid: Pid) -> Result<Option<Status>, Errno> {
    Ok(wait(Whom::Task(tid), false)?.map(|(_, status)| status))
}

fn has_ended(tid: Pid) -> bool {
    let stat = TaskDir::open(tid).and_then(|task| proc::stat::read(&task));
    stat.map_or_else(|error| error.is_gone(), |stat| stat.state.is_dead())
}
