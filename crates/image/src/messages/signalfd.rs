//! A signalfd. Section 15 of the format.

use super::FownEntry;

messages! {
    /// A signalfd. Section 15.
    message SignalfdEntry = "signalfd_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 2 as hex;
        /// Owner for I/O signals.
        required message FownEntry fown = 3;
        /// Bit n-1 is signal n.
        required uint64 sigmask = 4 as hex;
    }
}
