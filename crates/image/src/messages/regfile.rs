//! Anything reopened by path: regular files, directories, device nodes, files of procfs. Section
//! 12.1 of the format.

use super::FownEntry;

messages! {
    /// Anything reopened by path: regular files, directories, device nodes, files of procfs.
    /// Section 12.1.
    message RegFileEntry = "reg_file_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 2 as flags OPEN;
        /// File position in bytes; `u64::MAX` = do not seek.
        required uint64 pos = 3;
        /// Owner for I/O signals.
        required message FownEntry fown = 5;
        /// Absolute path inside the root mount namespace (or inside the mount namespace that
        /// `mnt_id` belongs to); for a deleted file the path without the kernel's deletion suffix.
        /// The restorer drops the leading slash and opens relative to the root of that namespace.
        required text name = 6;
        /// Mount the file was opened through, present only if mount namespaces are dumped; default
        /// -1.
        optional sint32 mnt_id = 7 default "-1";
        /// Size at dump; only regular files, omitted for files opened write-only with append. A
        /// different size is an error on restore.
        optional uint64 size = 8;
        /// The file is provided from outside; `name` is then `file[$mnt_id:$inode]`, both
        /// hexadecimal, and serves as key for inherited descriptors.
        optional bool ext = 9;
        /// `st_mode` incl. file type; checked on restore.
        optional uint32 mode = 10;
        /// GNU build id of ELF files as u32 words (bytes in file order, little-endian packed,
        /// zero-padded to a multiple of 4); checked if validation by build id is on.
        repeated uint32 build_id = 11;
        /// Not used.
        optional uint32 checksum = 12;
        /// Not used.
        optional uint32 checksum_config = 13;
        /// Not used.
        optional uint32 checksum_parameter = 14;
        /// gelid's own; CRIU skips it. A POSIX message queue; `name` is where it would be if queues were mounted on
        /// `/dev/mqueue`.
        optional bool mqueue = 1000;
        /// gelid's own. The IPC namespace of a POSIX message queue, if it is not the root's.
        optional uint32 ipc_ns = 1001;
    }
}
