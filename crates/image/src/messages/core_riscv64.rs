//! Machine state on riscv64, as `ptrace(2)` delivers it; carried, not interpreted.

messages! {
    /// `user_riscv64_regs_entry` of the published definitions.
    message UserRiscv64RegsEntry = "user_riscv64_regs_entry" {
        /// `pc`.
        required uint64 pc = 1;
        /// `ra`.
        required uint64 ra = 2;
        /// `sp`.
        required uint64 sp = 3;
        /// `gp`.
        required uint64 gp = 4;
        /// `tp`.
        required uint64 tp = 5;
        /// `t0`.
        required uint64 t0 = 6;
        /// `t1`.
        required uint64 t1 = 7;
        /// `t2`.
        required uint64 t2 = 8;
        /// `s0`.
        required uint64 s0 = 9;
        /// `s1`.
        required uint64 s1 = 10;
        /// `a0`.
        required uint64 a0 = 11;
        /// `a1`.
        required uint64 a1 = 12;
        /// `a2`.
        required uint64 a2 = 13;
        /// `a3`.
        required uint64 a3 = 14;
        /// `a4`.
        required uint64 a4 = 15;
        /// `a5`.
        required uint64 a5 = 16;
        /// `a6`.
        required uint64 a6 = 17;
        /// `a7`.
        required uint64 a7 = 18;
        /// `s2`.
        required uint64 s2 = 19;
        /// `s3`.
        required uint64 s3 = 20;
        /// `s4`.
        required uint64 s4 = 21;
        /// `s5`.
        required uint64 s5 = 22;
        /// `s6`.
        required uint64 s6 = 23;
        /// `s7`.
        required uint64 s7 = 24;
        /// `s8`.
        required uint64 s8 = 25;
        /// `s9`.
        required uint64 s9 = 26;
        /// `s10`.
        required uint64 s10 = 27;
        /// `s11`.
        required uint64 s11 = 28;
        /// `t3`.
        required uint64 t3 = 29;
        /// `t4`.
        required uint64 t4 = 30;
        /// `t5`.
        required uint64 t5 = 31;
        /// `t6`.
        required uint64 t6 = 32;
    }

    /// `user_riscv64_d_ext_entry` of the published definitions.
    message UserRiscv64DExtEntry = "user_riscv64_d_ext_entry" {
        /// `f`.
        repeated uint64 f = 1;
        /// `fcsr`.
        required uint32 fcsr = 2;
    }

    /// `thread_info_riscv64` of the published definitions.
    message ThreadInfoRiscv64 = "thread_info_riscv64" {
        /// `clear_tid_addr`.
        required uint64 clear_tid_addr = 1 as hex;
        /// `tls`.
        required uint64 tls = 2;
        /// `gpregs`.
        required message UserRiscv64RegsEntry gpregs = 3;
        /// `fpsimd`.
        required message UserRiscv64DExtEntry fpsimd = 4;
    }
}
