//! What this kernel can do, and what the caller may: asked one feature at a time.
//!
//! Nothing is asked before [`probe`] is called, and nothing is kept: a run asks for what it needs. A probe
//! tries the call itself, on objects of its own, wherever that is harmless; each takes well below a
//! millisecond, but for [`Feature::AioRemap`], whose clean-up waits some 30 ms for the kernel. Names are those of `criu check --feature` where it has the feature.

mod files;
mod memory;
mod net;
mod task;

use std::fmt;

use rustix::io::{Errno, Result};

/// The answer to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It works, for this caller.
    Yes,
    /// It does not.
    No(Reason),
    /// It cannot be found out here without doing harm, or not at all.
    Unknown(Reason),
}

impl Support {
    /// Whether it works for certain.
    pub fn is_yes(self) -> bool {
        self == Self::Yes
    }

    fn when(there: bool, otherwise: &'static str) -> Self {
        if there {
            Self::Yes
        } else {
            Self::No(Reason::Says(otherwise))
        }
    }
}

impl<T> From<Result<T>> for Support {
    fn from(result: Result<T>) -> Self {
        match result {
            Ok(_) => Self::Yes,
            Err(errno) => Self::No(Reason::Errno(errno)),
        }
    }
}

/// Why a feature is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The kernel said so.
    Errno(Errno),
    /// What was found instead.
    Says(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => errno.fmt(f),
            Self::Says(text) => f.write_str(text),
        }
    }
}

macro_rules! features {
    ($($feature:ident $name:literal $probe:expr, $about:literal;)*) => {
        /// Something that a kernel may have and a caller may be allowed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Feature {
            $(#[doc = concat!("`", $name, "`: ", $about)]
            $feature,)*
        }

        impl Feature {
            /// All features.
            pub const ALL: &[Self] = &[$(Self::$feature),*];

            /// Its name on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$feature => $name,)*
                }
            }

            /// What it is, in a few words.
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$feature => $about,)*
                }
            }

            fn ask(self) -> Support {
                match self {
                    $(Self::$feature => $probe(),)*
                }
            }
        }
    };
}

