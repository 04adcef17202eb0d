//! The options of a request. What is absent leaves what configuration files and defaults say.

/// What is done about cgroups; `criu_cg_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CgroupMode {
    /// Nothing at all.
    Ignore = 0,
    /// Groups must be there, and are left as they are.
    None = 1,
    /// Groups must be there, and get their properties.
    Props = 2,
    /// Missing groups are made.
    Soft = 3,
    /// Missing groups are made; all get their properties.
    Full = 4,
    /// Groups must not be there.
    Strict = 5,
    /// [`Soft`](Self::Soft).
    Default = 6,
}

/// Who keeps packets away; `criu_network_lock_method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NetworkLock {
    /// iptables.
    Iptables = 1,
    /// nftables.
    Nftables = 2,
    /// The client.
    Skip = 3,
}

/// How a pre-dump reads memory; `criu_pre_dump_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PreDumpMode {
    /// By pipes.
    Splice = 1,
    /// By `process_vm_readv(2)`.
    VmRead = 2,
}

/// A page server, to be used or in use; `criu_page_server_info`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PageServer {
    /// Its address.
    #[prost(bytes = "vec", optional, tag = 1)]
    pub address: Option<Vec<u8>>,
    /// Its port.
    #[prost(int32, optional, tag = 2)]
    pub port: Option<i32>,
    /// Its process.
    #[prost(int32, optional, tag = 3)]
    pub pid: Option<i32>,
    /// A connection with it.
    #[prost(int32, optional, tag = 4)]
    pub fd: Option<i32>,
}

/// The ends of a veth pair; `criu_veth_pair`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VethPair {
    /// The end in the tree.
    #[prost(bytes = "vec", required, tag = 1)]
    pub if_in: Vec<u8>,
    /// The other one, and a bridge behind `@`.
    #[prost(bytes = "vec", required, tag = 2)]
    pub if_out: Vec<u8>,
}

/// An external mount; `ext_mount_map`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ExtMount {
    /// Mount point on dump, name on restore.
    #[prost(bytes = "vec", required, tag = 1)]
    pub key: Vec<u8>,
    /// Name on dump, source on restore.
    #[prost(bytes = "vec", required, tag = 2)]
    pub val: Vec<u8>,
}

/// A namespace to be joined; `join_namespace`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JoinNamespace {
    /// Its kind.
    #[prost(bytes = "vec", required, tag = 1)]
    pub ns: Vec<u8>,
    /// A file of it, or a pid.
    #[prost(bytes = "vec", required, tag = 2)]
    pub ns_file: Vec<u8>,
    /// Ids to take in a user namespace.
    #[prost(bytes = "vec", optional, tag = 3)]
    pub extra_opt: Option<Vec<u8>>,
}

/// A descriptor to be given to the tree; `inherit_fd`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InheritFd {
    /// What it stands for.
    #[prost(bytes = "vec", required, tag = 1)]
    pub key: Vec<u8>,
    /// The descriptor, as gelid has it.
    #[prost(int32, required, tag = 2)]
    pub fd: i32,
}

/// Where the cgroups of a hierarchy begin; `cgroup_root`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CgroupRoot {
    /// The hierarchy; of all if absent, version 2 if empty.
    #[prost(bytes = "vec", optional, tag = 1)]
    pub ctrl: Option<Vec<u8>>,
    /// The path.
    #[prost(bytes = "vec", required, tag = 2)]
    pub path: Vec<u8>,
}

/// A socket that may be connected with the outside; `unix_sk`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct UnixSocket {
    /// Its inode.
    #[prost(uint32, required, tag = 1)]
    pub inode: u32,
}

