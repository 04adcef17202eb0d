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
        /// gelid's own: lengths of the packets (`O_DIRECT`) that the data are; absent if they are a stream.
        repeated uint32 packet = 1000;
    }
}
