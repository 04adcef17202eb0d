//! `ptrace(2)`, with the state of the tracee in its type.
//!
//! [`Running`] is a seized task that runs (or whose stop has not been waited for yet); [`Stopped`] is
//! one in a ptrace stop. Each change consumes the one and gives the other, so registers and masks can
//! only be asked of a task that stands still. Nothing here waits: see [`crate::wait`].
//!
//! Dropping either value does nothing: the kernel detaches from all tracees when the tracing thread
//! ends, and until then the owner of these values decides.

mod seccomp;
mod syscall;

pub use seccomp::SockFilter;
pub use syscall::{Call, Dispatch, SyscallInfo};

use crate::Pid;
use crate::arch::{NT_PRSTATUS, UserRegs};
use crate::signal::{SigInfo, SigSet};
use bitflags::bitflags;
use rustix::io::{Errno, Result};

bitflags! {
    /// `PTRACE_O_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Options: u32 {
        /// Mark system call stops with bit 7 of the signal.
        const TRACESYSGOOD = 0x0000_0001;
        /// Stop at `fork` and trace the child.
        const TRACEFORK = 0x0000_0002;
        /// Stop at `vfork` and trace the child.
        const TRACEVFORK = 0x0000_0004;
        /// Stop at `clone` and trace the child.
        const TRACECLONE = 0x0000_0008;
        /// Stop after `execve`.
        const TRACEEXEC = 0x0000_0010;
        /// Stop at exit.
        const TRACEEXIT = 0x0000_0040;
        /// Kill the tracee when the tracer ends.
        const EXITKILL = 0x0010_0000;
        /// Let system calls through the tracee's seccomp filters; needs `CAP_SYS_ADMIN`.
        const SUSPEND_SECCOMP = 0x0020_0000;
    }
}

/// `struct ptrace_rseq_configuration`: a thread's rseq registration.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RseqConfiguration {
    /// Address of the registered `struct rseq`; 0 if none is.
    pub rseq_abi_pointer: u64,
    /// Bytes registered.
    pub rseq_abi_size: u32,
    /// Signature that precedes an abort handler.
    pub signature: u32,
    /// Flags, 0 so far.
    pub flags: u32,
    /// Padding.
    pub pad: u32,
}

const _: () = assert!(size_of::<RseqConfiguration>() == 24);

#[cfg(test)]
crate::layout::same!(whole RseqConfiguration, linux_raw_sys::ptrace::ptrace_rseq_configuration {
    rseq_abi_pointer, rseq_abi_size, signature, flags, pad,
});

const SEIZE: u32 = 0x4206;
const INTERRUPT: u32 = 0x4207;
const LISTEN: u32 = 0x4208;
const PEEKSIGINFO: u32 = 0x4209;
const GETSIGMASK: u32 = 0x420a;
const SETSIGMASK: u32 = 0x420b;
const GET_RSEQ_CONFIGURATION: u32 = 0x420f;
const GETSIGINFO: u32 = 0x4202;
const SETSIGINFO: u32 = 0x4203;
const SETOPTIONS: u32 = 0x4200;
const GETREGSET: u32 = 0x4204;
const SETREGSET: u32 = 0x4205;
const CONT: u32 = 7;
const SYSCALL: u32 = 24;
const DETACH: u32 = 17;
const PEEKSIGINFO_SHARED: u32 = 1;

/// # Safety
///
/// `data` and `addr` must be valid for `request`.
unsafe fn ptrace(request: u32, pid: Pid, addr: usize, data: usize) -> Result<usize> {
    let pid = pid.as_raw_nonzero().get() as usize;
    // SAFETY: the caller vouches for the arguments.
    unsafe {
        crate::syscall::call(
            libc::SYS_ptrace as usize,
            [request as usize, pid, addr, data, 0, 0],
        )
    }
}

/// A seized task that is not known to stand still.
#[derive(Debug, PartialEq, Eq)]
pub struct Running {
    pid: Pid,
}

/// A seized task in a ptrace stop.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped {
    pid: Pid,
}

/// Attaches to one thread without stopping it (`PTRACE_SEIZE`).
///
/// # Errors
///
/// `EPERM` without the right to trace it, or if it is traced already; `ESRCH` if it is gone or a zombie.
pub fn seize(pid: Pid, options: Options) -> Result<Running> {
    // SAFETY: no pointers.
    unsafe { ptrace(SEIZE, pid, 0, options.bits() as usize) }?;
    Ok(Running { pid })
}

impl Running {
    /// A task that is the caller's tracee by other means: its parent was traced when it was cloned
    /// (`CLONE_PTRACE` and the `PTRACE_O_TRACE*` options).
    #[must_use]
    pub fn attached(pid: Pid) -> Self {
        Self { pid }
    }

