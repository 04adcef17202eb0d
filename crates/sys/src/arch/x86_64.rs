//! x86-64: registers as ptrace reports them, and how a system call is entered.

mod processor;

pub use processor::{CPU_WORDS, Processor};

use crate::syscall::nr;

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

    /// Whether system call `number`, with these arguments, returns `EINTR` when its thread has been stopped and
    /// goes on without a handler (`signal(7)`), and can be issued again as if there had been no stop. One with a
    /// timeout cannot: how much of it is left nobody can tell a second call, and programs know that these
    /// return early.
    #[must_use]
    pub fn is_ended_by_stops(&self, number: u64) -> bool {
        match number as usize {
            nr::epoll_wait | nr::epoll_pwait => (self.r10 as i32) < 0,
            nr::epoll_pwait2 | nr::semtimedop => self.r10 == 0,
            nr::rt_sigtimedwait => self.rdx == 0,
            nr::io_getevents => self.r8 == 0,
            nr::semop => true,
            _ => false,
        }
    }

    /// Registers that make a thread that has returned from system call `number` issue it once more.
    #[must_use]
    pub fn again(&self, number: u64) -> Self {
        Self {
            rip: self.rip.wrapping_sub(SYSCALL_INSN.len() as u64),
            rax: number,
            orig_rax: u64::MAX,
            ..*self
        }
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

/// Number of the system call by which the kernel goes on with an interrupted one (`restart_syscall(2)`).
pub const NR_RESTART_SYSCALL: u64 = libc::SYS_restart_syscall as u64;

/// Where a component of the extended state lies in an XSAVE area of the standard format, which is what
/// [`NT_X86_XSTATE`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XComponent {
    /// Bytes from the start of the area.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// Where this processor has the components of its extended state. To ask it takes its time on a virtual
/// machine, so ask once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XLayout {
    supported: u64,
    places: Vec<Option<XComponent>>,
}

/// Bytes of the part of an area that all 64-bit processors have, and of the header behind it.
const LEGACY: usize = 512;
const HEADER: usize = 64;

impl XLayout {
    /// Asks the processor.
    #[must_use]
    pub fn look() -> Self {
        let supported = xstate_supported();
        let place = |number: u32| {
            if number < 2 || supported & 1 << number == 0 {
                return None;
            }
            let (size, offset, _, _) = cpuid(XSTATE_LEAF, number);
            (size > 0 && offset > 0).then_some(XComponent {
                offset: offset as usize,
                size: size as usize,
            })
        };
        Self {
            supported,
            places: (0..63).map(place).collect(),
        }
    }

    /// Bytes up to the end of the last component, or of the header where there is none: no area of extended state is
    /// longer.
    #[must_use]
    pub fn end(&self) -> usize {
        let ends = self.places.iter().flatten();
        let ends = ends.map(|place| place.offset.saturating_add(place.size));
        ends.max().unwrap_or(0).max(LEGACY + HEADER)
    }

    /// The components that this processor has, as a mask.
    #[must_use]
    pub fn supported(&self) -> u64 {
        self.supported
    }

    /// The place of a component behind the legacy part; `None` if this processor does not have it.
    #[must_use]
    pub fn component(&self, number: u32) -> Option<XComponent> {
        self.places.get(number as usize).copied().flatten()
    }
}

fn xstate_supported() -> u64 {
    let leaf = cpuid(0, 0);
    if leaf.0 < XSTATE_LEAF || cpuid(1, 0).2 & 1 << 27 == 0 {
        return 0;
    }
    let (low, _, _, high) = cpuid(XSTATE_LEAF, 0);
    u64::from(high) << 32 | u64::from(low)
}

const XSTATE_LEAF: u32 = 0xd;

/// Has the standard library find out what the processor can do. It does so when it is first asked, which may be while
/// a tree stands still; in a virtual machine, where the host answers, it takes 25 us.
pub fn acquaint() {
    let _ = std::arch::is_x86_feature_detected!("avx2");
}

/// `eax`, `ebx`, `ecx`, `edx` of a leaf of `cpuid`.
fn cpuid(leaf: u32, sub: u32) -> (u32, u32, u32, u32) {
    #[expect(unused_unsafe, reason = "the function was unsafe before Rust 1.94")]
    // SAFETY: every 64-bit processor has the instruction, which changes nothing.
    let found = unsafe { std::arch::x86_64::__cpuid_count(leaf, sub) };
    (found.eax, found.ebx, found.ecx, found.edx)
}

/// One system call of a list, and where its result goes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    pub(crate) nr: usize,
    pub(crate) args: [usize; 6],
    pub(crate) result: isize,
}

const _: () = assert!(size_of::<Call>() == 64);

/// `clone3(2)` whose child makes the calls in their order until one fails, and ends. Gives what `clone3` gives
/// to the parent.
///
/// # Safety
///
/// The child must share memory and keep the caller waiting until it ends (`CLONE_VM`, `CLONE_VFORK`); pointers
/// among the arguments must be valid for what the calls do.
pub(crate) unsafe fn clone_and_call(args: &crate::clone::CloneArgs, calls: &mut [Call]) -> isize {
    let result: isize;
    // SAFETY: the child touches the calls and nothing else, not even the stack, and never leaves the block; the
    // parent goes on when it has ended, with its own registers.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 4f",
            "2:",
            "test r13, r13",
            "jz 3f",
            "mov rax, [r12]",
            "mov rdi, [r12 + 8]",
            "mov rsi, [r12 + 16]",
            "mov rdx, [r12 + 24]",
            "mov r10, [r12 + 32]",
            "mov r8, [r12 + 40]",
            "mov r9, [r12 + 48]",
            "syscall",
            "mov [r12 + 56], rax",
            "add r12, 64",
            "dec r13",
            "test rax, rax",
            "jns 2b",
            "3:",
            "mov eax, {exit}",
            "xor edi, edi",
            "syscall",
            "ud2",
            "4:",
            exit = const libc::SYS_exit_group,
            inlateout("rax") libc::SYS_clone3 as isize => result,
            inlateout("rdi") &raw const *args => _,
            inlateout("rsi") size_of::<crate::clone::CloneArgs>() => _,
            inlateout("r12") calls.as_mut_ptr() => _,
            inlateout("r13") calls.len() => _,
            out("rcx") _,
            out("r11") _,
            out("rdx") _,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            options(nostack),
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_lie_behind_the_header() {
        let layout = XLayout::look();
        for number in 0..70 {
            if let Some(found) = layout.component(number) {
                assert!(layout.supported() & 1 << number != 0);
                assert!(
                    found.offset >= 576 && found.size <= 1 << 16,
                    "{number}: {found:?}"
                );
            }
        }
    }
}
