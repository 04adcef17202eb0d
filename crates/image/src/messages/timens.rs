//! `timens-*.img`: clocks of the dumped time namespace at dump. Section 19.2 of the format.

messages! {
    /// A time in seconds and nanoseconds. Section 19.2.
    message Timespec = "timespec" {
        /// Seconds.
        required uint64 tv_sec = 1;
        /// Nanoseconds.
        required uint64 tv_nsec = 2;
    }

    /// `timens-*.img`: clocks of the dumped time namespace at dump. Section 19.2.
    message TimensEntry = "timens_entry" {
        /// Reading of the monotonic clock.
        required message Timespec monotonic = 1;
        /// Reading of the boot-time clock.
        required message Timespec boottime = 2;
    }
}
