//! `seccomp.img`: all filters of all threads. Section 22.2 of the format.

messages! {
    /// A seccomp filter. Section 22.2.
    message SeccompFilter = "seccomp_filter" {
        /// BPF program: 8-byte instructions (u16 code, u8 jt, u8 jf, u32 k).
        required bytes filter = 1;
        /// Index of the filter installed next; absent for the newest.
        optional uint32 prev = 2;
        /// Installation flags, `seccomp(2)`; absent = none.
        optional uint32 flags = 3;
    }

    /// `seccomp.img`: all filters of all threads. Section 22.2.
    message SeccompEntry = "seccomp_entry" {
        /// Filters; within a thread's block from newest to oldest.
        repeated message SeccompFilter seccomp_filters = 1;
    }
}
