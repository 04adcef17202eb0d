//! A timerfd. Section 15 of the format.

use super::FownEntry;

messages! {
    /// A timerfd. Section 15.
    message TimerfdEntry = "timerfd_entry" {
        /// File id (section 4.3).
        required uint32 id = 1;
        /// Open flags of the description, without `O_CLOEXEC` (section 11.3).
        required uint32 flags = 2 as hex;
        /// Owner for I/O signals.
        required message FownEntry fown = 3;
        /// Clock.
        required uint32 clockid = 4;
        /// Unread expirations.
        required uint64 ticks = 5;
        /// 1 = absolute.
        required uint32 settime_flags = 6 as hex;
        /// Remaining time, seconds.
        required uint64 vsec = 7;
        /// Remaining time, nanoseconds.
        required uint64 vnsec = 8;
        /// Interval, seconds.
        required uint64 isec = 9;
        /// Interval, nanoseconds.
        required uint64 insec = 10;
        /// gelid's own; CRIU skips it. Nanoseconds since the epoch at which a timer goes off that was set to a time
        /// of day, however long the tree was away.
        optional uint64 deadline = 1000;
    }
}
