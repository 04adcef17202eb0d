//! Times.

messages! {
    /// A time in seconds and microseconds. Section 12.3.
    message Timeval = "timeval" {
        /// Seconds.
        required uint64 tv_sec = 1;
        /// Microseconds.
        required uint64 tv_usec = 2;
    }
}
