//! Machine state on loongarch64, as `ptrace(2)` delivers it; carried, not interpreted.

messages! {
    /// `user_loongarch64_gpregs_entry` of the published definitions.
    message UserLoongarch64GpregsEntry = "user_loongarch64_gpregs_entry" {
        /// `regs`.
        repeated uint64 regs = 1;
        /// `pc`.
        required uint64 pc = 2;
    }

    /// `user_loongarch64_fpregs_entry` of the published definitions.
    message UserLoongarch64FpregsEntry = "user_loongarch64_fpregs_entry" {
        /// `regs`.
        repeated uint64 regs = 1;
        /// `fcc`.
        required uint64 fcc = 2;
        /// `fcsr`.
        required uint32 fcsr = 3;
    }

    /// `thread_info_loongarch64` of the published definitions.
    message ThreadInfoLoongarch64 = "thread_info_loongarch64" {
        /// `clear_tid_addr`.
        required uint64 clear_tid_addr = 1 as hex;
        /// `tls`.
        required uint64 tls = 2;
        /// `gpregs`.
        required message UserLoongarch64GpregsEntry gpregs = 3;
        /// `fpregs`.
        required message UserLoongarch64FpregsEntry fpregs = 4;
    }
}
