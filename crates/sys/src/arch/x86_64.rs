//! x86-64: registers as ptrace reports them, and how a system call is entered.

/// Note type of the general registers for `PTRACE_GETREGSET` (`elf.h`).
pub const NT_PRSTATUS: u32 = 1;
/// Note type of the XSAVE area for `PTRACE_GETREGSET` (`elf.h`).
pub const NT_X86_XSTATE: u32 = 0x202;

/// Bytes of the system call instruction (`syscall`).
pub const SYSCALL_INSN: [u8; 2] = [0x0f, 0x05];

/// General registers of a thread: `struct user_regs_struct` of `sys/user.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are the registers of the same names"
)]
pub struct UserRegs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

const _: () = assert!(size_of::<UserRegs>() == size_of::<libc::user_regs_struct>());
const _: () = assert!(
    std::mem::offset_of!(UserRegs, rip) == std::mem::offset_of!(libc::user_regs_struct, rip)
);

/// Code segment selector of 64-bit user code; another value means a 32-bit task.
pub const USER64_CS: u64 = 0x33;

impl UserRegs {
    /// True for a thread that runs 64-bit code.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.cs == USER64_CS
    }

    /// Number of the system call the thread was stopped in, if it was in one.
    #[must_use]
    pub fn syscall_nr(&self) -> Option<u64> {
        ((self.orig_rax as i64) >= 0).then_some(self.orig_rax)
    }

    /// What the system call has left in the result register.
    #[must_use]
    pub fn syscall_result(&self) -> i64 {
        self.rax as i64
    }

    /// Registers that make the thread enter system call `nr` at the instruction `at`; the kernel's
    /// restart logic is switched off by clearing the original call number.
    #[must_use]
    pub fn for_syscall(&self, at: u64, nr: usize, args: [u64; 6]) -> Self {
        let [rdi, rsi, rdx, r10, r8, r9] = args;
        Self {
            rip: at,
            rax: nr as u64,
            orig_rax: u64::MAX,
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..*self
        }
    }
}
