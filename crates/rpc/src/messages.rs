//! The messages of `rpc.proto`, written by hand from their description. Text is kept as bytes: paths need not be
//! UTF-8.

mod options;

pub use options::{
    CgroupMode, CgroupRoot, ExtMount, InheritFd, JoinNamespace, NetworkLock, Options, PageServer,
    PreDumpMode, UnixSocket, VethPair,
};

/// What a client asks for; `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum RequestKind {
    /// Nothing; the type of answers to what is not understood.
    Empty = 0,
    /// Dump a tree.
    Dump = 1,
    /// Restore a tree.
    Restore = 2,
    /// Look at the kernel.
    Check = 3,
    /// Dump the memory of a tree; more may follow on this connection.
    PreDump = 4,
    /// Start a page server that is on its own then.
    PageServer = 5,
    /// Not a request: a notification, and the answer to it.
    Notify = 6,
    /// Write down the features of this CPU.
    CpuinfoDump = 7,
    /// Compare them with those of this CPU.
    CpuinfoCheck = 8,
    /// Look at some features of the kernel.
    FeatureCheck = 9,
    /// Tell the version.
    Version = 10,
    /// Wait for a page server that is a child.
    WaitPid = 11,
    /// Start a page server as a child.
    PageServerChild = 12,
    /// Dump the memory of a tree, once.
    SinglePreDump = 13,
}

impl RequestKind {
    /// Whether another request may follow on the same connection, if the client says so.
    #[must_use]
    pub fn may_keep_open(self) -> bool {
        matches!(
            self,
            Self::PageServer
                | Self::PageServerChild
                | Self::CpuinfoDump
                | Self::CpuinfoCheck
                | Self::FeatureCheck
                | Self::Version
        )
    }

    /// The name as process titles and logs have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Dump => "dump",
            Self::Restore => "restore",
            Self::Check => "check",
            Self::PreDump | Self::SinglePreDump => "pre-dump",
            Self::PageServer | Self::PageServerChild => "page-server",
            Self::Notify => "notify",
            Self::CpuinfoDump => "cpuinfo dump",
            Self::CpuinfoCheck => "cpuinfo check",
            Self::FeatureCheck => "feature-check",
            Self::Version => "version",
            Self::WaitPid => "wait-pid",
        }
    }
}

/// From client to gelid; `criu_req`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// What is asked for: a [`RequestKind`], or something later than this.
    #[prost(int32, required, tag = 1)]
    pub r#type: i32,
    /// How it is to be done.
    #[prost(message, optional, boxed, tag = 2)]
    pub opts: Option<Box<Options>>,
    /// Consent, where this is the answer to a notification.
    #[prost(bool, optional, tag = 3)]
    pub notify_success: Option<bool>,
    /// Another request is to follow.
    #[prost(bool, optional, tag = 4)]
    pub keep_open: Option<bool>,
    /// The features to look at.
    #[prost(message, optional, tag = 5)]
    pub features: Option<Features>,
    /// The child to wait for.
    #[prost(uint32, optional, tag = 6)]
    pub pid: Option<u32>,
}

impl Request {
    /// A request from its packet.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn parse(packet: &[u8]) -> Result<Self, prost::DecodeError> {
        prost::Message::decode(packet)
    }

    /// What is asked for, if that is known.
    #[must_use]
    pub fn kind(&self) -> Option<RequestKind> {
        RequestKind::try_from(self.r#type).ok()
    }
}

/// From gelid to client; `criu_resp`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Response {
    /// What this answers.
    #[prost(enumeration = "RequestKind", required, tag = 1)]
    pub r#type: i32,
    /// Whether it came about.
    #[prost(bool, required, tag = 2)]
    pub success: bool,
    /// Of a dump.
    #[prost(message, optional, tag = 3)]
    pub dump: Option<DumpResponse>,
    /// Of a restore.
    #[prost(message, optional, tag = 4)]
    pub restore: Option<RestoreResponse>,
    /// A notification.
    #[prost(message, optional, tag = 5)]
    pub notify: Option<Notification>,
    /// The page server that was started.
    #[prost(message, optional, tag = 6)]
    pub ps: Option<PageServer>,
    /// Why it did not come about.
    #[prost(int32, optional, tag = 7)]
    pub cr_errno: Option<i32>,
    /// What was found of the features that were asked for.
    #[prost(message, optional, tag = 8)]
    pub features: Option<Features>,
    /// The first error of the log.
    #[prost(bytes = "vec", optional, tag = 9)]
    pub cr_errmsg: Option<Vec<u8>>,
    /// The version.
    #[prost(message, optional, tag = 10)]
    pub version: Option<Version>,
    /// How the child ended, as `wait(2)` has it.
    #[prost(int32, optional, tag = 11)]
    pub status: Option<i32>,
}

/// Of a dump; `criu_dump_resp`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DumpResponse {
    /// The client itself was dumped, and this is after its restore.
    #[prost(bool, optional, tag = 1)]
    pub restored: Option<bool>,
}

/// Of a restore; `criu_restore_resp`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RestoreResponse {
    /// The root, as gelid sees it; -1 if it was never there.
    #[prost(int32, required, tag = 1)]
    pub pid: i32,
}

/// A moment; `criu_notify`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Notification {
    /// Its name.
    #[prost(string, optional, tag = 1)]
    pub script: Option<String>,
    /// The root of the tree, at some moments.
    #[prost(int32, optional, tag = 2)]
    pub pid: Option<i32>,
}

/// Features of the kernel; `criu_features`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Features {
    /// Changes of memory can be tracked.
    #[prost(bool, optional, tag = 1)]
    pub mem_track: Option<bool>,
    /// Memory can be restored on demand.
    #[prost(bool, optional, tag = 2)]
    pub lazy_pages: Option<bool>,
    /// Processes can be held by descriptors that outlive this one.
    #[prost(bool, optional, tag = 3)]
    pub pidfd_store: Option<bool>,
}

/// A version; `criu_version`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Version {
    /// The 4 in 4.2.
    #[prost(int32, required, tag = 1)]
    pub major_number: i32,
    /// The 2 in 4.2.
    #[prost(int32, required, tag = 2)]
    pub minor_number: i32,
    /// Of a build between releases: clients take it for the next minor version.
    #[prost(string, optional, tag = 3)]
    pub gitid: Option<String>,
    /// A third number.
    #[prost(int32, optional, tag = 4)]
    pub sublevel: Option<i32>,
    /// A fourth one.
    #[prost(int32, optional, tag = 5)]
    pub extra: Option<i32>,
    /// The name of the release.
    #[prost(string, optional, tag = 6)]
    pub name: Option<String>,
}
