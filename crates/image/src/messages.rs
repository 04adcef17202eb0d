//! Every message that appears in an image file, one module per kind of kernel object.
//!
//! Each definition reads like the proto2 original and yields a plain struct: `required` fields are
//! plain values that are always written, `optional` ones are [`Option`]s, `repeated` ones are
//! [`Vec`]s written unpacked. The same lines yield the [`Schema`](crate::Schema) that checks a
//! record before it is decoded and prints it afterwards.

#[macro_use]
mod macros;

mod apparmor;
mod autofs;
mod binfmt_misc;
mod bpfmap_data;
mod bpfmap_file;
mod cgroup;
mod core;
mod core_aarch64;
mod core_arm;
mod core_gelid;
mod core_loongarch64;
mod core_mips;
mod core_ppc64;
mod core_riscv64;
mod core_s390;
mod core_x86;
mod cpuinfo;
mod creds;
mod eventfd;
mod eventpoll;
mod ext_file;
mod fdinfo;
mod fh;
mod fifo;
mod file_lock;
mod fown;
mod fs;
mod fsnotify;
mod ghost_file;
mod inventory;
mod ipc_desc;
mod ipc_gelid;
mod ipc_msg;
mod ipc_sem;
mod ipc_shm;
mod ipc_var;
mod macvlan;
mod memfd;
mod mm;
mod mnt;
mod netdev;
mod netdev_gelid;
mod ns;
mod packet_sock;
mod pagemap;
mod pidfd;
mod pidns;
mod pipe;
mod pipe_data;
mod pstree;
mod regfile;
mod remap_file_path;
mod rlimit;
mod rseq;
mod sa;
mod seccomp;
mod siginfo;
mod signalfd;
mod sit;
mod sk_inet;
mod sk_netlink;
mod sk_opts;
mod sk_packet;
mod sk_unix;
mod stats;
mod sysctl;
mod tcp_stream;
mod time;
mod timens;
mod timer;
mod timerfd;
mod tty;
mod tun;
mod userns;
mod utsns;
mod vma;

pub use self::apparmor::*;
pub use self::autofs::*;
pub use self::binfmt_misc::*;
pub use self::bpfmap_data::*;
pub use self::bpfmap_file::*;
pub use self::cgroup::*;
pub use self::core::*;
pub use self::core_aarch64::*;
pub use self::core_arm::*;
pub use self::core_gelid::*;
pub use self::core_loongarch64::*;
pub use self::core_mips::*;
pub use self::core_ppc64::*;
pub use self::core_riscv64::*;
pub use self::core_s390::*;
pub use self::core_x86::*;
pub use self::cpuinfo::*;
pub use self::creds::*;
pub use self::eventfd::*;
pub use self::eventpoll::*;
pub use self::ext_file::*;
pub use self::fdinfo::*;
pub use self::fh::*;
pub use self::fifo::*;
pub use self::file_lock::*;
pub use self::fown::*;
pub use self::fs::*;
pub use self::fsnotify::*;
pub use self::ghost_file::*;
pub use self::inventory::*;
pub use self::ipc_desc::*;
pub use self::ipc_gelid::*;
pub use self::ipc_msg::*;
pub use self::ipc_sem::*;
pub use self::ipc_shm::*;
pub use self::ipc_var::*;
pub use self::macvlan::*;
pub use self::memfd::*;
pub use self::mm::*;
pub use self::mnt::*;
pub use self::netdev::*;
pub use self::netdev_gelid::*;
pub use self::ns::*;
pub use self::packet_sock::*;
pub use self::pagemap::*;
pub use self::pidfd::*;
pub use self::pidns::*;
pub use self::pipe::*;
pub use self::pipe_data::*;
pub use self::pstree::*;
pub use self::regfile::*;
pub use self::remap_file_path::*;
pub use self::rlimit::*;
pub use self::rseq::*;
pub use self::sa::*;
pub use self::seccomp::*;
pub use self::siginfo::*;
pub use self::signalfd::*;
pub use self::sit::*;
pub use self::sk_inet::*;
pub use self::sk_netlink::*;
pub use self::sk_opts::*;
pub use self::sk_packet::*;
pub use self::sk_unix::*;
pub use self::stats::*;
pub use self::sysctl::*;
pub use self::tcp_stream::*;
pub use self::time::*;
pub use self::timens::*;
pub use self::timer::*;
pub use self::timerfd::*;
pub use self::tty::*;
pub use self::tun::*;
pub use self::userns::*;
pub use self::utsns::*;
pub use self::vma::*;

