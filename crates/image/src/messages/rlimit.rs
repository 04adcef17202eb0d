//! One resource limit; infinity is `u64::MAX`. Section 7.2 of the format.

messages! {
    /// One resource limit; infinity is `u64::MAX`. Section 7.2.
    message RlimitEntry = "rlimit_entry" {
        /// Soft limit.
        required uint64 cur = 1;
        /// Hard limit.
        required uint64 max = 2;
    }
}
