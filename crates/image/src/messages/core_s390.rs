//! Machine state on s390, as `ptrace(2)` delivers it; carried, not interpreted.

messages! {
    /// `user_s390_regs_entry` of the published definitions.
    message UserS390RegsEntry = "user_s390_regs_entry" {
        /// `psw_mask`.
        required uint64 psw_mask = 1;
        /// `psw_addr`.
        required uint64 psw_addr = 2;
        /// `gprs`.
        repeated uint64 gprs = 3;
        /// `acrs`.
        repeated uint32 acrs = 4;
        /// `orig_gpr2`.
        required uint64 orig_gpr2 = 5;
        /// `system_call`.
        required uint32 system_call = 6;
    }

    /// `user_s390_vxrs_low_entry` of the published definitions.
    message UserS390VxrsLowEntry = "user_s390_vxrs_low_entry" {
        /// `regs`.
        repeated uint64 regs = 1;
    }

    /// `user_s390_vxrs_high_entry` of the published definitions.
    message UserS390VxrsHighEntry = "user_s390_vxrs_high_entry" {
        /// `regs`.
        repeated uint64 regs = 1;
    }

    /// `user_s390_fpregs_entry` of the published definitions.
    message UserS390FpregsEntry = "user_s390_fpregs_entry" {
        /// `fpc`.
        required uint32 fpc = 1;
        /// `fprs`.
        repeated uint64 fprs = 2;
    }

    /// `user_s390_gs_cb_entry` of the published definitions.
    message UserS390GsCbEntry = "user_s390_gs_cb_entry" {
        /// `regs`.
        repeated uint64 regs = 1;
    }

    /// `user_s390_ri_entry` of the published definitions.
    message UserS390RiEntry = "user_s390_ri_entry" {
        /// `ri_on`.
        required uint32 ri_on = 1;
        /// `regs`.
        repeated uint64 regs = 2;
    }

    /// `thread_info_s390` of the published definitions.
    message ThreadInfoS390 = "thread_info_s390" {
        /// `clear_tid_addr`.
        required uint64 clear_tid_addr = 1 as hex;
        /// `gpregs`.
        required message UserS390RegsEntry gpregs = 2;
        /// `fpregs`.
        required message UserS390FpregsEntry fpregs = 3;
        /// `vxrs_low`.
        optional message UserS390VxrsLowEntry vxrs_low = 4;
        /// `vxrs_high`.
        optional message UserS390VxrsHighEntry vxrs_high = 5;
        /// `gs_cb`.
        optional message UserS390GsCbEntry gs_cb = 6;
        /// `gs_bc`.
        optional message UserS390GsCbEntry gs_bc = 7;
        /// `ri_cb`.
        optional message UserS390RiEntry ri_cb = 8;
    }
}
