//! What ptrace tells of a thread's system calls: the one it is in, and whether they are diverted.

use std::ops::Range;

use super::{Stopped, ptrace};
use rustix::io::{Errno, Result};

const GET_SYSCALL_INFO: u32 = 0x420e;
const SET_SYSCALL_USER_DISPATCH_CONFIG: u32 = 0x4210;
const GET_SYSCALL_USER_DISPATCH_CONFIG: u32 = 0x4211;

const OP_NONE: u8 = 0;
const OP_ENTRY: u8 = 1;
const OP_EXIT: u8 = 2;
const OP_SECCOMP: u8 = 3;

/// `struct ptrace_syscall_info`, the union as words.
#[repr(C)]
#[derive(Default)]
struct Raw {
    op: u8,
    reserved: u8,
    flags: u16,
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    union: [u64; 8],
}

const _: () = assert!(size_of::<Raw>() == 88);

#[cfg(test)]
crate::layout::same!(whole Raw, linux_raw_sys::ptrace::ptrace_syscall_info {
    op = op, reserved = reserved, flags = flags, arch = arch,
    instruction_pointer = instruction_pointer, stack_pointer = stack_pointer,
    union = __bindgen_anon_1,
});

/// Where a thread stands between the program and a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Not in a system call stop.
    None,
    /// About to enter the call.
    Entry {
        /// Number of the call.
        nr: u64,
        /// Its arguments.
        args: [u64; 6],
    },
    /// About to return from it.
    Exit {
        /// What it returns: the errno, negative, on failure.
        value: i64,
        /// Whether it has failed.
        failed: bool,
    },
    /// Stopped by a seccomp filter on the way in.
    Seccomp {
        /// Number of the call.
        nr: u64,
        /// Its arguments.
        args: [u64; 6],
        /// The filter's data.
        data: u32,
    },
}

/// The system call of a stopped thread, whatever the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallInfo {
    /// `AUDIT_ARCH_*` of the thread's mode: tells 32-bit calls from others.
    pub arch: u32,
    /// Address of the next instruction.
    pub instruction_pointer: u64,
    /// Stack pointer.
    pub stack_pointer: u64,
    /// What the thread is about to do.
    pub call: Call,
}

/// `struct ptrace_sud_config`: calls of the thread are turned into `SIGSYS` (`PR_SET_SYSCALL_USER_DISPATCH`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dispatch {
    /// 0 if they are not.
    pub mode: u64,
    /// Address of the byte that switches it, or 0.
    pub selector: u64,
    /// Start of the code whose calls pass.
    pub offset: u64,
    /// Bytes of that code.
    pub len: u64,
}

const _: () = assert!(size_of::<Dispatch>() == 32);

/// `PR_SYS_DISPATCH_ON`: of all code but that in a range.
const ON: u64 = 1;
/// `PR_SYS_DISPATCH_INCLUSIVE_ON`: of the code in a range. The kernel tells it as the first, with a range that has all else.
const INCLUSIVE_ON: u64 = 2;

impl Dispatch {
    /// Whether the calls of `code` pass whatever the byte says.
    #[must_use]
    pub fn passes(&self, code: &Range<u64>) -> bool {
        let passes = |at: u64| at.wrapping_sub(self.offset) < self.len;
        self.mode == 0 || passes(code.start) && passes(code.end.wrapping_sub(1))
    }

    /// As it is set: a range that has all but another one is set by that.
    fn to_set(self) -> Self {
        let end = self.offset.wrapping_add(self.len);
        match self.mode == ON && self.len > 0 && end < self.offset {
            true => Self {
                mode: INCLUSIVE_ON,
                offset: end,
                len: self.len.wrapping_neg(),
                ..self
            },
            false => self,
        }
    }
}

#[cfg(test)]
crate::layout::same!(whole Dispatch, linux_raw_sys::ptrace::ptrace_sud_config {
    mode, selector, offset, len,
});

impl Stopped {
    /// The system call that the thread is in (`PTRACE_GET_SYSCALL_INFO`).
    ///
    /// # Errors
    ///
    /// `EIO` before Linux 5.3; `ESRCH` if the task has been killed.
    pub fn syscall_info(&self) -> Result<SyscallInfo> {
        let mut raw = Raw::default();
        let size = size_of::<Raw>();
        // SAFETY: the kernel writes at most `size` bytes to `raw`, which takes any bytes.
        unsafe { ptrace(GET_SYSCALL_INFO, self.pid, size, (&raw mut raw) as usize) }?;
        let words = raw.union;
        let args = [words[1], words[2], words[3], words[4], words[5], words[6]];
        let call = match raw.op {
            OP_NONE => Call::None,
            OP_ENTRY => Call::Entry { nr: words[0], args },
            OP_EXIT => Call::Exit {
                value: words[0] as i64,
                failed: words[1] as u8 != 0,
            },
            OP_SECCOMP => Call::Seccomp {
                nr: words[0],
                args,
                data: words[7] as u32,
            },
            _ => return Err(Errno::IO),
        };
        Ok(SyscallInfo {
            arch: raw.arch,
            instruction_pointer: raw.instruction_pointer,
            stack_pointer: raw.stack_pointer,
            call,
        })
    }