    /// The thread's id as seen by the tracer.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Asks for a stop (`PTRACE_INTERRUPT`); the wait reports it as an event stop, unless another
    /// stop comes first.
    ///
    /// # Errors
    ///
    /// `ESRCH` if the task is gone.
    pub fn interrupt(&self) -> Result<()> {
        // SAFETY: no pointers.
        unsafe { ptrace(INTERRUPT, self.pid, 0, 0) }.map(drop)
    }

    /// The same task, of which a wait has reported a stop. Were it not stopped, every call on the
    /// result would fail with `ESRCH`.
    #[must_use]
    pub fn stopped(self) -> Stopped {
        Stopped { pid: self.pid }
    }
}

impl Stopped {
    /// The thread's id as seen by the tracer.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// General registers (`NT_PRSTATUS`).
    ///
    /// # Errors
    ///
    /// `ESRCH` if the task has been killed; `EIO` for a 32-bit task, whose set has another size.
    pub fn regs(&self) -> Result<UserRegs> {
        let mut regs = UserRegs::default();
        let want = size_of::<UserRegs>();
        let mut iov = libc::iovec {
            iov_base: (&raw mut regs).cast(),
            iov_len: want,
        };
        // SAFETY: the vector describes `regs`, which outlives the call and takes any bytes.
        unsafe {
            ptrace(
                GETREGSET,
                self.pid,
                NT_PRSTATUS as usize,
                (&raw mut iov) as usize,
            )
        }?;
        if iov.iov_len == want {
            Ok(regs)
        } else {
            Err(Errno::IO)
        }
    }

    /// Sets the general registers.
    ///
    /// # Errors
    ///
    /// `ESRCH` if the task has been killed; `EIO` for values the kernel refuses (segments, bases).
    pub fn set_regs(&self, regs: &UserRegs) -> Result<()> {
        let iov = libc::iovec {
            iov_base: std::ptr::from_ref(regs).cast_mut().cast(),
            iov_len: size_of::<UserRegs>(),
        };
        // SAFETY: the vector describes `regs`, which is only read.
        unsafe {
            ptrace(
                SETREGSET,
                self.pid,
                NT_PRSTATUS as usize,
                (&raw const iov) as usize,
            )
        }
        .map(drop)
    }

    /// Reads the register set `note` (an `NT_*` number) into `buf`, which is resized to what the kernel
    /// has; its capacity bounds what is asked for, 64 KiB if it has none.
    ///
    /// # Errors
    ///
    /// `ENODEV` or `EINVAL` if the machine has no such set; `ESRCH` if the task has been killed.
    pub fn regset(&self, note: u32, buf: &mut Vec<u8>) -> Result<()> {
        let room = if buf.capacity() == 0 {
            65536
        } else {
            buf.capacity()
        };
        buf.resize(room, 0);
        let mut iov = libc::iovec {
            iov_base: buf.as_mut_ptr().cast(),
            iov_len: buf.len(),
        };
        // SAFETY: the vector describes `buf`, which outlives the call.
        unsafe { ptrace(GETREGSET, self.pid, note as usize, (&raw mut iov) as usize) }?;
        buf.truncate(iov.iov_len);
        Ok(())
    }

    /// Sets the register set `note`.
    ///
    /// # Errors
    ///
    /// `EINVAL` or `EFAULT` if the kernel refuses the contents; `ESRCH` if the task has been killed.
    pub fn set_regset(&self, note: u32, data: &[u8]) -> Result<()> {
        let iov = libc::iovec {
            iov_base: data.as_ptr().cast_mut().cast(),
            iov_len: data.len(),
        };
        // SAFETY: the vector describes `data`, which is only read.
        unsafe {
            ptrace(
                SETREGSET,
                self.pid,
                note as usize,
                (&raw const iov) as usize,
            )
        }
        .map(drop)
    }

    /// The mask of blocked signals (`PTRACE_GETSIGMASK`).
    ///
    /// # Errors
    ///
    /// `ESRCH` if the task has been killed.
    pub fn sigmask(&self) -> Result<SigSet> {
        let mut set = 0_u64;
        // SAFETY: the kernel writes eight bytes to `set`.
        unsafe { ptrace(GETSIGMASK, self.pid, 8, (&raw mut set) as usize) }?;
        Ok(SigSet(set))
    }

    /// Sets the mask of blocked signals (`PTRACE_SETSIGMASK`).
    ///
    /// # Errors
    ///
    /// `ESRCH` if the task has been killed.
    pub fn set_sigmask(&self, set: SigSet) -> Result<()> {
        // SAFETY: the kernel reads eight bytes from `set`.
        unsafe { ptrace(SETSIGMASK, self.pid, 8, (&raw const set.0) as usize) }.map(drop)
    }

    /// The siginfo of the current stop (`PTRACE_GETSIGINFO`).
    ///
    /// # Errors
    ///
    /// `EINVAL` in a group-stop; `ESRCH` if the task has been killed.
    pub fn siginfo(&self) -> Result<SigInfo> {
        let mut info = SigInfo::default();
        // SAFETY: the kernel writes one siginfo, 128 bytes.
        unsafe { ptrace(GETSIGINFO, self.pid, 0, (&raw mut info) as usize) }?;
        Ok(info)
    }