/// How a request is to be done; `criu_opts`. Fields without a comment mean what the option of that name means.
#[derive(Clone, PartialEq, prost::Message)]
#[expect(
    missing_docs,
    reason = "each is the option of its name; the others have comments"
)]
pub struct Options {
    /// Folder of the images, as a descriptor of the peer; -1 for none.
    #[prost(int32, required, tag = 1)]
    pub images_dir_fd: i32,
    /// Root of the tree to dump; the peer if absent.
    #[prost(int32, optional, tag = 2)]
    pub pid: Option<i32>,
    #[prost(bool, optional, tag = 3)]
    pub leave_running: Option<bool>,
    #[prost(bool, optional, tag = 4)]
    pub ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = 5)]
    pub tcp_established: Option<bool>,
    #[prost(bool, optional, tag = 6)]
    pub evasive_devices: Option<bool>,
    #[prost(bool, optional, tag = 7)]
    pub shell_job: Option<bool>,
    #[prost(bool, optional, tag = 8)]
    pub file_locks: Option<bool>,
    /// Level of the log; 2 if absent, whatever configuration files say.
    #[prost(int32, optional, tag = 9)]
    pub log_level: Option<i32>,
    /// Name of the log in the work folder.
    #[prost(bytes = "vec", optional, tag = 10)]
    pub log_file: Option<Vec<u8>>,
    #[prost(message, optional, tag = 11)]
    pub ps: Option<PageServer>,
    /// The client wants to be told of moments.
    #[prost(bool, optional, tag = 12)]
    pub notify_scripts: Option<bool>,
    #[prost(bytes = "vec", optional, tag = 13)]
    pub root: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = 14)]
    pub parent_img: Option<Vec<u8>>,
    #[prost(bool, optional, tag = 15)]
    pub track_mem: Option<bool>,
    #[prost(bool, optional, tag = 16)]
    pub auto_dedup: Option<bool>,
    /// Folder for log and statistics, as a descriptor of the peer.
    #[prost(int32, optional, tag = 17)]
    pub work_dir_fd: Option<i32>,
    #[prost(bool, optional, tag = 18)]
    pub link_remap: Option<bool>,
    #[prost(message, repeated, tag = 19)]
    pub veths: Vec<VethPair>,
    /// Bits: fpu 1, cpu 2, ins 4, image 8.
    #[prost(uint32, optional, tag = 20)]
    pub cpu_cap: Option<u32>,
    #[prost(bool, optional, tag = 21)]
    pub force_irmap: Option<bool>,
    /// Program to execute after the answer, and its words.
    #[prost(bytes = "vec", repeated, tag = 22)]
    pub exec_cmd: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = 23)]
    pub ext_mnt: Vec<ExtMount>,
    #[prost(bool, optional, tag = 24)]
    pub manage_cgroups: Option<bool>,
    #[prost(message, repeated, tag = 25)]
    pub cg_root: Vec<CgroupRoot>,
    #[prost(bool, optional, tag = 26)]
    pub rst_sibling: Option<bool>,
    #[prost(message, repeated, tag = 27)]
    pub inherit_fd: Vec<InheritFd>,
    #[prost(bool, optional, tag = 28)]
    pub auto_ext_mnt: Option<bool>,
    #[prost(bool, optional, tag = 29)]
    pub ext_sharing: Option<bool>,
    #[prost(bool, optional, tag = 30)]
    pub ext_masters: Option<bool>,
    #[prost(bytes = "vec", repeated, tag = 31)]
    pub skip_mnt: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = 32)]
    pub enable_fs: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = 33)]
    pub unix_sk_ino: Vec<UnixSocket>,
    /// A [`CgroupMode`]; wins over `manage_cgroups`.
    #[prost(int32, optional, tag = 34)]
    pub manage_cgroups_mode: Option<i32>,
    #[prost(uint32, optional, tag = 35)]
    pub ghost_limit: Option<u32>,
    #[prost(bytes = "vec", repeated, tag = 36)]
    pub irmap_scan_paths: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = 37)]
    pub external: Vec<Vec<u8>>,
    /// Flags of `clone(2)`.
    #[prost(uint32, optional, tag = 38)]
    pub empty_ns: Option<u32>,
    #[prost(message, repeated, tag = 39)]
    pub join_ns: Vec<JoinNamespace>,
    #[prost(bytes = "vec", optional, tag = 41)]
    pub cgroup_props: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = 42)]
    pub cgroup_props_file: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = 43)]
    pub cgroup_dump_controller: Vec<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = 44)]
    pub freeze_cgroup: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = 45)]
    pub timeout: Option<u32>,
    #[prost(bool, optional, tag = 46)]
    pub tcp_skip_in_flight: Option<bool>,
    #[prost(bool, optional, tag = 47)]
    pub weak_sysctls: Option<bool>,
    #[prost(bool, optional, tag = 48)]
    pub lazy_pages: Option<bool>,
    /// Descriptor of the peer that is written to when ready.
    #[prost(int32, optional, tag = 49)]
    pub status_fd: Option<i32>,
    /// The master of a console is given to the client.
    #[prost(bool, optional, tag = 50)]
    pub orphan_pts_master: Option<bool>,
    /// A configuration file that wins over all of this.
    #[prost(bytes = "vec", optional, tag = 51)]
    pub config_file: Option<Vec<u8>>,
    #[prost(bool, optional, tag = 52)]
    pub tcp_close: Option<bool>,
    #[prost(bytes = "vec", optional, tag = 53)]
    pub lsm_profile: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = 54)]
    pub tls_cacert: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = 55)]
    pub tls_cacrl: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = 56)]
    pub tls_cert: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = 57)]
    pub tls_key: Option<Vec<u8>>,
    #[prost(bool, optional, tag = 58)]
    pub tls: Option<bool>,
    #[prost(bool, optional, tag = 59)]
    pub tls_no_cn_verify: Option<bool>,
    #[prost(bytes = "vec", optional, tag = 60)]
    pub cgroup_yard: Option<Vec<u8>>,
    /// A [`PreDumpMode`].
    #[prost(int32, optional, tag = 61)]
    pub pre_dump_mode: Option<i32>,
    /// Socket of the peer that keeps pidfds between requests.
    #[prost(int32, optional, tag = 62)]
    pub pidfd_store_sk: Option<i32>,
    #[prost(bytes = "vec", optional, tag = 63)]
    pub lsm_mount_context: Option<Vec<u8>>,
    /// A [`NetworkLock`].
    #[prost(int32, optional, tag = 64)]
    pub network_lock: Option<i32>,
    #[prost(bool, optional, tag = 65)]
    pub mntns_compat_mode: Option<bool>,
    #[prost(bool, optional, tag = 66)]
    pub skip_file_rwx_check: Option<bool>,
    #[prost(bool, optional, tag = 67)]
    pub unprivileged: Option<bool>,
    /// Folder of the images by its path, where field 1 is -1.
    #[prost(bytes = "vec", optional, tag = 68)]
    pub images_dir: Option<Vec<u8>>,
    #[prost(bool, optional, tag = 69)]
    pub leave_stopped: Option<bool>,
    #[prost(bool, optional, tag = 70)]
    pub display_stats: Option<bool>,
    #[prost(bool, optional, tag = 71)]
    pub log_to_stderr: Option<bool>,
}
