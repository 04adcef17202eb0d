//! Action of one signal, `sigaction(2)`. Section 7.6 of the format.

messages! {
    /// Action of one signal, `sigaction(2)`. Section 7.6.
    message SaEntry = "sa_entry" {
        /// Handler address; 0 default, 1 ignore.
        required uint64 sigaction = 1 as hex;
        /// `sa_flags` as the kernel keeps them.
        required uint64 flags = 2 as hex;
        /// Return trampoline.
        required uint64 restorer = 3 as hex;
        /// Signals blocked meanwhile.
        required uint64 mask = 4 as hex;
        /// Installed through the 32-bit interface.
        optional bool compat_sigaction = 5;
        /// Only on MIPS.
        optional uint64 mask_extended = 6 as hex;
    }
}
