//! An open named FIFO; flags and path are in the regular file `regf_id`. Section 13 of the format.

messages! {
    /// An open named FIFO; flags and path are in the regular file `regf_id`. Section 13.
    message FifoEntry = "fifo_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Inode number of the FIFO.
        required uint32 pipe_id = 2;
        /// File id of the regular file with flags and path.
        optional uint32 regf_id = 3;
    }
}
