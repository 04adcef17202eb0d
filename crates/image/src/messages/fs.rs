//! `fs-*.img`: current directory, root directory and umask of a task. Section 18.1 of the format.

messages! {
    /// `fs-*.img`: current directory, root directory and umask of a task. Section 18.1.
    message FsEntry = "fs_entry" {
        /// File id of the current directory.
        required uint32 cwd_id = 1;
        /// File id of the root directory.
        required uint32 root_id = 2;
        /// File mode creation mask.
        optional uint32 umask = 3;
    }
}
