//! The catalogue: every kind of image file, section 3 of the format.

use crate::messages::*;
use crate::{Record, Schema};

/// First word of every image of layout 1.1 but the inventory.
pub(crate) const COMMON_MAGIC: u32 = 0x5456_4319;
/// First word of statistics and caches.
pub(crate) const SERVICE_MAGIC: u32 = 0x5510_5940;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// What stands before the first record (section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The common word, then the type magic; in layout 1.0 the type magic alone.
    Common,
    /// The service word, then the type magic.
    Service,
    /// The type magic alone.
    Inventory,
    /// Nothing: the file has no records.
    Raw,
}

/// How many records a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// Exactly one; whatever follows is ignored or is payload.
    One,
    /// Any number.
    Many,
    /// One of the first message, then any number of the second.
    Headed,
    /// No records.
    Raw,
}

/// What follows a record and is not part of it (section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    None,
    /// [`PipeDataEntry::bytes`] bytes.
    Pipe,
    /// [`SkPacketEntry::length`] bytes.
    Packet,
    /// The in queue, then the out queue of a [`TcpStreamEntry`].
    TcpStream,
    /// Contents up to the end of the file, or chunks.
    Ghost,
    /// Nothing with `in_pagemaps`, else the segment, padded to 4 bytes.
    Shm,
    /// Messages, each padded to 8 bytes.
    Msg,
    /// Values of semaphores, padded to 8 bytes.
    Sem,
    /// Keys, then values of a [`BpfmapDataEntry`].
    Bpf,
}

/// The number in a file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Radix {
    /// The name has no number.
    None,
    /// Decimal.
    Decimal,
    /// Lower-case hexadecimal.
    Hexadecimal,
}

/// What the format says about a kind of image.
#[derive(Debug)]
pub struct Spec {
    /// The kind.
    pub kind: ImageKind,
    /// Short type name used by JSON converters; empty for raw images.
    pub symbol: &'static str,
    /// Type magic; 0 for raw images.
    pub magic: u32,
    /// What stands before the first record.
    pub header: Header,
    /// How many records there are.
    pub structure: Structure,
    /// What follows a record.
    pub payload: Payload,
    /// Schemas of the messages in it, the first record's first.
    pub messages: &'static [fn() -> &'static Schema],
    /// Largest record accepted, bytes.
    pub max_record: u32,
    /// Part of the name before the key.
    prefix: &'static str,
    /// Part of the name behind the key.
    suffix: &'static str,
    /// How the key is written.
    pub radix: Radix,
}

/// Splits a name pattern at `{}` (decimal key) or `{x}` (hexadecimal key).
const fn split(pattern: &'static str) -> (&'static str, Radix, &'static str) {
    let bytes = pattern.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'{' {
            let (prefix, rest) = pattern.split_at(at);
            return match rest.as_bytes() {
                [b'{', b'x', ..] => (prefix, Radix::Hexadecimal, rest.split_at(3).1),
                _ => (prefix, Radix::Decimal, rest.split_at(2).1),
            };
        }
        at += 1;
    }
    (pattern, Radix::None, "")
}

macro_rules! images {
    ($( $kind:ident $pattern:literal $symbol:ident $magic:literal $header:ident
        $structure:ident $payload:ident [$($message:ident),*] $max:expr; )*) => {
        /// A kind of image file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ImageKind {
            $( #[doc = concat!("`", $pattern, "`, type `", stringify!($symbol), "`.")] $kind, )*
        }

        impl ImageKind {
            /// Every kind; where two have the same magic the current one stands before the
            /// obsolete one.
            pub const ALL: &'static [ImageKind] = &[$(ImageKind::$kind),*];
        }

        static SPECS: &[Spec] = &[$({
            const NAME: (&str, Radix, &str) = split($pattern);
            Spec {
                kind: ImageKind::$kind,
                symbol: stringify!($symbol),
                magic: $magic,
                header: Header::$header,
                structure: Structure::$structure,
                payload: Payload::$payload,
                messages: &[$(<$message as Record>::schema),*],
                max_record: $max,
                prefix: NAME.0,
                suffix: NAME.2,
                radix: NAME.1,
            }
        }),*];
    };
}

