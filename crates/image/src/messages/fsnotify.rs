//! A fanotify group. Section 15 of the format.

use super::{FhEntry, FownEntry};

enumerations! {
    /// What a fanotify mark is on.
    enumeration MarkType = "mark_type" {
        /// An inode.
        Inode = 1 "INODE";
        /// A mount.
        Mount = 2 "MOUNT";
    }
}

/// gelid's own [`MarkType`], which CRIU refuses: a file system, found by the path of a mount of it.
pub const FANOTIFY_FILE_SYSTEM: i32 = 1000;

messages! {
    /// A watch of an inotify descriptor. Section 15.
    message InotifyWdEntry = "inotify_wd_entry" {
        /// Links the record to its descriptor in the obsolete separate image.
        required uint32 id = 1;
        /// Inode number.
        required uint64 i_ino = 2;
        /// Events and flags.
        required uint32 mask = 3 as hex;
        /// Ignored events.
        required uint32 ignored_mask = 4 as hex;
        /// Device, kernel encoding.
        required uint32 s_dev = 5 as dev;
        /// Watch number, to be reproduced.
        required uint32 wd = 6;
        /// Handle of the inode.
        required message FhEntry f_handle = 7;
        /// gelid's own; CRIU skips it. File id of the inode, if it has no name left.
        optional uint32 file = 1000;
    }

    /// An inotify descriptor. Section 15.
    message InotifyFileEntry = "inotify_file_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 2 as hex;
        /// Owner for I/O signals.
        required message FownEntry fown = 4;
        /// Watches.
        repeated message InotifyWdEntry wd = 5;
    }

    /// The inode that a fanotify mark is on. Section 15.
    message FanotifyInodeMarkEntry = "fanotify_inode_mark_entry" {
        /// Inode number.
        required uint64 i_ino = 1;
        /// Handle of the inode.
        required message FhEntry f_handle = 2;
    }

    /// The mount that a fanotify mark is on. Section 15.
    message FanotifyMountMarkEntry = "fanotify_mount_mark_entry" {
        /// Mount id.
        required uint32 mnt_id = 1;
        /// A path on the mount.
        optional text path = 2;
    }

    /// A mark of a fanotify group. Section 15.
    message FanotifyMarkEntry = "fanotify_mark_entry" {
        /// Links the record to its descriptor in the obsolete separate image.
        required uint32 id = 1;
        /// [`MarkType`].
        required enumeration MarkType r#type = 2;
        /// Flags of the mark.
        required uint32 mflags = 3 as hex;
        /// Events.
        required uint32 mask = 4 as hex;
        /// Ignored events.
        required uint32 ignored_mask = 5 as hex;
        /// Device, kernel encoding.
        required uint32 s_dev = 6 as dev;
        /// Inode marks.
        optional message FanotifyInodeMarkEntry ie = 7;
        /// Mount marks.
        optional message FanotifyMountMarkEntry me = 8;
        /// gelid's own; CRIU skips it. File id of the inode, if it has no name left.
        optional uint32 file = 1000;
    }

    /// A fanotify group. Section 15.
    message FanotifyFileEntry = "fanotify_file_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 2 as hex;
        /// Owner for I/O signals.
        required message FownEntry fown = 3;
        /// Flags of the group, `fanotify_init(2)`.
        required uint32 faflags = 4 as hex;
        /// Flags of event descriptors.
        required uint32 evflags = 5 as hex;
        /// Marks.
        repeated message FanotifyMarkEntry mark = 6;
    }
}
