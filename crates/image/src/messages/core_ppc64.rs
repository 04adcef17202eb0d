//! Machine state on ppc64, as `ptrace(2)` delivers it; carried, not interpreted.

messages! {
    /// `user_ppc64_regs_entry` of the published definitions.
    message UserPpc64RegsEntry = "user_ppc64_regs_entry" {
        /// `gpr`.
        repeated uint64 gpr = 1;
        /// `nip`.
        required uint64 nip = 2;
        /// `msr`.
        required uint64 msr = 3;
        /// `orig_gpr3`.
        required uint64 orig_gpr3 = 4;
        /// `ctr`.
        required uint64 ctr = 5;
        /// `link`.
        required uint64 link = 6;
        /// `xer`.
        required uint64 xer = 7;
        /// `ccr`.
        required uint64 ccr = 8;
        /// `trap`.
        required uint64 trap = 9;
        /// `texasr`.
        optional uint64 texasr = 10;
        /// `tfhar`.
        optional uint64 tfhar = 11;
        /// `tfiar`.
        optional uint64 tfiar = 12;
    }

    /// `user_ppc64_fpstate_entry` of the published definitions.
    message UserPpc64FpstateEntry = "user_ppc64_fpstate_entry" {
        /// `fpregs`.
        repeated uint64 fpregs = 1;
    }

    /// `user_ppc64_vrstate_entry` of the published definitions.
    message UserPpc64VrstateEntry = "user_ppc64_vrstate_entry" {
        /// `vrregs`.
        repeated uint64 vrregs = 1;
        /// `vrsave`.
        required uint32 vrsave = 2;
    }

    /// `user_ppc64_vsxstate_entry` of the published definitions.
    message UserPpc64VsxstateEntry = "user_ppc64_vsxstate_entry" {
        /// `vsxregs`.
        repeated uint64 vsxregs = 1;
    }

    /// `user_ppc64_tm_regs_entry` of the published definitions.
    message UserPpc64TmRegsEntry = "user_ppc64_tm_regs_entry" {
        /// `gpregs`.
        required message UserPpc64RegsEntry gpregs = 1;
        /// `fpstate`.
        optional message UserPpc64FpstateEntry fpstate = 2;
        /// `vrstate`.
        optional message UserPpc64VrstateEntry vrstate = 3;
        /// `vsxstate`.
        optional message UserPpc64VsxstateEntry vsxstate = 4;
    }

    /// `thread_info_ppc64` of the published definitions.
    message ThreadInfoPpc64 = "thread_info_ppc64" {
        /// `clear_tid_addr`.
        required uint64 clear_tid_addr = 1 as hex;
        /// `gpregs`.
        required message UserPpc64RegsEntry gpregs = 2;
        /// `fpstate`.
        optional message UserPpc64FpstateEntry fpstate = 3;
        /// `vrstate`.
        optional message UserPpc64VrstateEntry vrstate = 4;
        /// `vsxstate`.
        optional message UserPpc64VsxstateEntry vsxstate = 5;
        /// `tmstate`.
        optional message UserPpc64TmRegsEntry tmstate = 6;
    }
}
