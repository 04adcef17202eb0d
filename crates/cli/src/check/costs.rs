//! What each kernel feature is for, and what its absence costs.

use gelid_sys::probe::Feature;

/// Who needs a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Every dump or restore.
    Always,
    /// Some trees, or speed.
    Some,
    /// What gelid does not do yet.
    Later,
    /// As [`Need::Some`], and rarely met.
    Experimental,
}

impl Need {
    /// Its name in a JSON document.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Some => "some",
            Self::Later => "later",
            Self::Experimental => "experimental",
        }
    }
}

/// The price of a missing feature.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) need: Need,
    /// What does not work, or is slower, without it.
    pub(super) without: &'static str,
}

/// What is lost without `feature`.
pub(super) fn of(feature: Feature) -> Cost {
    let (need, without) = table(feature);
    Cost { need, without }
}

fn table(feature: Feature) -> (Need, &'static str) {
    use Need::{Always, Experimental, Later, Some};
    match feature {
        Feature::PagemapScan => (Always, "memory cannot be dumped (Linux 6.7 has it)"),
        Feature::PagemapScanGuardPages => (Some, "guard pages of a target are not seen"),
        Feature::ProcmapQuery => (Some, "mappings are read as text, which is slower"),
        Feature::ProcessMadviseCollapse => {
            (Some, "huge pages are not restored as such, and slower")
        }
        Feature::GuardPages => (Some, "guard pages cannot be restored"),
        Feature::SetMmMap => (Always, "the layout of an address space cannot be restored"),
        Feature::Uffd | Feature::UffdNoncoop => (Later, "no lazy restore"),
        Feature::UffdWpAsync => (Later, "no incremental dumps, unless by soft-dirty bits"),
        Feature::SoftDirty => (Later, "nothing where uffd_wp_async is there"),
        Feature::MemDirtyTrack => (Later, "no incremental dumps"),
        Feature::MemfdHugetlb => (Some, "memfds of huge pages cannot be restored"),
        Feature::MapFiles => (
            Always,
            "mapped files that were deleted or replaced cannot be read",
        ),
        Feature::AioRemap => (Some, "AIO rings cannot be restored"),
        Feature::CanMapVdso => (Some, "the vDSO of another kernel cannot be replaced"),
        Feature::Clone3SetTid => (Always, "tasks cannot get their pids back"),
        Feature::PidfdStore => (Always, "descriptors of a target cannot be looked at"),
        Feature::Kcmp => (Always, "what tasks share cannot be told"),
        Feature::KcmpEpoll => (Later, "no epoll descriptors that were moved"),
        Feature::GetRseqConf => (
            Some,
            "threads that use rseq, as those of glibc do, cannot be dumped",
        ),
        Feature::GetSyscallInfo => (Some, "interrupted system calls are told by registers alone"),
        Feature::PeekSiginfo => (Always, "pending signals cannot be dumped"),
        Feature::Breakpoints => (Some, "nothing: gelid uses none"),
        Feature::SeccompSuspend => (Some, "tasks under seccomp cannot be dumped"),
        Feature::SeccompFilters => (Some, "seccomp filters cannot be dumped"),
        Feature::TimerCrIds => (Some, "POSIX timers get their ids by trying"),
        Feature::ProcTimers => (Some, "POSIX timers cannot be dumped"),
        Feature::ProcChildren => (Always, "the tree cannot be walked"),
        Feature::NsPid => (Always, "pids of inner namespaces are not known"),
        Feature::Userns | Feature::Cgroupns | Feature::Timens => (Later, "no such namespaces"),
        Feature::Loginuid => (Some, "the audit user is not restored"),
        Feature::ApparmorStacking => (Later, "no AppArmor labels in containers"),
        Feature::CgroupV2Freeze => (Some, "--freeze-cgroup works with version 1 only"),
        Feature::CapCheckpointRestore => (Some, "nothing where CAP_SYS_ADMIN is there"),
        Feature::CapSysAdmin => (
            Some,
            "some of the state of other users' tasks cannot be read",
        ),
        Feature::CapSysPtrace => (Always, "tasks of others cannot be frozen"),
        Feature::CapSysResource => (Some, "limits cannot be raised on restore"),
        Feature::CapNetAdmin => (Some, "connections cannot be dumped"),
        Feature::MntId => (Always, "the mount of an open file is not known"),
        Feature::FdinfoLock => (Some, "file locks cannot be dumped"),
        Feature::Timerfd => (Some, "timerfds lose their ticks"),
        Feature::Openat2 => (Some, "paths with links inside are not confined"),
        Feature::MoveMountSetGroup | Feature::Statmount => {
            (Later, "mounts are restored the older way")
        }
        Feature::Autofs => (Experimental, "no autofs mounts"),
        Feature::OverlayfsMaps => (Some, "mapped files of overlayfs are told apart by path"),
        Feature::Tun | Feature::TunNs => (Later, "no tun devices"),
        Feature::SkNs => (Some, "internet sockets cannot be dumped"),
        Feature::Nsid | Feature::LinkNsid | Feature::ExternalNetNs => {
            (Later, "no network namespaces")
        }
        Feature::SkUnixFile => (Some, "Unix sockets bound to files cannot be dumped"),
        Feature::SockoptBufLock => (Some, "sockets lose the lock of their buffer sizes"),
        Feature::Ipv6Freebind => (Some, "IPv6 sockets bound to missing addresses are refused"),
        Feature::TcpRepair | Feature::TcpHalfClosed => {
            (Some, "connections of TCP cannot be dumped")
        }
        Feature::NetDiagRaw => (Later, "nothing: /proc tells of raw sockets"),
        // New in the library and not yet judged here.
        _ => (Later, "not used yet"),
    }
}
