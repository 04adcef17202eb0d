//! A queue of pending signals. Section 7.6 of the format.

messages! {
    /// A pending signal. Section 7.6.
    message SiginfoEntry = "siginfo_entry" {
        /// Raw 128-byte `siginfo_t`.
        required bytes siginfo = 1;
    }

    /// A queue of pending signals. Section 7.6.
    message SignalQueueEntry = "signal_queue_entry" {
        /// In queue order.
        repeated message SiginfoEntry signals = 1;
    }
}
