//! `pipes-data.img`, `fifo-data.img`: buffered data of a pipe; `bytes` bytes follow the record.
//! Section 13 of the format.

messages! {
    /// `pipes-data.img`, `fifo-data.img`: buffered data of a pipe; `bytes` bytes follow the record.
    /// Section 13.
    message PipeDataEntry = "pipe_data_entry" {
        /// Inode number of the pipe.
        required uint32 pipe_id = 1;
        /// Length of the data that follows.
        required uint32 bytes = 2;
        /// Capacity, bytes (`F_SETPIPE_SZ`).
        optional uint32 size = 3;
    }
}
