//! An epoll instance. Section 15 of the format.

use super::FownEntry;

messages! {
    /// A descriptor watched by an epoll instance. Section 15.
    message EventpollTfdEntry = "eventpoll_tfd_entry" {
        /// Links the record to its descriptor in the obsolete separate image; 0 here.
        required uint32 id = 1;
        /// Watched descriptor number in the owner's table.
        required uint32 tfd = 2;
        /// Event mask.
        required uint32 events = 3;
        /// User data.
        required uint64 data = 4;
        /// Device of the target, as the kernel shows it.
        optional uint32 dev = 5;
        /// Inode of the target.
        optional uint64 inode = 6;
        /// Position of the target.
        optional uint64 pos = 7;
        /// gelid's own; CRIU skips it. File id of the target, if it was added under a number which is no
        /// longer its own in the owner's table.
        optional uint32 file = 1000;
        /// That number.
        optional uint32 added_as = 1001;
    }

    /// An epoll instance. Section 15.
    message EventpollFileEntry = "eventpoll_file_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 2;
        /// Owner for I/O signals.
        required message FownEntry fown = 3;
        /// Watched descriptors.
        repeated message EventpollTfdEntry tfd = 4;
    }
}
