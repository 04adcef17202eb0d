//! Interrupted system calls with a timeout go on with the time that was left.
//!
//! The kernel keeps where such a call was in a place of its own, the restart block, which nobody can read or
//! write. So the thread enters its call once more, with the time left instead of the whole, and is taken out
//! at once. The kernel then fills the block, and the thread issues `restart_syscall(2)` as the kernel itself
//! would have made it do, with registers and memory as the program left them.

use gelid_image::messages::GelidRestartEntry;
use gelid_sys::arch::{NR_RESTART_SYSCALL, SYSCALL_INSN, UserRegs};
use gelid_sys::ptrace::{Running, Stopped};
use gelid_sys::signal::SIGTRAP;
use gelid_sys::syscall::nr;
use gelid_sys::vm::Mem;
use gelid_sys::wait::{Status, wait_task};
use gelid_sys::{Errno, Pid};

use super::Error;

const ERESTART_RESTARTBLOCK: i64 = -516;
const EFAULT: i64 = -14;
/// Longest time left that is believed: a century.
const LONGEST: u64 = 100 * 366 * 86400 * 1_000_000_000;

/// A call and the nanoseconds that were left of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Restart {
    nr: u64,
    remaining: u64,
    /// Behind the instruction of the call.
    behind: u64,
}

impl Restart {
    /// `regs` are those of the image, in which the call returns or is issued anew.
    pub(super) fn read(
        tid: i32,
        regs: &UserRegs,
        entry: Option<&GelidRestartEntry>,
    ) -> Result<Option<Self>, Error> {
        let Some(entry) = entry else { return Ok(None) };
        let nr = u64::from(entry.nr);
        if timeout(nr).is_none() || entry.remaining > LONGEST {
            let what = "an interrupted system call that is not known";
            let remedy = "restore with a newer gelid";
            return Err(Error::Unsupported { tid, what, remedy });
        }
        let anew = regs.rax == nr;
        let step = if anew { SYSCALL_INSN.len() as u64 } else { 0 };
        Ok(Some(Self {
            nr,
            remaining: entry.remaining,
            behind: regs.rip.wrapping_add(step),
        }))
    }

    /// Does it, and changes `regs`, those for the end, accordingly. Where the call cannot be entered, it
    /// returns or is issued anew, as the image has it.
    pub(super) fn take_up(
        &mut self,
        tid: i32,
        task: Stopped,
        regs: &mut UserRegs,
        syscall_at: u64,
        scratch: u64,
    ) -> Result<Stopped, Error> {
        let failed = |operation| {
            move |errno| Error::Thread {
                operation,
                tid,
                errno,
            }
        };
        let mut entry = UserRegs {
            rip: syscall_at,
            rax: self.nr,
            ..*regs
        };
        match timeout(self.nr) {
            Some(Timeout::Milliseconds) => {
                let milliseconds = self.remaining.div_ceil(1_000_000);
                entry.rdx = milliseconds.min(i32::MAX as u64);
            }
            Some(Timeout::At(register)) => {
                let mut time = [0; 16];
                time[..8].copy_from_slice(&(self.remaining / 1_000_000_000).to_ne_bytes());
                time[8..].copy_from_slice(&(self.remaining % 1_000_000_000).to_ne_bytes());
                *register(&mut entry) = scratch;
                Mem::open(task.pid())
                    .and_then(|mem| mem.write(scratch, &time))
                    .map_err(failed("writing a timeout"))?;
            }
            None => return Ok(task),
        }
        task.set_regs(&entry)
            .map_err(failed("setting the registers"))?;
        let task = enter_and_leave(tid, task)?;
        let left = task.regs().map_err(failed("reading the registers"))?;
        match left.syscall_result() {
            EFAULT => {}
            ERESTART_RESTARTBLOCK => {
                regs.rip = self.behind.wrapping_sub(SYSCALL_INSN.len() as u64);
                regs.rax = NR_RESTART_SYSCALL;
            }
            // It was over already.
            _ => {
                regs.rip = self.behind;
                regs.rax = left.rax;
            }
        }
        Ok(task)
    }
}

/// How a call is told its relative timeout.
enum Timeout {
    /// As the third argument.
    Milliseconds,
    /// As a `timespec` in memory.
    At(fn(&mut UserRegs) -> &mut u64),
}

/// The calls that leave a restart block when they wait for a time that is relative.
fn timeout(number: u64) -> Option<Timeout> {
    match number as usize {
        nr::poll => Some(Timeout::Milliseconds),
        nr::nanosleep => Some(Timeout::At(|regs| &mut regs.rdi)),
        nr::clock_nanosleep => Some(Timeout::At(|regs| &mut regs.rdx)),
        nr::futex => Some(Timeout::At(|regs| &mut regs.r10)),
        _ => None,
    }
}

/// Lets the thread run into the call, which finds a request to stop and gives way to it.
fn enter_and_leave(tid: i32, task: Stopped) -> Result<Stopped, Error> {
    let failed = |operation| {
        move |errno| Error::Thread {
            operation,
            tid,
            errno,
        }
    };
    let pid = task.pid();
    let running = task.cont_to_syscall().map_err(failed("continuing"))?;
    let at_entry = |status| matches!(status, Status::SyscallStop | Status::SignalStop(SIGTRAP));
    let task = await_stop(tid, pid, running, at_entry)?;
    task.interrupt().map_err(failed("interrupting"))?;
    let running = task.cont(0).map_err(failed("continuing"))?;
    await_stop(tid, pid, running, |status| {
        matches!(status, Status::EventStop(_))
    })
}

fn await_stop(
    tid: i32,
    pid: Pid,
    running: Running,
    expected: impl Fn(Status) -> bool,
) -> Result<Stopped, Error> {
    let operation = "taking up a system call";
    let failed = move |errno| Error::Thread {
        operation,
        tid,
        errno,
    };
    match wait_task(pid).map_err(failed)? {
        status if expected(status) => Ok(running.stopped()),
        status if status.is_dead() => Err(failed(Errno::SRCH)),
        _ => Err(failed(Errno::INTR)),
    }
}
