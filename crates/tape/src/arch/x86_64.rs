//! The stub for x86-64: about 450 bytes, position independent, no logic beyond "next call" and "the same
//! of the next number".
//!
//! Registers on entry: `rbx` the first op, `rbp` behind the last one, `r15` the thread's block, `rsp` as
//! the interrupted program had it, `r14` whether there are protection keys. A single call needs no op: it is entered
//! with all registers set, and leaves its result in `rbx`. The stub ends by sending the thread a signal that only its
//! tracer sees. Where the tracer is gone the signal does nothing, and the code behind it puts mask, flags and
//! registers back from the block and jumps to where the program was: below the red zone of the
//! program's own stack, as a signal frame would be.
//!
//! A program may have forbidden itself the memory that tapes lie in, or that their calls write to (`pkeys(7)`). So the
//! stub gives the thread all rights while it plays, keeps its own ones in `r13`, and puts them back each time before it
//! can be left: whoever comes or goes, the thread never runs code of the program with other rights.

use gelid_sys::arch::{NR_RESTART_SYSCALL, SYSCALL_INSN, UserRegs};
use std::arch::global_asm;

/// Bytes of an op in the task's memory: number, six arguments, result, address to copy the result
/// to (or 0), flags.
pub(crate) const OP_SIZE: usize = 80;
/// Offset of the arguments.
pub(crate) const OP_ARGS: usize = 8;
/// Offset of the result.
pub(crate) const OP_RESULT: usize = 56;
/// Flag of an op: a failure ends the tape.
pub(crate) const OP_MUST: u64 = 1;
/// Flag of an op: it makes a child, which ends at once should it ever come back from the call.
pub(crate) const OP_BIRTH: u64 = 2;
/// Flag of an op: it is made for each number from its first argument to its last, which the call itself must not have;
/// the lowest bytes of the results go where that of another op would be copied to.
pub(crate) const OP_EACH: u64 = 4;

/// Bytes of a block.
pub(crate) const BLOCK_SIZE: usize = 208;
/// Offset of the tracer's process id in it, which the stub does not read.
pub(crate) const BLOCK_OWNER: usize = 168;

