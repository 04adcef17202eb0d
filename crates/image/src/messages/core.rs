//! Tasks and threads (section 7).

use super::{
    CredsEntry, GelidTaskEntry, GelidThreadEntry, RlimitEntry, RseqEntry, SaEntry,
    SignalQueueEntry, TaskTimersEntry, ThreadInfoAarch64, ThreadInfoArm, ThreadInfoLoongarch64,
    ThreadInfoMips, ThreadInfoPpc64, ThreadInfoRiscv64, ThreadInfoS390, ThreadInfoX86,
};

enumerations! {
    /// Secure computing mode, `seccomp(2)` (section 22.2).
    enumeration SeccompMode = "seccomp_mode" {
        /// Off.
        Disabled = 0 "disabled";
        /// Strict.
        Strict = 1 "strict";
        /// Filters.
        Filter = 2 "filter";
    }

    /// Architecture of a core image (section 7.1).
    enumeration March = "core_entry.march" {
        /// Unknown.
        Unknown = 0 "UNKNOWN";
        /// x86-64, 32-bit tasks included.
        X86_64 = 1 "X86_64";
        /// arm.
        Arm = 2 "ARM";
        /// aarch64.
        Aarch64 = 3 "AARCH64";
        /// ppc64.
        Ppc64 = 4 "PPC64";
        /// s390.
        S390 = 5 "S390";
        /// mips.
        Mips = 6 "MIPS";
        /// loongarch64.
        Loongarch64 = 7 "LOONGARCH64";
        /// riscv64.
        Riscv64 = 8 "RISCV64";
    }
}