    /// Whether the thread's system calls are diverted, and how.
    ///
    /// # Errors
    ///
    /// `EIO` before Linux 6.4; `ESRCH` if the task has been killed.
    pub fn dispatch(&self) -> Result<Dispatch> {
        let mut config = Dispatch::default();
        let size = size_of::<Dispatch>();
        let to = (&raw mut config) as usize;
        // SAFETY: the kernel writes `size` bytes to `config`.
        unsafe { ptrace(GET_SYSCALL_USER_DISPATCH_CONFIG, self.pid, size, to) }?;
        Ok(config)
    }

    /// Diverts the thread's system calls as [`dispatch`](Self::dispatch) tells of a thread.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a range that cannot be, `EIO` before Linux 6.4; `ESRCH` if the task has been killed.
    pub fn set_dispatch(&self, dispatch: Dispatch) -> Result<()> {
        let config = dispatch.to_set();
        let size = size_of::<Dispatch>();
        let from = (&raw const config) as usize;
        // SAFETY: the kernel reads `size` bytes of `config`.
        unsafe { ptrace(SET_SYSCALL_USER_DISPATCH_CONFIG, self.pid, size, from) }.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone::fork_sleeper;
    use crate::ptrace::{Options, seize};
    use crate::syscall::nr;
    use crate::wait::{Status, wait_task};

    #[test]
    fn a_call_is_seen_on_its_way_in_and_out() {
        let pid = fork_sleeper(None, false).unwrap();
        // On its way out of the call that made it, it would go on as its parent.
        let stat = format!("/proc/{pid}/stat");
        while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
        let running = seize(pid, Options::TRACESYSGOOD | Options::EXITKILL).unwrap();
        running.interrupt().unwrap();
        assert!(matches!(wait_task(pid), Ok(Status::EventStop(_))));
        let mut task = running.stopped();
        assert_eq!(task.syscall_info().unwrap().call, Call::None);
        assert_eq!(task.dispatch(), Ok(Dispatch::default()));
        // Of all code but that in a range, and of that alone.
        for (offset, len) in [(0x2_0000, 0x100), (0x2_0100, 0x100_u64.wrapping_neg())] {
            let (mode, selector) = (ON, 0x5000);
            let set = Dispatch {
                mode,
                selector,
                offset,
                len,
            };
            match task.set_dispatch(set) {
                // An older kernel.
                Err(Errno::INVAL) if len > 0x100 => {}
                done => done.unwrap(),
            }
            let told = task.dispatch().unwrap();
            assert!(told == set || len > 0x100, "{told:?}");
            assert_eq!(set.passes(&(0x2_0000..0x2_0100)), len == 0x100);
            assert_eq!(set.passes(&(0x2_0100..0x2_0200)), len > 0x100);
        }
        task.set_dispatch(Dispatch::default()).unwrap();
        let regs = task.regs().unwrap();
        let at = regs.rip - crate::arch::SYSCALL_INSN.len() as u64;
        let calls = [nr::close, nr::getpid].map(|nr| {
            let args = [12345, 2, 3, 4, 5, 6];
            task.set_regs(&regs.for_syscall(at, nr, args)).unwrap();
            let stop = |task: Stopped| {
                let running = task.cont_to_syscall().unwrap();
                assert_eq!(wait_task(pid), Ok(Status::SyscallStop));
                running.stopped()
            };
            let entered = stop(std::mem::replace(&mut task, Stopped { pid }));
            let nr = nr as u64;
            assert_eq!(
                entered.syscall_info().unwrap().call,
                Call::Entry { nr, args }
            );
            let left = stop(entered);
            left.syscall_info().unwrap().call
        });
        let failed = Call::Exit {
            value: -i64::from(libc::EBADF),
            failed: true,
        };
        let done = Call::Exit {
            value: i64::from(pid.as_raw_nonzero().get()),
            failed: false,
        };
        assert_eq!(calls, [failed, done]);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        while !wait_task(pid).unwrap().is_dead() {}
    }
}