global_asm!(
    ".pushsection .rodata",
    ".globl gelid_stub_start, gelid_stub_single, gelid_stub_end, gelid_stub_limit",
    // All rights, and those of the program in r13.
    ".macro gelid_stub_open",
    "test r14, r14",
    "jz 9f",
    "xor ecx, ecx",
    "rdpkru",
    "mov r13d, eax",
    "xor eax, eax",
    "wrpkru",
    "9:",
    ".endm",
    "gelid_stub_start:",
    "gelid_stub_open",
    "8:",
    "cmp rbx, rbp",
    "jae 3f",
    "mov rax, [rbx]",
    "mov rdi, [rbx + 8]",
    "mov rsi, [rbx + 16]",
    "mov rdx, [rbx + 24]",
    "mov r10, [rbx + 32]",
    "mov r8, [rbx + 40]",
    "mov r9, [rbx + 48]",
    "syscall",
    "test qword ptr [rbx + 72], 4",
    "jz 4f",
    "mov rcx, [rbx + 64]",
    "mov [rcx], al",
    "inc qword ptr [rbx + 64]",
    "inc qword ptr [rbx + 8]",
    "cmp [rbx + 8], r9",
    "jb 8b",
    "jmp 1f",
    "4:",
    "test qword ptr [rbx + 72], 2",
    "jz 5f",
    "test rax, rax",
    "jz 6f",
    "5:",
    "mov [rbx + 56], rax",
    "mov rcx, [rbx + 64]",
    "test rcx, rcx",
    "jz 2f",
    "mov [rcx], rax",
    "2:",
    "cmp qword ptr [rbx + 72], 0",
    "je 1f",
    "cmp rax, -4095",
    "jae 3f",
    "1:",
    "add rbx, 80",
    "jmp 8b",
    "3:",
    // tgkill(tgid, tid, signal)
    "mov rdi, [r15]",
    "mov rsi, [r15 + 8]",
    "mov r12, [r15 + 16]",
    "test r14, r14",
    "jz 7f",
    "mov eax, r13d",
    "xor ecx, ecx",
    "xor edx, edx",
    "wrpkru",
    "7:",
    "mov rdx, r12",
    "mov eax, 234",
    "syscall",
    "gelid_stub_end:",
    "gelid_stub_open",
    // rt_sigpending(word, 8): a call that a handler ends is not issued again if one is about to run
    "mov eax, 127",
    "lea rdi, [rsp - 136]",
    "mov esi, 8",
    "syscall",
    "mov r12, [r15 + 32]",
    "mov rbx, [r15 + 48]",
    "mov rax, [rsp - 136]",
    "test rax, [r15 + 192]",
    "jz 4f",
    "mov r12, [r15 + 176]",
    "mov rbx, [r15 + 184]",
    "4:",
    // rt_sigprocmask(SIG_SETMASK, mask, NULL, 8)
    "mov eax, 14",
    "mov edi, 2",
    "lea rsi, [r15 + 24]",
    "mov edx, 0",
    "mov r10d, 8",
    "syscall",
    "mov [rsp - 136], r12",
    "mov rax, [r15 + 40]",
    "mov [rsp - 144], rax",
    "lea rsp, [rsp - 144]",
    "popfq",
    // From here on flags must not change, and what wrpkru needs lies on the stack, which the program may use.
    "push qword ptr [r15 + 72]",
    "push qword ptr [r15 + 64]",
    "push rbx",
    "mov eax, r13d",
    "mov rcx, r14",
    "mov rbx, [r15 + 56]",
    "mov rsi, [r15 + 80]",
    "mov rdi, [r15 + 88]",
    "mov rbp, [r15 + 96]",
    "mov r8, [r15 + 104]",
    "mov r9, [r15 + 112]",
    "mov r10, [r15 + 120]",
    "mov r11, [r15 + 128]",
    "mov r12, [r15 + 136]",
    "mov r13, [r15 + 144]",
    "mov r14, [r15 + 152]",
    "mov r15, [r15 + 160]",
    "jrcxz 4f",
    "mov ecx, 0",
    "mov edx, 0",
    "wrpkru",
    "4:",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "ret 128",
    "6:",
    // exit(0)
    "mov eax, 60",
    "xor edi, edi",
    "syscall",
    "gelid_stub_single:",
    "syscall",
    "mov rbx, rax",
    "gelid_stub_open",
    "jmp 3b",
    "gelid_stub_limit:",
    ".purgem gelid_stub_open",
    ".popsection",
);

unsafe extern "C" {
    static gelid_stub_start: u8;
    static gelid_stub_single: u8;
    static gelid_stub_end: u8;
    static gelid_stub_limit: u8;
}

/// The stub's machine code.
pub(crate) fn code() -> &'static [u8] {
    let start = &raw const gelid_stub_start;
    let len = offset(&raw const gelid_stub_limit);
    // SAFETY: both symbols bound the bytes assembled above, which are read-only data.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// Offset of the instruction behind the closing signal: where a tape that has ended stands.
pub(crate) fn end_offset() -> u64 {
    offset(&raw const gelid_stub_end) as u64
}

/// Offset of the single system call.
pub(crate) fn single_offset() -> u64 {
    offset(&raw const gelid_stub_single) as u64
}

fn offset(symbol: *const u8) -> usize {
    symbol as usize - &raw const gelid_stub_start as usize
}

/// What the stub needs of a thread: whom to signal and how to bring its program back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Thread group id in the thread's own pid namespace.
    pub(crate) tgid: u64,
    /// Thread id in the thread's own pid namespace.
    pub(crate) tid: u64,
    /// Signal that ends a tape.
    pub(crate) signal: u64,
    /// Mask to put back.
    pub(crate) mask: u64,
    /// Process id of the tracer.
    pub(crate) owner: u64,
    /// Registers to put back.
    pub(crate) regs: UserRegs,
}

