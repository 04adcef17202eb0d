//! General registers of a thread.

use gelid_image::messages::{UserX86RegsEntry, UserX86RegsMode};
use gelid_sys::arch::UserRegs;

use super::Error;

/// The registers as the thread is to have them. The image has resolved an interrupted system call, so the
/// kernel is not to look for one.
pub(super) fn read(tid: i32, entry: &UserX86RegsEntry) -> Result<UserRegs, Error> {
    let regs = UserRegs {
        r15: entry.r15,
        r14: entry.r14,
        r13: entry.r13,
        r12: entry.r12,
        rbp: entry.bp,
        rbx: entry.bx,
        r11: entry.r11,
        r10: entry.r10,
        r9: entry.r9,
        r8: entry.r8,
        rax: entry.ax,
        rcx: entry.cx,
        rdx: entry.dx,
        rsi: entry.si,
        rdi: entry.di,
        orig_rax: u64::MAX,
        rip: entry.ip,
        cs: entry.cs,
        eflags: entry.flags,
        rsp: entry.sp,
        ss: entry.ss,
        fs_base: entry.fs_base,
        gs_base: entry.gs_base,
        ds: entry.ds,
        es: entry.es,
        fs: entry.fs,
        gs: entry.gs,
    };
    if entry.mode == Some(UserX86RegsMode::Compat as i32) || !regs.is_native() {
        return Err(Error::Unsupported {
            tid,
            what: "32-bit code",
            remedy: "dump the program as a 64-bit one",
        });
    }
    Ok(regs)
}