images! {
    // 3.1 Whole-dump images.
    Inventory "inventory.img" INVENTORY 0x5831_3116 Inventory One None [InventoryEntry] 64 * KIB;
    Pstree "pstree.img" PSTREE 0x5027_3030 Common Many None [PstreeEntry] 32 * MIB;
    Files "files.img" FILES 0x5630_3138 Common Many None [FileEntry] 32 * MIB;
    RemapFpath "remap-fpath.img" REMAP_FPATH 0x5913_3954 Common Many None [RemapFilePathEntry] 64 * KIB;
    GhostFile "ghost-file-{x}.img" GHOST_FILE 0x5258_3605 Common Many Ghost [GhostFileEntry, GhostChunkEntry] 64 * KIB;
    PipesData "pipes-data.img" PIPES_DATA 0x5645_3709 Common Many Pipe [PipeDataEntry] 64 * KIB;
    FifoData "fifo-data.img" FIFO_DATA 0x5933_3054 Common Many Pipe [PipeDataEntry] 64 * KIB;
    SkQueues "sk-queues.img" SK_QUEUES 0x5626_4026 Common Many Packet [SkPacketEntry] 64 * KIB;
    TcpStream "tcp-stream-{x}.img" TCP_STREAM 0x5146_5506 Common One TcpStream [TcpStreamEntry] 64 * KIB;
    Memfd "memfd.img" MEMFD_INODE 0x4845_3499 Common Many None [MemfdInodeEntry] 64 * KIB;
    TtyInfo "tty-info.img" TTY_INFO 0x5945_3036 Common Many None [TtyInfoEntry] 64 * KIB;
    TtyData "tty-data.img" TTY_DATA 0x5941_3026 Common Many None [TtyDataEntry] 4 * MIB;
    FileLocks "filelocks.img" FILE_LOCKS 0x5432_3616 Common Many None [FileLockEntry] 64 * KIB;
    Seccomp "seccomp.img" SECCOMP 0x6441_3049 Common One None [SeccompEntry] 64 * MIB;
    Cgroup "cgroup.img" CGROUP 0x5938_3330 Common One None [CgroupEntry] 64 * MIB;
    Apparmor "apparmor.img" APPARMOR 0x5942_3047 Common One None [ApparmorEntry] 64 * MIB;
    BpfmapData "bpfmap-data.img" BPFMAP_DATA 0x6432_4033 Common Many Bpf [BpfmapDataEntry] 64 * KIB;
    BinfmtMisc "binfmt-misc.img" BINFMT_MISC 0x6734_3323 Common Many None [BinfmtMiscEntry] 64 * KIB;
    Cpuinfo "cpuinfo.img" CPUINFO 0x6140_4013 Common One None [CpuinfoEntry] 64 * KIB;
    StatsDump "stats-dump" STATS 0x5709_3306 Service One None [StatsEntry] 64 * KIB;
    StatsRestore "stats-restore" STATS 0x5709_3306 Service One None [StatsEntry] 64 * KIB;
    IrmapCache "irmap-cache" IRMAP_CACHE 0x5700_4059 Service Many None [IrmapCacheEntry] 64 * KIB;

    // 3.2 Per-task images.
    Core "core-{}.img" CORE 0x5505_3847 Common One None [CoreEntry] 32 * MIB;
    Ids "ids-{}.img" IDS 0x5443_2030 Common One None [TaskKobjIdsEntry] 64 * KIB;
    Mm "mm-{}.img" MM 0x5749_2820 Common One None [MmEntry] 64 * MIB;
    Fs "fs-{}.img" FS 0x5140_3912 Common One None [FsEntry] 64 * KIB;
    Fdinfo "fdinfo-{}.img" FDINFO 0x5621_3732 Common Many None [FdinfoEntry] 64 * KIB;
    Pagemap "pagemap-{}.img" PAGEMAP 0x5608_4025 Common Headed None [PagemapHead, PagemapEntry] 64 * KIB;
    PagemapShmem "pagemap-shmem-{}.img" PAGEMAP 0x5608_4025 Common Headed None [PagemapHead, PagemapEntry] 64 * KIB;
    Pages "pages-{}.img" PAGES 0 Raw Raw None [] 0;

    // Not CRIU's: pages compressed as independent zstd frames with a seek table.
    PagesZst "pages-{}.img.zst" PAGES_ZST 0 Raw Raw None [] 0;

    // 3.3 Per-namespace images.
    Utsns "utsns-{}.img" UTSNS 0x5447_3203 Common One None [UtsnsEntry] 64 * KIB;
    Timens "timens-{}.img" TIMENS 0x4311_4433 Common One None [TimensEntry] 64 * KIB;
    Userns "userns-{}.img" USERNS 0x5547_4906 Common One None [UsernsEntry] 64 * KIB;
    Pidns "pidns-{}.img" PIDNS 0x6115_7326 Common One None [PidnsEntry] 64 * KIB;
    IpcVar "ipcns-var-{}.img" IPC_VAR 0x5311_5007 Common One None [IpcVarEntry] 64 * KIB;
    IpcnsShm "ipcns-shm-{}.img" IPCNS_SHM 0x4628_3044 Common Many Shm [IpcShmEntry] 64 * KIB;
    IpcnsMsg "ipcns-msg-{}.img" IPCNS_MSG 0x5545_3737 Common Many Msg [IpcMsgEntry, IpcMsg] 64 * KIB;
    IpcnsSem "ipcns-sem-{}.img" IPCNS_SEM 0x5957_3019 Common Many Sem [IpcSemEntry] 64 * KIB;
    Mountpoints "mountpoints-{}.img" MNTS 0x5556_3928 Common Many None [MntEntry] 4 * MIB;
    Netns "netns-{}.img" NETNS 0x5593_3752 Common One None [NetnsEntry] 4 * MIB;
    Netdev "netdev-{}.img" NETDEV 0x5737_3951 Common Many None [NetDeviceEntry] 4 * MIB;
    Ifaddr "ifaddr-{}.img" IFADDR 0 Raw Raw None [] 0;
    Route "route-{}.img" ROUTE 0 Raw Raw None [] 0;
    Route6 "route6-{}.img" ROUTE6 0 Raw Raw None [] 0;
    Rule "rule-{}.img" RULE 0 Raw Raw None [] 0;
    Iptables "iptables-{}.img" IPTABLES 0 Raw Raw None [] 0;
    Ip6tables "ip6tables-{}.img" IP6TABLES 0 Raw Raw None [] 0;
    Nftables "nftables-{}.img" NFTABLES 0 Raw Raw None [] 0;
    NetnsCt "netns-ct-{}.img" NETNS_CT 0 Raw Raw None [] 0;
    NetnsExp "netns-exp-{}.img" NETNS_EXP 0 Raw Raw None [] 0;

    // 3.4 Per-filesystem images.
    TmpfsDev "tmpfs-dev-{}.tar.gz.img" TMPFS_DEV 0 Raw Raw None [] 0;
    Autofs "autofs-{}.img" AUTOFS 0x4935_3943 Common One None [AutofsEntry] 64 * KIB;

    // 25 Obsolete images: read, never written.
    RegFiles "reg-files.img" REG_FILES 0x5036_3636 Common Many None [RegFileEntry] 64 * KIB;
    ExtFiles "ext-files.img" EXT_FILES 0x5925_5641 Common Many None [ExtFileEntry] 64 * KIB;
    NsFiles "ns-files.img" NS_FILES 0x6139_4011 Common Many None [NsFileEntry] 64 * KIB;
    EventfdFile "eventfd.img" EVENTFD_FILE 0x4452_3722 Common Many None [EventfdFileEntry] 64 * KIB;
    EventpollFile "eventpoll.img" EVENTPOLL_FILE 0x4502_3858 Common Many None [EventpollFileEntry] 32 * MIB;
    EventpollTfd "eventpoll-tfd.img" EVENTPOLL_TFD 0x4443_3746 Common Many None [EventpollTfdEntry] 64 * KIB;
    Signalfd "signalfd.img" SIGNALFD 0x5732_3820 Common Many None [SignalfdEntry] 64 * KIB;
    Timerfd "timerfd.img" TIMERFD 0x5049_3712 Common Many None [TimerfdEntry] 64 * KIB;
    InotifyFile "inotify.img" INOTIFY_FILE 0x4842_4431 Common Many None [InotifyFileEntry] 32 * MIB;
    InotifyWd "inotify-wd.img" INOTIFY_WD 0x5456_2009 Common Many None [InotifyWdEntry] 64 * KIB;
    FanotifyFile "fanotify.img" FANOTIFY_FILE 0x5509_6122 Common Many None [FanotifyFileEntry] 32 * MIB;
    FanotifyMark "fanotify-mark.img" FANOTIFY_MARK 0x5650_6035 Common Many None [FanotifyMarkEntry] 64 * KIB;
    Pipes "pipes.img" PIPES 0x5651_3555 Common Many None [PipeEntry] 64 * KIB;
    Fifo "fifo.img" FIFO 0x5836_4939 Common Many None [FifoEntry] 64 * KIB;
    Unixsk "unixsk.img" UNIXSK 0x5437_3943 Common Many None [UnixSkEntry] 4 * MIB;
    Inetsk "inetsk.img" INETSK 0x5644_3851 Common Many None [InetSkEntry] 4 * MIB;
    Packetsk "packetsk.img" PACKETSK 0x6045_4618 Common Many None [PacketSockEntry] 4 * MIB;
    Netlinksk "netlinksk.img" NETLINKSK 0x5800_5614 Common Many None [NetlinkSkEntry] 4 * MIB;
    TtyFiles "tty.img" TTY_FILES 0x5943_3025 Common Many None [TtyFileEntry] 64 * KIB;
    Tunfile "tunfile.img" TUNFILE 0x5714_3751 Common Many None [TunfileEntry] 64 * KIB;
    Pidfd "pidfd.img" PIDFD 0x5443_5556 Common Many None [PidfdEntry] 64 * KIB;
    BpfmapFile "bpfmap-file.img" BPFMAP_FILE 0x5750_6142 Common Many None [BpfmapFileEntry] 64 * KIB;
    Vmas "vmas-{}.img" VMAS 0x5412_3737 Common Many None [VmaEntry] 64 * KIB;
    Creds "creds-{}.img" CREDS 0x5402_3547 Common One None [CredsEntry] 4 * MIB;
    Sigacts "sigacts-{}.img" SIGACT 0x5534_4201 Common Many None [SaEntry] 64 * KIB;
    Itimers "itimers-{}.img" ITIMERS 0x5746_4056 Common Many None [ItimerEntry] 64 * KIB;
    PosixTimers "posix-timers-{}.img" POSIX_TIMERS 0x5260_3957 Common Many None [PosixTimerEntry] 64 * KIB;
    Rlimit "rlimit-{}.img" RLIMIT 0x5711_3925 Common Many None [RlimitEntry] 64 * KIB;
    SignalS "signal-s-{}.img" SIGNAL 0x5925_5647 Common Many None [SiginfoEntry] 64 * KIB;
    SignalP "signal-p-{}.img" PSIGNAL 0x5925_5647 Common Many None [SiginfoEntry] 64 * KIB;
    TmpfsImg "tmpfs-{}.tar.gz.img" TMPFS_IMG 0 Raw Raw None [] 0;
    BinfmtMiscDev "binfmt-misc-{}.img" BINFMT_MISC 0x6734_3323 Common Many None [BinfmtMiscEntry] 64 * KIB;
}

