//! Machine state on x86 (section 7.4).

use super::GelidXsaveEntry;

enumerations! {
    /// Width of the registers.
    enumeration UserX86RegsMode = "user_x86_regs_mode" {
        /// 64-bit task.
        Native = 1 "NATIVE";
        /// 32-bit task.
        Compat = 2 "COMPAT";
    }
}

messages! {
    /// General registers as `PTRACE_GETREGSET` reports them. Section 7.4.
    message UserX86RegsEntry = "user_x86_regs_entry" {
        /// Register `r15`.
        required uint64 r15 = 1;
        /// Register `r14`.
        required uint64 r14 = 2;
        /// Register `r13`.
        required uint64 r13 = 3;
        /// Register `r12`.
        required uint64 r12 = 4;
        /// Register `bp`.
        required uint64 bp = 5;
        /// Register `bx`.
        required uint64 bx = 6;
        /// Register `r11`.
        required uint64 r11 = 7;
        /// Register `r10`.
        required uint64 r10 = 8;
        /// Register `r9`.
        required uint64 r9 = 9;
        /// Register `r8`.
        required uint64 r8 = 10;
        /// Register `ax`.
        required uint64 ax = 11;
        /// Register `cx`.
        required uint64 cx = 12;
        /// Register `dx`.
        required uint64 dx = 13;
        /// Register `si`.
        required uint64 si = 14;
        /// Register `di`.
        required uint64 di = 15;
        /// Number of the interrupted system call, negative if none.
        required uint64 orig_ax = 16;
        /// Instruction pointer.
        required uint64 ip = 17;
        /// Register `cs`.
        required uint64 cs = 18;
        /// Flags register.
        required uint64 flags = 19;
        /// Stack pointer.
        required uint64 sp = 20;
        /// Register `ss`.
        required uint64 ss = 21;
        /// Base of `fs`.
        required uint64 fs_base = 22;
        /// Base of `gs`.
        required uint64 gs_base = 23;
        /// Register `ds`.
        required uint64 ds = 24;
        /// Register `es`.
        required uint64 es = 25;
        /// Register `fs`.
        required uint64 fs = 26;
        /// Register `gs`.
        required uint64 gs = 27;
        /// [`UserX86RegsMode`]; absent = native.
        optional enumeration UserX86RegsMode mode = 28 default "Native";
    }

    /// User shadow stack state, XSAVE component 11. Section 7.4.
    message UserX86CetEntry = "user_x86_cet_entry" {
        /// User shadow stack control.
        required uint64 cet = 1 as hex;
        /// Shadow stack pointer.
        required uint64 ssp = 2 as hex;
    }

    /// Extended processor state: XSAVE components cut into words. Section 7.4.
    message UserX86XsaveEntry = "user_x86_xsave_entry" {
        /// Components in use, from the XSAVE header.
        required uint64 xstate_bv = 1;
        /// 2 | 64 × u32 (upper halves of YMM0…15).
        repeated uint32 ymmh_space = 2;
        /// 3 | 8 × u64.
        repeated uint64 bndreg_state = 3;
        /// 4 | 8 × u64.
        repeated uint64 bndcsr_state = 4;
        /// 5 | 8 × u64.
        repeated uint64 opmask_reg = 5;
        /// 6 | 64 × u64 (upper halves of ZMM0…15).
        repeated uint64 zmm_upper = 6;
        /// 7 | 128 × u64 (ZMM16…31).
        repeated uint64 hi16_zmm = 7;
        /// 9 | 2 × u32.
        repeated uint32 pkru = 8;
        /// 11 | `cet`, `ssp`: user shadow stack control and pointer; present if the CPU has shadow
        /// stacks, zeros if unused.
        optional message UserX86CetEntry cet = 9;
        /// gelid's own; CRIU skips it. Components in use beyond those above.
        repeated message GelidXsaveEntry gelid = 1000;
    }

    /// FPU state: the 512-byte FXSAVE image in pieces, and what XSAVE adds. Section 7.4.
    message UserX86FpregsEntry = "user_x86_fpregs_entry" {
        /// Control word.
        required uint32 cwd = 1;
        /// Status word.
        required uint32 swd = 2;
        /// Abridged 8-bit tag word.
        required uint32 twd = 3;
        /// Last opcode.
        required uint32 fop = 4;
        /// Last instruction pointer.
        required uint64 rip = 5;
        /// Last data pointer.
        required uint64 rdp = 6;
        /// SSE control.
        required uint32 mxcsr = 7;
        /// Mask of `mxcsr`.
        required uint32 mxcsr_mask = 8;
        /// 32 u32: eight 16-byte x87/MMX slots.
        repeated uint32 st_space = 9;
        /// 64 u32: XMM0…XMM15, four words each, low word first.
        repeated uint32 xmm_space = 10;
        /// Empty.
        repeated uint32 padding = 11;
        /// Extended state, present if the CPU supports XSAVE.
        optional message UserX86XsaveEntry xsave = 13;
    }

    /// A thread-local storage descriptor of the GDT, `set_thread_area(2)`. Section 7.4.
    message UserDescT = "user_desc_t" {
        /// GDT entry: 12, 13 or 14.
        required uint32 entry_number = 1;
        /// Segment base.
        required uint32 base_addr = 2;
        /// Segment limit.
        required uint32 limit = 3;
        /// 32-bit segment.
        required bool seg_32bit = 4;
        /// High bit of the contents field.
        required bool contents_h = 5;
        /// Low bit of the contents field.
        required bool contents_l = 6;
        /// No writing.
        required bool read_exec_only = 7;
        /// Limit counts pages.
        required bool limit_in_pages = 8;
        /// Slot unused; the restorer skips it.
        required bool seg_not_present = 9;
        /// Available to system software.
        required bool usable = 10;
    }

    /// Machine state of a thread on x86. Section 7.4.
    message ThreadInfoX86 = "thread_info_x86" {
        /// Address cleared at exit, `set_tid_address(2)`.
        required uint64 clear_tid_addr = 1 as hex;
        /// General registers.
        required message UserX86RegsEntry gpregs = 2;
        /// FPU and extended state.
        required message UserX86FpregsEntry fpregs = 3;
        /// GDT entries 12, 13, 14.
        repeated message UserDescT tls = 4;
    }
}
