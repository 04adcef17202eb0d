//! System calls that any stop ends go on after the thaw.
//!
//! A few calls return `EINTR` when their thread has been stopped, even if no handler of a signal is to run
//! (`signal(7)`). To the program that would be a trace of the freeze, so the thread issues the call again.

use gelid_sys::Pid;
use gelid_sys::arch::UserRegs;
use gelid_sys::proc::{TaskDir, status};
use gelid_sys::ptrace::Stopped;

const EINTR: i64 = -4;

/// Has a stopped thread issue its call again, if the call has ended only because of the stop.
pub(crate) fn waiting(task: &Stopped) {
    // Whatever cannot be read or written here: the call returns EINTR then, as after any stop.
    let Ok(regs) = task.regs() else { return };
    let ended = |number: &u64| regs.syscall_result() == EINTR && regs.is_ended_by_stops(*number);
    let Some(number) = regs.syscall_nr().filter(ended) else {
        return;
    };
    if regs.is_native() && !handles_a_signal(task.pid()) {
        let _ = task.set_regs(&UserRegs::again(&regs, number));
    }
}

/// Whether a signal waits for which the thread will run a handler.
fn handles_a_signal(tid: Pid) -> bool {
    let status = TaskDir::open(tid).and_then(|dir| status::read(&dir));
    status.map_or(true, |status| {
        let waits = status.sig_pending | status.shared_pending;
        waits & !status.sig_blocked & status.sig_caught != 0
    })
}