messages! {
    /// What belongs to the process rather than to a thread; in the leader's core only. Section 7.2.
    message TaskCoreEntry = "task_core_entry" {
        /// 1 running/alive, 2 dead (zombie), 3 stopped. 4 helper, 5 thread, 6 zombie and 255
        /// undefined are internal values never written.
        required uint32 task_state = 1 as dict TASK_STATE;
        /// Zombies: the raw wait status (`code << 8` for exit, signal number for a kill, `0x80` =
        /// core dumped). The restorer forks a child that ends with this status. 0 for live tasks.
        required uint32 exit_code = 2;
        /// Execution domain bits; written, not restored. (The writer parses the hexadecimal kernel
        /// text as a decimal number, so only the value 0 is reliable.).
        required uint32 personality = 3;
        /// Kernel task flags from the stat file; informational.
        required uint32 flags = 4;
        /// Blocked signals of the leader; bit n-1 stands for signal n.
        required uint64 blk_sigset = 5 as hex;
        /// Command name, at most 15 bytes.
        required text comm = 6;
        /// Interval and POSIX timers (section 7.5).
        optional message TaskTimersEntry timers = 7;
        /// 16 `rlimit_entry` in the order of resource numbers 0…15 (cpu, fsize, data, stack, core,
        /// rss, nproc, nofile, memlock, as, locks, sigpending, msgqueue, nice, rtprio, rttime);
        /// infinity is `u64::MAX`.
        optional message TaskRlimitsEntry rlimits = 8;
        /// Obsolete place of the cgroup set id; now per thread.
        optional uint32 cg_set = 9;
        /// Signals pending for the process (section 7.6).
        optional message SignalQueueEntry signals_s = 10;
        /// Obsolete; overrides the leader's `seccomp_mode`.
        optional enumeration SeccompMode old_seccomp_mode = 11;
        /// Obsolete; overrides the leader's `seccomp_filter`.
        optional uint32 old_seccomp_filter = 12;
        /// Audit login uid; 4294967295 = unset. Restored only if it differs from the restorer's and
        /// the kernel allows it.
        optional uint32 loginuid = 13;
        /// Written to the `oom_score_adj` proc file.
        optional int32 oom_score_adj = 14;
        /// 62 entries (section 7.6).
        repeated message SaEntry sigactions = 15;
        /// Subreaper attribute.
        optional bool child_subreaper = 18;
        /// Signals 65…128, only on MIPS.
        optional uint64 blk_sigset_extended = 20 as hex;
        /// Signal that stopped a task in state 3; the restorer stops the task with it (SIGSTOP if
        /// absent).
        optional uint32 stop_signo = 21;
        /// Bit set of membarrier registration commands issued by the process (bit n ⇔ command value
        /// `1 << n`); absent if none or not obtainable.
        optional uint32 membarrier_registration_mask = 22 as hex;
        /// gelid's own; CRIU skips it.
        optional message GelidTaskEntry gelid = 1000;
    }

    /// `ids-*.img`: identity of the kernel objects and namespaces a task uses. Section 4.1.
    message TaskKobjIdsEntry = "task_kobj_ids_entry" {
        /// Address space.
        required uint32 vm_id = 1;
        /// Descriptor table; key of `fdinfo-*`.
        required uint32 files_id = 2;
        /// Filesystem context.
        required uint32 fs_id = 3;
        /// Table of signal handlers.
        required uint32 sighand_id = 4;
        /// pid namespace (section 4.2).
        optional uint32 pid_ns_id = 5;
        /// Network namespace.
        optional uint32 net_ns_id = 6;
        /// IPC namespace.
        optional uint32 ipc_ns_id = 7;
        /// UTS namespace.
        optional uint32 uts_ns_id = 8;
        /// Mount namespace.
        optional uint32 mnt_ns_id = 9;
        /// User namespace.
        optional uint32 user_ns_id = 10;
        /// cgroup namespace; absent if the kernel has none.
        optional uint32 cgroup_ns_id = 11;
        /// Time namespace; absent if the kernel has none.
        optional uint32 time_ns_id = 12;
        /// Time namespace that its children are born into, if it is another. Not in the published format.
        optional uint32 time_ns_for_children_id = 1001;
    }

    /// Alternate signal stack, `sigaltstack(2)`. Section 7.3.
    message ThreadSasEntry = "thread_sas_entry" {
        /// Address.
        required uint64 ss_sp = 1;
        /// Size, bytes.
        required uint64 ss_size = 2;
        /// 2 = disabled.
        required uint32 ss_flags = 3;
    }

    /// What belongs to each thread, the leader included. Section 7.3.
    message ThreadCoreEntry = "thread_core_entry" {
        /// Head of the robust futex list, `set_robust_list(2)`.
        required uint64 futex_rla = 1;
        /// Length of the head, bytes.
        required uint32 futex_rla_len = 2;
        /// Nice value.
        optional sint32 sched_nice = 3;
        /// Policy, `sched(7)`; may include the reset-on-fork bit 0x40000000.
        optional uint32 sched_policy = 4;
        /// Priority, for FIFO (1) and RR (2).
        optional uint32 sched_prio = 5;
        /// Blocked signals of a thread that is not the leader; bit n-1 is signal n.
        optional uint64 blk_sigset = 6;
        /// Alternate signal stack; `ss_flags` 2 = disabled.
        optional message ThreadSasEntry sas = 7;
        /// Parent death signal, only if set.
        optional uint32 pdeath_sig = 8;
        /// Signals pending for this thread.
        optional message SignalQueueEntry signals_p = 9;
        /// Credentials (section 7.7).
        optional message CredsEntry creds = 10;
        /// [`SeccompMode`] of the thread.
        optional enumeration SeccompMode seccomp_mode = 11;
        /// Index in `seccomp.img` of the filter installed first.
        optional uint32 seccomp_filter = 12;
        /// Thread name.
        optional text comm = 13;
        /// Signals 65 to 128, only on MIPS.
        optional uint64 blk_sigset_extended = 14;
        /// Restartable sequences; absent if the kernel offers no way to ask.
        optional message RseqEntry rseq_entry = 15;
        /// Cgroup set of the thread; absent for unprivileged dumps.
        optional uint32 cg_set = 16;
        /// gelid's own; CRIU skips it.
        optional message GelidThreadEntry gelid = 1000;
    }

    /// Resource limits, `getrlimit(2)`. Section 7.2.
    message TaskRlimitsEntry = "task_rlimits_entry" {
        /// In the order of resource numbers 0 to 15.
        repeated message RlimitEntry rlimits = 1;
    }

    /// `core-*.img`: a task or a thread. Section 7.1.
    message CoreEntry = "core_entry" {
        /// Architecture, as [`March`]; selects the machine state below.
        required enumeration March mtype = 1;
        /// Machine state, x86.
        optional message ThreadInfoX86 thread_info = 2;
        /// Machine state, arm.
        optional boxed message ThreadInfoArm ti_arm = 6;
        /// Machine state, aarch64.
        optional boxed message ThreadInfoAarch64 ti_aarch64 = 8;
        /// Machine state, ppc64.
        optional boxed message ThreadInfoPpc64 ti_ppc64 = 9;
        /// Machine state, s390.
        optional boxed message ThreadInfoS390 ti_s390 = 10;
        /// Machine state, MIPS.
        optional boxed message ThreadInfoMips ti_mips = 11;
        /// Machine state, loongarch64.
        optional boxed message ThreadInfoLoongarch64 ti_loongarch64 = 12;
        /// Machine state, riscv64.
        optional boxed message ThreadInfoRiscv64 ti_riscv64 = 13;
        /// Process part; absent for threads other than the leader.
        optional message TaskCoreEntry tc = 3;
        /// Obsolete place of `ids-*.img`; must be absent for other threads.
        optional message TaskKobjIdsEntry ids = 4;
        /// Thread part; absent for zombies.
        optional message ThreadCoreEntry thread_core = 5;
    }
}