impl ImageKind {
    /// What the format says about this kind.
    pub fn spec(self) -> &'static Spec {
        &SPECS[self as usize]
    }

    /// Name of the file with this key; `None` if the kind needs a key and has none, has one and
    /// needs none, or the key is negative.
    pub fn file_name(self, key: impl Into<Key>) -> Option<String> {
        let Spec {
            prefix,
            suffix,
            radix,
            ..
        } = self.spec();
        match (radix, key.into()) {
            (Radix::None, Key::None) => Some((*prefix).to_owned()),
            (Radix::Decimal, Key::Number(key)) => Some(format!("{prefix}{key}{suffix}")),
            (Radix::Hexadecimal, Key::Number(key)) => Some(format!("{prefix}{key:x}{suffix}")),
            _ => None,
        }
    }

    /// Kind and key of a file by its name; `None` for names the format does not know.
    pub fn from_file_name(name: &str) -> Option<(ImageKind, Key)> {
        SPECS.iter().find_map(|spec| {
            let key = name.strip_prefix(spec.prefix)?.strip_suffix(spec.suffix)?;
            let radix = match spec.radix {
                Radix::None => return key.is_empty().then_some((spec.kind, Key::None)),
                Radix::Decimal => 10,
                Radix::Hexadecimal => 16,
            };
            let key = Key::Number(u64::from_str_radix(key, radix).ok()?);
            // Reject other spellings of the number (a sign, zeros in front, capitals).
            (spec.kind.file_name(key)? == name).then_some((spec.kind, key))
        })
    }

    /// Whether its images belong to a set. Others are written beside one, by whoever has asked for it.
    pub(crate) fn is_of_a_set(self) -> bool {
        !matches!(
            self,
            Self::Cpuinfo | Self::StatsDump | Self::StatsRestore | Self::IrmapCache
        )
    }

    /// Whether a record of this schema may stand in images of this kind.
    pub fn holds(self, schema: &Schema) -> bool {
        self.spec()
            .messages
            .iter()
            .any(|m| std::ptr::eq(m(), schema))
    }
}

/// The number in the name of an image file; `()` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// No number.
    None,
    /// A pid, tid, namespace id, ghost id, …
    Number(u64),
    /// A negative number, which names no file.
    Negative(i64),
}

impl From<()> for Key {
    fn from((): ()) -> Self {
        Key::None
    }
}

impl From<u32> for Key {
    fn from(key: u32) -> Self {
        Key::Number(key.into())
    }
}

impl From<u64> for Key {
    fn from(key: u64) -> Self {
        Key::Number(key)
    }
}

impl From<i32> for Key {
    fn from(key: i32) -> Self {
        u64::try_from(key).map_or(Key::Negative(key.into()), Key::Number)
    }
}
