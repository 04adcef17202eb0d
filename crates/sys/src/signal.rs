//! Signals as the kernel keeps them: 64-bit sets, raw `siginfo_t`, `struct sigaction` of the system call.

use std::fmt;

/// Number of signals; signal `n` is bit `n - 1` of a set.
pub const NSIG: usize = 64;

/// A set of signals: `sigset_t` of the kernel, eight bytes.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// All signals (the kernel ignores SIGKILL and SIGSTOP in a mask).
    pub const ALL: Self = Self(u64::MAX);

    /// True if `signal` (1..=64) is in the set.
    #[must_use]
    pub const fn contains(self, signal: i32) -> bool {
        signal >= 1 && signal <= NSIG as i32 && self.0 & (1 << (signal - 1)) != 0
    }

    /// The set with `signal` (1..=64) taken out.
    #[must_use]
    pub const fn without(self, signal: i32) -> Self {
        Self(self.0 & !(1 << (signal - 1)))
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigSet({:#018x})", self.0)
    }
}

/// `SIGTRAP`.
pub const SIGTRAP: i32 = libc::SIGTRAP;
/// `SIGSTOP`.
pub const SIGSTOP: i32 = libc::SIGSTOP;
/// `SIGCONT`.
pub const SIGCONT: i32 = libc::SIGCONT;
/// `SIGKILL`.
pub const SIGKILL: i32 = libc::SIGKILL;
/// `SIGCHLD`.
pub const SIGCHLD: i32 = libc::SIGCHLD;
/// `SIGTSTP`.
pub const SIGTSTP: i32 = libc::SIGTSTP;
/// `SIGTTIN`.
pub const SIGTTIN: i32 = libc::SIGTTIN;
/// `SIGTTOU`.
pub const SIGTTOU: i32 = libc::SIGTTOU;

/// True for the four signals whose default action is to stop the process.
#[must_use]
pub const fn stops(signal: i32) -> bool {
    matches!(signal, SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU)
}

/// `siginfo_t` as raw bytes: 128, whatever the signal.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SigInfo(pub [u8; 128]);

const _: () = assert!(size_of::<SigInfo>() == size_of::<libc::siginfo_t>());

impl SigInfo {
    fn word(&self, at: usize) -> i32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        i32::from_ne_bytes(bytes)
    }

    /// `si_signo`.
    #[must_use]
    pub fn signo(&self) -> i32 {
        self.word(0)
    }

    /// `si_code`.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.word(8)
    }

    /// `si_pid`, of a signal that another task has sent.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.word(16)
    }
}

impl Default for SigInfo {
    fn default() -> Self {
        Self([0; 128])
    }
}

impl fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SigInfo {{ signo: {}, code: {} }}",
            self.signo(),
            self.code()
        )
    }
}

/// `struct sigaction` of the system call (not the one of the C library): `rt_sigaction(2)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelSigAction {
    /// Address of the handler; 0 default, 1 ignore.
    pub handler: u64,
    /// `SA_*` flags as the kernel keeps them.
    pub flags: u64,
    /// Address of the return trampoline.
    pub restorer: u64,
    /// Signals blocked while the handler runs.
    pub mask: u64,
}

const _: () = assert!(size_of::<KernelSigAction>() == 32);

#[cfg(test)]
crate::layout::same!(whole KernelSigAction, linux_raw_sys::general::kernel_sigaction {
    handler = sa_handler_kernel, flags = sa_flags, restorer = sa_restorer, mask = sa_mask,
});

impl KernelSigAction {
    /// The bytes handed to the kernel.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (slot, word) in
            bytes
                .chunks_exact_mut(8)
                .zip([self.handler, self.flags, self.restorer, self.mask])
        {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// The structure from the bytes the kernel has written.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let word = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(raw)
        };
        Self {
            handler: word(0),
            flags: word(8),
            restorer: word(16),
            mask: word(24),
        }
    }
}
