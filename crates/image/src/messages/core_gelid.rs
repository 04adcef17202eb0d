//! What gelid records of tasks and threads beyond the published format.
//!
//! All of it hangs on field 1000 of a published message. Readers that do not know the number skip it, as
//! protobuf demands, and restore the rest.

use super::GelidUndoEntry;

messages! {
    /// Process part. Field 1000 of `task_core_entry`.
    message GelidTaskEntry = "gelid_task_entry" {
        /// `/proc/PID/coredump_filter`, unless it is the default.
        optional uint64 coredump_filter = 1 as hex;
        /// `PR_SET_MDWE`, if any bit is set.
        optional uint32 mdwe = 2 as hex;
        /// `PR_SET_MEMORY_MERGE`, if on.
        optional bool memory_merge = 3;
        /// Flags of `mlockall(2)` for mappings to come: `MCL_FUTURE`, and `MCL_ONFAULT` with it.
        optional uint32 lock_future = 4 as hex;
        /// Of a stopped process: its parent has been told of the stop.
        optional bool stop_told = 5;
        /// The process has left the terminal of its session (`TIOCNOTTY`).
        optional bool no_terminal = 20;
        /// Nice value of the session's group (`/proc/PID/autogroup`), if not 0.
        optional sint32 autogroup_nice = 7;
        /// What System V semaphores get back when the process ends.
        repeated message GelidUndoEntry undo = 8;
    }

    /// Thread part. Field 1000 of `thread_core_entry`.
    message GelidThreadEntry = "gelid_thread_entry" {
        /// Execution domain and flags, `personality(2)`, if not 0.
        optional uint32 personality = 1 as hex;
        /// Processors the thread may run on, bit n of word m is processor 64m+n; absent if those are all.
        repeated uint64 affinity = 2 as hex;
        /// `ioprio_set(2)`: class << 13 | level; absent if it follows from the nice value.
        optional uint32 ioprio = 3 as hex;
        /// `PR_SET_TIMERSLACK`, nanoseconds; absent for the kernel's default of 50000.
        optional uint64 timer_slack = 4;
        /// What `sched_setattr(2)` knows beyond policy, nice value and priority.
        optional message GelidSchedEntry sched = 5;
        /// `PR_SET_TSC`, if reading the time stamp counter is forbidden.
        optional uint32 tsc = 6;
        /// `PR_SET_IO_FLUSHER`, if on.
        optional bool io_flusher = 7;
        /// `PR_MCE_KILL` policy, if not the default: 0 late, 1 early.
        optional uint32 mce_kill = 8;
        /// `PR_SET_SPECULATION_CTRL` of misfeatures 0, 1 and 2, if anything is disabled: bits 2 to 4.
        repeated uint32 speculation = 10 as hex;
        /// The system call the thread was in, with what was left of its time.
        optional message GelidRestartEntry restart = 9;
        /// `PR_SET_SYSCALL_USER_DISPATCH`, if on.
        optional message GelidDispatchEntry dispatch = 11;
        /// Number of its descriptor table, if that is not the one of its process.
        optional uint32 files_id = 12;
        /// `fs-TID` is there, since its directories and umask are not those of its process.
        optional bool own_fs = 13;
    }

    /// How system calls of a thread are diverted, as `PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG` tells it.
    message GelidDispatchEntry = "gelid_dispatch_entry" {
        /// Address of the byte that switches it, or 0.
        required uint64 selector = 1 as hex;
        /// Start of the code whose calls pass.
        required uint64 offset = 2 as hex;
        /// Bytes of that code.
        required uint64 len = 3 as hex;
    }

    /// Scheduling parameters, `sched_setattr(2)`.
    message GelidSchedEntry = "gelid_sched_entry" {
        /// `SCHED_FLAG_*` without reset-on-fork.
        required uint64 flags = 1 as hex;
        /// Nanoseconds.
        required uint64 runtime = 2;
        /// Nanoseconds.
        required uint64 deadline = 3;
        /// Nanoseconds.
        required uint64 period = 4;
        /// Lowest utilisation.
        optional uint32 util_min = 5;
        /// Highest utilisation.
        optional uint32 util_max = 6;
    }

    /// An interrupted system call with a timeout, to be taken up again. Its registers and arguments are
    /// those of the program; readers without this entry let the call return `EINTR` or issue it anew.
    message GelidRestartEntry = "gelid_restart_entry" {
        /// Number of the call.
        required uint32 nr = 1;
        /// Nanoseconds left.
        required uint64 remaining = 2;
    }

    /// A component of the extended processor state that has no field of its own. Field 1000 of
    /// `user_x86_xsave_entry`.
    message GelidXsaveEntry = "gelid_xsave_entry" {
        /// Number of the component.
        required uint32 component = 1;
        /// Its bytes.
        required bytes state = 2;
    }
}
