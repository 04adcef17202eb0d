//! Machine state on arm, as `ptrace(2)` delivers it; carried, not interpreted.

messages! {
    /// `user_arm_regs_entry` of the published definitions.
    message UserArmRegsEntry = "user_arm_regs_entry" {
        /// `r0`.
        required uint32 r0 = 1;
        /// `r1`.
        required uint32 r1 = 2;
        /// `r2`.
        required uint32 r2 = 3;
        /// `r3`.
        required uint32 r3 = 4;
        /// `r4`.
        required uint32 r4 = 5;
        /// `r5`.
        required uint32 r5 = 6;
        /// `r6`.
        required uint32 r6 = 7;
        /// `r7`.
        required uint32 r7 = 8;
        /// `r8`.
        required uint32 r8 = 9;
        /// `r9`.
        required uint32 r9 = 10;
        /// `r10`.
        required uint32 r10 = 11;
        /// `fp`.
        required uint32 fp = 12;
        /// `ip`.
        required uint32 ip = 13;
        /// `sp`.
        required uint32 sp = 14;
        /// `lr`.
        required uint32 lr = 15;
        /// `pc`.
        required uint32 pc = 16;
        /// `cpsr`.
        required uint32 cpsr = 17;
        /// `orig_r0`.
        required uint32 orig_r0 = 18;
    }

    /// `user_arm_vfpstate_entry` of the published definitions.
    message UserArmVfpstateEntry = "user_arm_vfpstate_entry" {
        /// `vfp_regs`.
        repeated uint64 vfp_regs = 1;
        /// `fpscr`.
        required uint32 fpscr = 2;
        /// `fpexc`.
        required uint32 fpexc = 3;
        /// `fpinst`.
        required uint32 fpinst = 4;
        /// `fpinst2`.
        required uint32 fpinst2 = 5;
    }

    /// `thread_info_arm` of the published definitions.
    message ThreadInfoArm = "thread_info_arm" {
        /// `clear_tid_addr`.
        required uint64 clear_tid_addr = 1 as hex;
        /// `tls`.
        required uint32 tls = 2;
        /// `gpregs`.
        required message UserArmRegsEntry gpregs = 3;
        /// `fpstate`.
        required message UserArmVfpstateEntry fpstate = 4;
    }
}