features! {
    // Memory.
    PagemapScan "pagemap_scan" memory::pagemap_scan, "the PAGEMAP_SCAN ioctl";
    PagemapScanGuardPages "pagemap_scan_guard_pages" memory::pagemap_scan_guard,
        "PAGEMAP_SCAN reports guard markers";
    ProcmapQuery "procmap_query" memory::procmap_query, "the PROCMAP_QUERY ioctl";
    ProcessMadviseCollapse "process_madvise_collapse" memory::collapse,
        "MADV_COLLAPSE through process_madvise";
    GuardPages "guard_pages" memory::guard_pages, "MADV_GUARD_INSTALL";
    SetMmMap "set_mm_map" memory::set_mm_map, "PR_SET_MM_MAP";
    Uffd "uffd" memory::uffd, "userfaultfd";
    UffdNoncoop "uffd-noncoop" memory::uffd_noncoop, "userfaultfd tells of fork, remap and unmap";
    UffdWpAsync "uffd_wp_async" memory::uffd_wp_async, "asynchronous write-protection";
    SoftDirty "soft_dirty" memory::soft_dirty, "soft-dirty bits";
    MemDirtyTrack "mem_dirty_track" memory::dirty_track, "some way to tell what was written";
    MemfdHugetlb "memfd_hugetlb" memory::memfd_hugetlb, "memfds of huge pages";
    MapFiles "map_files" memory::map_files, "links in /proc/PID/map_files can be followed";
    AioRemap "aio_remap" memory::aio_remap, "an AIO ring survives mremap";
    CanMapVdso "can_map_vdso" memory::can_map_vdso, "a vDSO can be mapped by arch_prctl";

    // Tasks.
    Clone3SetTid "clone3_set_tid" task::clone3_set_tid, "clone3 with given pids";
    PidfdStore "pidfd_store" task::pidfd, "pidfd_open and pidfd_getfd";
    Kcmp "kcmp" task::kcmp, "kcmp";
    KcmpEpoll "kcmp_epoll" task::kcmp_epoll, "kcmp finds files in epoll descriptors";
    GetRseqConf "get_rseq_conf" task::get_rseq_conf, "PTRACE_GET_RSEQ_CONFIGURATION";
    GetSyscallInfo "get_syscall_info" task::get_syscall_info, "PTRACE_GET_SYSCALL_INFO";
    PeekSiginfo "peek_siginfo" task::peek_siginfo, "PTRACE_PEEKSIGINFO and PTRACE_GETSIGMASK";
    Breakpoints "breakpoints" task::breakpoints, "hardware breakpoints through ptrace";
    SeccompSuspend "seccomp_suspend" task::seccomp_suspend, "PTRACE_O_SUSPEND_SECCOMP";
    SeccompFilters "seccomp_filters" task::seccomp_filters, "PTRACE_SECCOMP_GET_FILTER";
    TimerCrIds "timer_cr_ids" task::timer_restore_ids, "POSIX timers with given ids";
    ProcTimers "proc_timers" task::proc_timers, "/proc/PID/timers";
    ProcChildren "proc_children" task::proc_children, "/proc/PID/task/TID/children";
    NsPid "ns_pid" task::ns_pid, "NSpid in /proc/PID/status";
    Userns "userns" task::userns, "user namespaces and PR_SET_MM_MAP";
    Cgroupns "cgroupns" task::cgroupns, "cgroup namespaces";
    Timens "timens" task::timens, "time namespaces";
    Loginuid "loginuid" task::loginuid, "the audit user can be set";
    ApparmorStacking "apparmor_stacking" task::apparmor_stacking, "AppArmor namespaces stack";
    CgroupV2Freeze "cgroup_v2_freeze" task::cgroup_v2_freeze, "the freezer of cgroup version 2";
    CapCheckpointRestore "cap_checkpoint_restore" task::cap_checkpoint_restore,
        "CAP_CHECKPOINT_RESTORE is effective";
    CapSysAdmin "cap_sys_admin" task::cap_sys_admin, "CAP_SYS_ADMIN is effective";
    CapSysPtrace "cap_sys_ptrace" task::cap_sys_ptrace, "CAP_SYS_PTRACE is effective";
    CapSysResource "cap_sys_resource" task::cap_sys_resource, "CAP_SYS_RESOURCE is effective";
    CapNetAdmin "cap_net_admin" task::cap_net_admin, "CAP_NET_ADMIN is effective";

    // Files and mounts.
    MntId "mnt_id" files::mnt_id, "fdinfo has mnt_id";
    FdinfoLock "fdinfo_lock" files::fdinfo_lock, "fdinfo lists locks";
    Timerfd "timerfd" files::timerfd, "the ticks of a timerfd can be set";
    Openat2 "openat2" files::openat2, "openat2";
    MoveMountSetGroup "move_mount_set_group" files::move_mount_set_group, "MOVE_MOUNT_SET_GROUP";
    Statmount "statmount" files::statmount, "statmount and listmount";
    Autofs "autofs" files::autofs, "mountinfo shows the pipe of autofs";
    OverlayfsMaps "overlayfs_maps" files::overlayfs_maps, "maps show inodes of overlayfs as stat does";
    Tun "tun" files::tun, "tun devices can be made again";
    TunNs "tun_ns" files::tun_ns, "the network namespace of a tun device is told";

    // Sockets.
    SkNs "sk_ns" net::sk_ns, "the network namespace of a socket is told";
    SkUnixFile "sk_unix_file" net::sk_unix_file, "the file of a unix socket is told";
    SockoptBufLock "sockopt_buf_lock" net::buf_lock, "SO_BUF_LOCK";
    Ipv6Freebind "ipv6_freebind" net::ipv6_freebind, "IPV6_FREEBIND";
    TcpRepair "tcp_repair" net::tcp_repair, "TCP_REPAIR";
    TcpHalfClosed "tcp_half_closed" net::tcp_half_closed, "TCP_REPAIR of half-closed connections";
    NetDiagRaw "net_diag_raw" net::diag_raw, "sock_diag of raw sockets";
    Nsid "nsid" net::nsid, "ids of network namespaces are told";
    LinkNsid "link_nsid" net::link_nsid, "the namespace of a link's peer is told";
    Newifindex "newifindex" net::new_index, "a link that is moved gets an index";
    ExternalNetNs "external_net_ns" net::external_net_ns, "external network namespaces";
}

impl Feature {
    /// The feature of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|feature| feature.name() == name)
    }
}

/// Finds out whether the kernel has `feature` and the caller may use it.
pub fn probe(feature: Feature) -> Support {
    feature.ask()
}