    /// Changes the siginfo with which the signal of a signal-delivery-stop will be delivered
    /// (`PTRACE_SETSIGINFO`).
    ///
    /// # Errors
    ///
    /// `EINVAL` in another stop; `ESRCH` if the task has been killed.
    pub fn set_siginfo(&self, info: &SigInfo) -> Result<()> {
        let info = std::ptr::from_ref(info);
        // SAFETY: the kernel reads one siginfo, 128 bytes.
        unsafe { ptrace(SETSIGINFO, self.pid, 0, info as usize) }.map(drop)
    }

    /// All pending signals, oldest first: those of the process if `shared`, else of this thread
    /// (`PTRACE_PEEKSIGINFO`).
    ///
    /// # Errors
    ///
    /// `ESRCH` if the task has been killed.
    pub fn pending(&self, shared: bool) -> Result<Vec<SigInfo>> {
        #[repr(C)]
        struct Args {
            off: u64,
            flags: u32,
            nr: i32,
        }
        const BATCH: usize = 32;
        let mut all = Vec::new();
        loop {
            let mut batch = [SigInfo::default(); BATCH];
            let args = Args {
                off: all.len() as u64,
                flags: if shared { PEEKSIGINFO_SHARED } else { 0 },
                nr: BATCH as i32,
            };
            // SAFETY: the kernel reads `args` and writes at most `nr` entries to `batch`.
            let got = unsafe {
                ptrace(
                    PEEKSIGINFO,
                    self.pid,
                    (&raw const args) as usize,
                    (&raw mut batch) as usize,
                )
            }?;
            all.extend_from_slice(&batch[..got.min(BATCH)]);
            if got < BATCH {
                return Ok(all);
            }
        }
    }

    /// The rseq registration of the thread.
    ///
    /// # Errors
    ///
    /// `EIO` if the kernel cannot tell (before 5.13, or built without rseq).
    pub fn rseq(&self) -> Result<RseqConfiguration> {
        let mut conf = RseqConfiguration::default();
        let size = size_of::<RseqConfiguration>();
        // SAFETY: the kernel writes at most `size` bytes to `conf`.
        unsafe {
            ptrace(
                GET_RSEQ_CONFIGURATION,
                self.pid,
                size,
                (&raw mut conf) as usize,
            )
        }?;
        Ok(conf)
    }

    /// Replaces the options given to [`seize`].
    ///
    /// # Errors
    ///
    /// `EPERM` for `SUSPEND_SECCOMP` without `CAP_SYS_ADMIN`.
    pub fn set_options(&self, options: Options) -> Result<()> {
        // SAFETY: no pointers.
        unsafe { ptrace(SETOPTIONS, self.pid, 0, options.bits() as usize) }.map(drop)
    }

    /// Asks for an event stop as soon as the task is let run (`PTRACE_INTERRUPT`).
    ///
    /// # Errors
    ///
    /// `ESRCH` if the task has been killed.
    pub fn interrupt(&self) -> Result<()> {
        // SAFETY: no pointers.
        unsafe { ptrace(INTERRUPT, self.pid, 0, 0) }.map(drop)
    }

    /// Lets the task run, delivering `signal` (0 for none; only meaningful in a signal-delivery-stop).
    ///
    /// # Errors
    ///
    /// The task and the errno, `ESRCH` if it has been killed.
    pub fn cont(self, signal: i32) -> Result<Running> {
        // SAFETY: no pointers.
        unsafe { ptrace(CONT, self.pid, 0, signal as usize) }?;
        Ok(Running { pid: self.pid })
    }

    /// Lets the task run to the next entry to or exit from a system call.
    ///
    /// # Errors
    ///
    /// As [`cont`](Self::cont).
    pub fn cont_to_syscall(self) -> Result<Running> {
        // SAFETY: no pointers.
        unsafe { ptrace(SYSCALL, self.pid, 0, 0) }?;
        Ok(Running { pid: self.pid })
    }

    /// Leaves a task in group-stop stopped, but lets it notice a `SIGCONT` (`PTRACE_LISTEN`).
    ///
    /// # Errors
    ///
    /// `EIO` if it is not in a group-stop.
    pub fn listen(self) -> Result<Running> {
        // SAFETY: no pointers.
        unsafe { ptrace(LISTEN, self.pid, 0, 0) }?;
        Ok(Running { pid: self.pid })
    }

    /// Lets the task go for good, delivering `signal` (0 for none). A task whose process is in
    /// group-stop goes back to it.
    ///
    /// # Errors
    ///
    /// `ESRCH` if it has been killed: it then needs no detaching.
    pub fn detach(self, signal: i32) -> Result<()> {
        // SAFETY: no pointers.
        unsafe { ptrace(DETACH, self.pid, 0, signal as usize) }.map(drop)
    }
}
