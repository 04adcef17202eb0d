//! A pidfd, `pidfd_open(2)`. Section 16.4 of the format.

use super::FownEntry;

messages! {
    /// A pidfd, `pidfd_open(2)`. Section 16.4.
    message PidfdEntry = "pidfd_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Inode number; descriptors of the same dead process share it.
        required uint32 ino = 2;
        /// Flags without the access mode.
        required uint32 flags = 3;
        /// Virtual pid; -1 if reaped.
        required int32 nspid = 4;
        /// Owner for I/O signals.
        required message FownEntry fown = 5;
        /// gelid's own; CRIU skips it. Of who was reaped: the status that `wait(2)` told.
        optional int32 status = 1000;
    }
}
