//! An eventfd. Section 15 of the format.

use super::FownEntry;

messages! {
    /// An eventfd. Section 15.
    message EventfdFileEntry = "eventfd_file_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 2;
        /// Owner for I/O signals.
        required message FownEntry fown = 3;
        /// Value of the counter.
        required uint64 counter = 4;
        /// gelid's own; CRIU skips it. A read takes one off (`EFD_SEMAPHORE`).
        optional bool semaphore = 1000;
    }
}