/// Every schema, for tests and tools that walk all messages.
pub fn all_schemas() -> Vec<&'static crate::Schema> {
    fn of<R: crate::Record>() -> &'static crate::Schema {
        R::schema()
    }
    vec![
        of::<AaNamespace>(),
        of::<AaPolicy>(),
        of::<AioRingEntry>(),
        of::<ApparmorEntry>(),
        of::<AutofsEntry>(),
        of::<GelidAutofsPart>(),
        of::<BinfmtMiscEntry>(),
        of::<BpfmapDataEntry>(),
        of::<BpfmapFileEntry>(),
        of::<CgControllerEntry>(),
        of::<CgMemberEntry>(),
        of::<CgSetEntry>(),
        of::<CgroupDirEntry>(),
        of::<CgroupEntry>(),
        of::<CgroupPerms>(),
        of::<CgroupPropEntry>(),
        of::<CoreEntry>(),
        of::<CpuinfoEntry>(),
        of::<CpuinfoPpc64Entry>(),
        of::<CpuinfoS390Entry>(),
        of::<CpuinfoX86Entry>(),
        of::<CredsEntry>(),
        of::<DumpStatsEntry>(),
        of::<EventfdFileEntry>(),
        of::<EventpollFileEntry>(),
        of::<EventpollTfdEntry>(),
        of::<ExtFileEntry>(),
        of::<FanotifyFileEntry>(),
        of::<FanotifyInodeMarkEntry>(),
        of::<FanotifyMarkEntry>(),
        of::<FanotifyMountMarkEntry>(),
        of::<FdinfoEntry>(),
        of::<FhEntry>(),
        of::<FifoEntry>(),
        of::<FileEntry>(),
        of::<FileLockEntry>(),
        of::<FilePermsEntry>(),
        of::<FownEntry>(),
        of::<FsEntry>(),
        of::<GhostChunkEntry>(),
        of::<GelidInetSkEntry>(),
        of::<GelidMembershipEntry>(),
        of::<GelidMqueueEntry>(),
        of::<GelidPacketEntry>(),
        of::<GelidDispatchEntry>(),
        of::<GelidRestartEntry>(),
        of::<GelidSchedEntry>(),
        of::<GelidSegmentEntry>(),
        of::<GelidSocketOptionEntry>(),
        of::<GelidTaskEntry>(),
        of::<GelidThreadEntry>(),
        of::<GelidTtyDataEntry>(),
        of::<GelidTtyFileEntry>(),
        of::<GelidTtyInfoEntry>(),
        of::<GelidTunfileEntry>(),
        of::<GelidUcredEntry>(),
        of::<GelidUndoEntry>(),
        of::<GelidUnixSkEntry>(),
        of::<GelidXsaveEntry>(),
        of::<GhostFileEntry>(),
        of::<InetSkEntry>(),
        of::<InotifyFileEntry>(),
        of::<InotifyWdEntry>(),
        of::<InventoryEntry>(),
        of::<IpOptsEntry>(),
        of::<IpOptsRawEntry>(),
        of::<IpcDescEntry>(),
        of::<IpcMsg>(),
        of::<IpcMsgEntry>(),
        of::<IpcSemEntry>(),
        of::<IpcShmEntry>(),
        of::<IpcVarEntry>(),
        of::<IrmapCacheEntry>(),
        of::<ItimerEntry>(),
        of::<MacvlanLinkEntry>(),
        of::<MemfdFileEntry>(),
        of::<MemfdInodeEntry>(),
        of::<MmEntry>(),
        of::<MntEntry>(),
        of::<NetDeviceEntry>(),
        of::<NetlinkSkEntry>(),
        of::<NetnsEntry>(),
        of::<NetnsId>(),
        of::<NsFileEntry>(),
        of::<PacAddressKeys>(),
        of::<PacGenericKeys>(),
        of::<PacKeys>(),
        of::<PacketMclist>(),
        of::<PacketRing>(),
        of::<PacketSockEntry>(),
        of::<PagemapEntry>(),
        of::<PagemapHead>(),
        of::<PidfdEntry>(),
        of::<PidnsEntry>(),
        of::<PipeDataEntry>(),
        of::<PipeEntry>(),
        of::<PluginsEntry>(),
        of::<PosixTimerEntry>(),
        of::<PstreeEntry>(),
        of::<RegFileEntry>(),
        of::<RemapFilePathEntry>(),
        of::<RestoreStatsEntry>(),
        of::<RlimitEntry>(),
        of::<RseqEntry>(),
        of::<SaEntry>(),
        of::<ScmEntry>(),
        of::<SeccompEntry>(),
        of::<SeccompFilter>(),
        of::<SiginfoEntry>(),
        of::<SignalQueueEntry>(),
        of::<SignalfdEntry>(),
        of::<SitEntry>(),
        of::<SkOptsEntry>(),
        of::<SkPacketEntry>(),
        of::<StatsEntry>(),
        of::<SysctlEntry>(),
        of::<TaskCoreEntry>(),
        of::<TaskKobjIdsEntry>(),
        of::<TaskRlimitsEntry>(),
        of::<TaskTimersEntry>(),
        of::<TcpOptsEntry>(),
        of::<TcpStreamEntry>(),
        of::<TermiosEntry>(),
        of::<ThreadCoreEntry>(),
        of::<ThreadInfoAarch64>(),
        of::<ThreadInfoArm>(),
        of::<ThreadInfoLoongarch64>(),
        of::<ThreadInfoMips>(),
        of::<ThreadInfoPpc64>(),
        of::<ThreadInfoRiscv64>(),
        of::<ThreadInfoS390>(),
        of::<ThreadInfoX86>(),
        of::<ThreadSasEntry>(),
        of::<TimensEntry>(),
        of::<TimerfdEntry>(),
        of::<Timespec>(),
        of::<Timeval>(),
        of::<TtyDataEntry>(),
        of::<TtyFileEntry>(),
        of::<TtyInfoEntry>(),
        of::<TtyPtyEntry>(),
        of::<TunLinkEntry>(),
        of::<TunfileEntry>(),
        of::<UidGidExtent>(),
        of::<UnixSkEntry>(),
        of::<UserAarch64FpsimdContextEntry>(),
        of::<UserAarch64RegsEntry>(),
        of::<UserArmRegsEntry>(),
        of::<UserArmVfpstateEntry>(),
        of::<UserDescT>(),
        of::<UserLoongarch64FpregsEntry>(),
        of::<UserLoongarch64GpregsEntry>(),
        of::<UserMipsFpregsEntry>(),
        of::<UserMipsRegsEntry>(),
        of::<UserPpc64FpstateEntry>(),
        of::<UserPpc64RegsEntry>(),
        of::<UserPpc64TmRegsEntry>(),
        of::<UserPpc64VrstateEntry>(),
        of::<UserPpc64VsxstateEntry>(),
        of::<UserRiscv64DExtEntry>(),
        of::<UserRiscv64RegsEntry>(),
        of::<UserS390FpregsEntry>(),
        of::<UserS390GsCbEntry>(),
        of::<UserS390RegsEntry>(),
        of::<UserS390RiEntry>(),
        of::<UserS390VxrsHighEntry>(),
        of::<UserS390VxrsLowEntry>(),
        of::<UserX86CetEntry>(),
        of::<UserX86FpregsEntry>(),
        of::<UserX86RegsEntry>(),
        of::<UserX86XsaveEntry>(),
        of::<UsernsEntry>(),
        of::<UtsnsEntry>(),
        of::<VmaEntry>(),
        of::<WinsizeEntry>(),
    ]
}
