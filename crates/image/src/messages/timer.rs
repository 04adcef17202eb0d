//! Timers of a process. Section 7.5 of the format.

messages! {
    /// An interval timer, `setitimer(2)`. All zero is disarmed. Section 7.5.
    message ItimerEntry = "itimer_entry" {
        /// Interval and remaining time; same rule for zero remaining.
        required uint64 isec = 1;
        /// Interval, microseconds.
        required uint64 iusec = 2;
        /// Interval and remaining time; same rule for zero remaining.
        required uint64 vsec = 3;
        /// Remaining time, microseconds.
        required uint64 vusec = 4;
    }

    /// A POSIX timer, `timer_create(2)`. Section 7.5.
    message PosixTimerEntry = "posix_timer_entry" {
        /// Kernel timer id, to be reproduced.
        required uint32 it_id = 1;
        /// Clock.
        required uint32 clock_id = 2;
        /// Signal.
        required uint32 si_signo = 3;
        /// 0 signal, 1 none, 2 thread, 4 to a thread id.
        required uint32 it_sigev_notify = 4;
        /// Value passed with the signal.
        required uint64 sival_ptr = 5;
        /// Overrun count; not restored by the kernel interface.
        required uint32 overrun = 6;
        /// Interval and remaining time; same rule for zero remaining.
        required uint64 isec = 7;
        /// Interval and remaining time; same rule for zero remaining.
        required uint64 insec = 8;
        /// Interval and remaining time; same rule for zero remaining.
        required uint64 vsec = 9;
        /// Interval and remaining time; same rule for zero remaining.
        required uint64 vnsec = 10;
        /// Virtual tid for notify mode 4.
        optional int32 notify_thread_id = 11;
    }

    /// Timers of a process. Section 7.5.
    message TaskTimersEntry = "task_timers_entry" {
        /// `ITIMER_REAL`.
        required message ItimerEntry real = 1;
        /// `ITIMER_VIRTUAL`.
        required message ItimerEntry virt = 2;
        /// `ITIMER_PROF`.
        required message ItimerEntry prof = 3;
        /// POSIX timers.
        repeated message PosixTimerEntry posix = 4;
    }
}
