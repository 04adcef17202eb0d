//! A file that a plugin restores. Section 16.6 of the format.

use super::FownEntry;

messages! {
    /// A file that a plugin restores. Section 16.6.
    message ExtFileEntry = "ext_file_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Owner for I/O signals.
        required message FownEntry fown = 5;
    }
}
