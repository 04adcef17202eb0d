//! Machine state on aarch64, as `ptrace(2)` delivers it; carried, not interpreted.

messages! {
    /// `user_aarch64_regs_entry` of the published definitions.
    message UserAarch64RegsEntry = "user_aarch64_regs_entry" {
        /// `regs`.
        repeated uint64 regs = 1;
        /// `sp`.
        required uint64 sp = 2;
        /// `pc`.
        required uint64 pc = 3;
        /// `pstate`.
        required uint64 pstate = 4;
    }

    /// `user_aarch64_fpsimd_context_entry` of the published definitions.
    message UserAarch64FpsimdContextEntry = "user_aarch64_fpsimd_context_entry" {
        /// `vregs`.
        repeated uint64 vregs = 1;
        /// `fpsr`.
        required uint32 fpsr = 2;
        /// `fpcr`.
        required uint32 fpcr = 3;
    }

    /// `pac_address_keys` of the published definitions.
    message PacAddressKeys = "pac_address_keys" {
        /// `apiakey_lo`.
        required uint64 apiakey_lo = 1;
        /// `apiakey_hi`.
        required uint64 apiakey_hi = 2;
        /// `apibkey_lo`.
        required uint64 apibkey_lo = 3;
        /// `apibkey_hi`.
        required uint64 apibkey_hi = 4;
        /// `apdakey_lo`.
        required uint64 apdakey_lo = 5;
        /// `apdakey_hi`.
        required uint64 apdakey_hi = 6;
        /// `apdbkey_lo`.
        required uint64 apdbkey_lo = 7;
        /// `apdbkey_hi`.
        required uint64 apdbkey_hi = 8;
        /// `pac_enabled_key`.
        required uint64 pac_enabled_key = 9;
    }

    /// `pac_generic_keys` of the published definitions.
    message PacGenericKeys = "pac_generic_keys" {
        /// `apgakey_lo`.
        required uint64 apgakey_lo = 1;
        /// `apgakey_hi`.
        required uint64 apgakey_hi = 2;
    }

    /// `pac_keys` of the published definitions.
    message PacKeys = "pac_keys" {
        /// `pac_address_keys`.
        optional message PacAddressKeys pac_address_keys = 6;
        /// `pac_generic_keys`.
        optional message PacGenericKeys pac_generic_keys = 7;
    }

    /// `thread_info_aarch64` of the published definitions.
    message ThreadInfoAarch64 = "thread_info_aarch64" {
        /// `clear_tid_addr`.
        required uint64 clear_tid_addr = 1 as hex;
        /// `tls`.
        required uint64 tls = 2;
        /// `gpregs`.
        required message UserAarch64RegsEntry gpregs = 3;
        /// `fpsimd`.
        required message UserAarch64FpsimdContextEntry fpsimd = 4;
        /// `pac_keys`.
        optional message PacKeys pac_keys = 5;
    }
}