impl Block {
    pub(crate) fn to_bytes(self) -> [u8; BLOCK_SIZE] {
        let regs = orphan_regs(&self.regs);
        let ended = ended_regs(&self.regs);
        let words = [
            self.tgid,
            self.tid,
            self.signal,
            self.mask,
            regs.rip,
            regs.eflags,
            regs.rax,
            regs.rbx,
            regs.rcx,
            regs.rdx,
            regs.rsi,
            regs.rdi,
            regs.rbp,
            regs.r8,
            regs.r9,
            regs.r10,
            regs.r11,
            regs.r12,
            regs.r13,
            regs.r14,
            regs.r15,
            self.owner,
            ended.map_or(0, |regs| regs.rip),
            ended.map_or(0, |regs| regs.rax),
            ended.map_or(0, |_| !self.mask),
        ];
        let mut bytes = [0; BLOCK_SIZE];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;

/// Registers with which a program whose tracer has died goes on. An interrupted system call is issued
/// again; one with a timeout that was running goes on where it was, by the call that the kernel itself
/// would issue.
fn orphan_regs(regs: &UserRegs) -> UserRegs {
    let again = match (regs.syscall_nr(), regs.syscall_result()) {
        (Some(nr), ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND) => nr,
        (Some(_), ERESTART_RESTARTBLOCK) => NR_RESTART_SYSCALL,
        _ => return *regs,
    };
    UserRegs {
        rip: regs.rip.wrapping_sub(SYSCALL_INSN.len() as u64),
        rax: again,
        ..*regs
    }
}

/// The same if a signal is about to be handled, for a call that any handler ends.
fn ended_regs(regs: &UserRegs) -> Option<UserRegs> {
    const EINTR: i64 = -4;
    match (regs.syscall_nr(), regs.syscall_result()) {
        (Some(_), ERESTARTNOHAND | ERESTART_RESTARTBLOCK) => Some(UserRegs {
            rax: EINTR as u64,
            ..*regs
        }),
        _ => None,
    }
}

/// Where a thread finds what is its own, and whether there are protection keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// Address of the stub.
    pub(crate) stub: u64,
    /// Address of the thread's block.
    pub(crate) block: u64,
    /// The processor has keys.
    pub(crate) keys: bool,
}

/// Registers that play the ops in `ops..end`.
pub(crate) fn play_regs(saved: &UserRegs, way: Way, ops: u64, end: u64) -> UserRegs {
    UserRegs {
        rip: way.stub,
        rbx: ops,
        rbp: end,
        r14: way.keys.into(),
        r15: way.block,
        orig_rax: u64::MAX,
        rax: 0,
        ..*saved
    }
}

/// Registers that issue one system call at `at` and recover from `block` if nobody is left to stop the
/// thread behind it.
pub(crate) fn single_regs(
    saved: &UserRegs,
    at: u64,
    way: Way,
    nr: usize,
    args: [u64; 6],
) -> UserRegs {
    UserRegs {
        r14: way.keys.into(),
        r15: way.block,
        ..saved.for_syscall(at, nr, args)
    }
}

/// What the stub's single call has returned.
pub(crate) fn single_result(regs: &UserRegs) -> i64 {
    regs.rbx as i64
}

/// Where the thread stands.
pub(crate) fn place(regs: &UserRegs) -> u64 {
    regs.rip
}

/// Lets the thread go on elsewhere.
pub(crate) fn go_to(regs: &mut UserRegs, at: u64) {
    regs.rip = at;
}

/// Address of the op at which a played tape has ended.
pub(crate) fn ended_at(regs: &UserRegs) -> u64 {
    regs.rbx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_is_small_and_its_marks_lie_inside() {
        let code = code();
        assert!(code.len() < 480, "{} bytes", code.len());
        assert!(end_offset() < single_offset());
        let single = single_offset() as usize;
        assert_eq!(&code[single..single + 2], &SYSCALL_INSN);
        assert_eq!(
            &code[end_offset() as usize - 2..end_offset() as usize],
            &SYSCALL_INSN
        );
    }

    #[test]
    fn an_interrupted_call_is_issued_again() {
        let regs = UserRegs {
            rip: 100,
            rax: (-516_i64) as u64,
            orig_rax: 35,
            ..UserRegs::default()
        };
        let back = orphan_regs(&regs);
        assert_eq!((back.rip, back.rax), (98, 219), "goes on sleeping");
        let ended = ended_regs(&regs).map(|back| (back.rip, back.rax as i64));
        assert_eq!(ended, Some((100, -4)));
        let reading = UserRegs {
            rip: 100,
            rax: (-512_i64) as u64,
            ..UserRegs::default()
        };
        let back = orphan_regs(&reading);
        assert_eq!((back.rip, back.rax), (98, 0), "reads again");
        assert_eq!(ended_regs(&reading), None);
        let done = UserRegs {
            rip: 100,
            rax: 7,
            orig_rax: 35,
            ..UserRegs::default()
        };
        assert_eq!(orphan_regs(&done), done);
    }
}
