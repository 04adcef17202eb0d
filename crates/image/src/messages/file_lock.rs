//! `filelocks.img`: a lock held by a task. Section 18.2 of the format.

messages! {
    /// `filelocks.img`: a lock held by a task. Section 18.2.
    message FileLockEntry = "file_lock_entry" {
        /// 1 POSIX, 2 flock, 4 open-file-description lock, 8 lease.
        required uint32 flag = 1;
        /// 0 read, 1 write, 2 none; a mandatory flock is 32 combined with 64 (read), 128 (write) or
        /// 192 (both) and is passed to flock(2) as it is; a lease being broken has 4 added.
        required uint32 r#type = 2;
        /// Virtual pid of a task holding a descriptor.
        required int32 pid = 3;
        /// Descriptor number in that task.
        required int32 fd = 4;
        /// Byte range; `len` 0 = to end of file.
        required int64 start = 5;
        /// Byte range; `len` 0 = to end of file.
        required int64 len = 6;
        /// gelid's own; CRIU skips it. 1: a lease that is being broken until nothing is left of it is one for
        /// writing, although the description is for reading.
        optional uint32 held = 1000;
    }
}
