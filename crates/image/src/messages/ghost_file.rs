//! A piece of a large ghost file; `len` bytes follow the record. Section 12.3 of the format.

use super::Timeval;

messages! {
    /// `ghost-file-*.img`: a file without links. A small regular file's bytes follow up to the end.
    /// Section 12.3.
    message GhostFileEntry = "ghost_file_entry" {
        /// User id.
        required uint32 uid = 1;
        /// Group id.
        required uint32 gid = 2;
        /// Mode, `st_mode`.
        required uint32 mode = 3;
        /// Device of the original, kernel encoding.
        optional uint32 dev = 4 as dev;
        /// Inode of the original.
        optional uint64 ino = 5;
        /// Device node: its number, user encoding.
        optional uint32 rdev = 6 as odev;
        /// Access time.
        optional message Timeval atim = 7;
        /// Modification time.
        optional message Timeval mtim = 8;
        /// Contents follow as [`GhostChunkEntry`] records.
        optional bool chunks = 9;
        /// Full size with `chunks`, bytes.
        optional uint64 size = 10;
        /// Target of a symbolic link.
        optional text symlnk_target = 11;
    }

    /// A piece of a large ghost file; `len` bytes follow the record. Section 12.3.
    message GhostChunkEntry = "ghost_chunk_entry" {
        /// Length, bytes.
        required uint64 len = 1;
        /// Offset in the file, bytes.
        required uint64 off = 2;
    }
}
