//! `irmap-cache`: a path for an inode that an inotify watch names. Sections 15 and 23 of the
//! format.

/// Number of words of [`FhEntry::handle`].
pub const FH_HANDLE_WORDS: usize = 16;

messages! {
    /// A file handle, `name_to_handle_at(2)`. Section 15.
    message FhEntry = "fh_entry" {
        /// Bytes of `handle` that count.
        required uint32 bytes = 1;
        /// Handle type of the filesystem.
        required uint32 r#type = 2;
        /// Opaque handle, always [`FH_HANDLE_WORDS`] words.
        repeated uint64 handle = 3;
        /// A path to the same inode; used instead of the handle.
        optional text path = 4;
        /// Mount the handle belongs to.
        optional uint32 mnt_id = 5;
    }

    /// `irmap-cache`: a path for an inode that an inotify watch names. Section 23.
    message IrmapCacheEntry = "irmap_cache_entry" {
        /// Device, kernel encoding.
        required uint32 dev = 1 as odev;
        /// Inode number.
        required uint64 inode = 2;
        /// Path of the inode.
        required text path = 3;
    }
}
