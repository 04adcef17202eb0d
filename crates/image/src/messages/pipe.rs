//! An open end of a pipe. Section 13 of the format.

use super::FownEntry;

messages! {
    /// An open end of a pipe. Section 13.
    message PipeEntry = "pipe_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Inode number of the pipe.
        required uint32 pipe_id = 2;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 3 as hex;
        /// Owner for I/O signals.
        required message FownEntry fown = 4;
    }
}
