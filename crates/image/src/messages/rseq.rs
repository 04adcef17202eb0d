//! Registration of restartable sequences, `rseq(2)`. Section 7.3 of the format.

messages! {
    /// Registration of restartable sequences, `rseq(2)`. Section 7.3.
    message RseqEntry = "rseq_entry" {
        /// Address of the user structure; 0 = unregistered.
        required uint64 rseq_abi_pointer = 1;
        /// Its size, bytes.
        required uint32 rseq_abi_size = 2;
        /// Abort signature.
        required uint32 signature = 3;
        /// Critical section the thread was in, if it forbids restart on signal.
        optional uint64 rseq_cs_pointer = 4;
    }
}
