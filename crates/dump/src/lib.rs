//! Observe a frozen process tree and write its records.
//!
//! **Model.** [`dump`] goes through the [phases](Phase): it freezes the tree under a guard, looks at it from
//! outside, lets its memory flow into the page store beside everything else, plays one tape in each task, asks
//! about its descriptors, writes the records, makes the image set visible as a whole, and ends the tree as
//! [`End`] says. What cannot be restored faithfully is refused by name before a task is disturbed.
//!
//! **Failure.** Whatever fails, the tree runs on as it was and no image set appears. The same holds if the
//! dumper is killed.
//!
//! ```no_run
//! use gelid_dump::{End, Options, dump};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tree = rustix::process::Pid::from_raw(4242).ok_or("pid")?;
//! let images = gelid_image::Dir::open("/var/tmp/checkpoint")?;
//! let outcome = dump(&Options { end: End::Run, ..Options::new(tree, images) })?;
//! println!("{} tasks stood still for {:?}", outcome.tasks, outcome.frozen);
//! # Ok(()) }
//! ```
//!
//! # Limitations
//!
//! - What is refused is listed in SHORTCOMINGS.md.
//! - A dump belongs to one thread, as tracees do, which must not wait for "any" child meanwhile.
#![forbid(unsafe_code)]

mod account;
mod apart;
mod cgroup;
mod core;
mod core_images;
mod earlier;
mod error;
mod files;
mod foresight;
mod frames;
mod fs;
mod hook;
mod ids;
mod inventory;
mod ipc;
mod kinship;
mod layout;
mod looks;
mod mm;
mod namespace;
mod pagemap;
mod pages;
mod phase;
mod records;
mod refuse;
mod session;
mod shared;
mod snapshot;
mod survey;
mod vma;

use std::path::PathBuf;
use std::time::Duration;

use gelid_image::Dir;
use gelid_image::messages::DumpStatsEntry;
use gelid_pages::StoreOptions;
use gelid_sys::Pid;

pub use self::core::Error as CoreError;
pub use cgroup::{BadProperties, Cgroups, Properties as CgroupProperties};
pub use error::Error;
pub use files::{
    Error as FilesError, InetRefusal, LockRefusal, Name, Place, UnixRefusal, Unsupported,
};
pub use gelid_netlock::Method as NetworkLock;
pub use hook::{Hook, Hooks, Listener};
pub use ipc::{Error as IpcError, Object as IpcObject};
pub use namespace::net::Error as NetError;
pub use namespace::{MountRefusal, Mounts};
pub use phase::{NoSuchPhase, Phase};
pub use refuse::Refusal;
pub use snapshot::Snapshot;

/// What becomes of the tree after its images are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// It is killed.
    #[default]
    Kill,
    /// It runs on.
    Run,
    /// It is stopped by `SIGSTOP`.
    Stop,
}

/// What is recorded of a file, to be compared when it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validation {
    /// Its size.
    Size,
    /// Its size, and the build-id of an ELF file.
    #[default]
    BuildId,
}

/// What to dump, where to, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Root of the tree.
    pub tree: Pid,
    /// Where the images appear.
    pub images: Dir,
    /// What becomes of the tree.
    pub end: End,
    /// How pages are stored.
    pub pages: StoreOptions,
    /// Directory of earlier images, relative to that of the images: private memory of tasks that is the same there is
    /// left to them, whatever [`StoreOptions::dedup`] says of equal pages.
    pub earlier: Option<PathBuf>,
    /// Whether memory is copied, so that a tree that runs on need not stand still until it is written.
    pub snapshot: Snapshot,
    /// How long freezing may take.
    pub timeout: Duration,
    /// Directory of a cgroup to freeze while the tree is being seized.
    pub freeze_cgroup: Option<PathBuf>,
    /// Whether the root may be in a session whose leader is outside, and use its terminal.
    pub shell_job: bool,
    /// Whether the master of one terminal of the tree may be outside: of the console of a container.
    pub orphan_pts_master: bool,
    /// What is outside of the tree and not dumped, as `TYPE[ID]:VALUE`.
    pub external: Vec<String>,
    /// Whether what is in network namespaces is left out, to be set up by somebody else on restore.
    pub empty_net: bool,
    /// Whether a datagram socket may be connected with a named one outside of the tree.
    pub ext_unix_sk: bool,
    /// Inode of a socket of the caller's that the tree may be connected with: by it a client has asked for the dump, and
    /// is told after a restore that there was one.
    pub service: Option<u32>,
    /// Whether connections of internet sockets that nobody has accepted may be dropped.
    pub skip_in_flight: bool,
    /// Whether there may be connections of TCP.
    pub tcp_established: bool,
    /// Whether connections of TCP are left out, and closed on restore.
    pub tcp_close: bool,
    /// Who keeps packets away from connections while the tree is not there.
    pub network_lock: NetworkLock,
    /// Name of the dump, a UUID; a new one if none is given.
    pub run_id: Option<String>,
    /// What is recorded of files.
    pub validation: Validation,
    /// Largest deleted file that is put into the images, bytes.
    pub ghost_limit: u64,
    /// Whether deleted files that have other names are linked back into their directories.
    pub link_remap: bool,
    /// Whether a device file may be reached by another path, if its number is equal.
    pub evasive_devices: bool,
    /// Whether locks of files and leases are dumped; without it a tree that has some is refused.
    pub file_locks: bool,
    /// What is recorded of cgroups.
    pub cgroups: Cgroups,
    /// What is recorded of mounts.
    pub mounts: Mounts,
    /// Who is told how far the dump has come.
    pub hooks: Hooks,
    /// The phase that is to fail, for tests.
    pub fault: Option<Phase>,
}

impl Options {
    /// The tree of `tree` into `images`, which is killed then; the rest as the command line has it by default.
    #[must_use]
    pub fn new(tree: Pid, images: Dir) -> Self {
        Self {
            tree,
            images,
            end: End::default(),
            pages: StoreOptions::default(),
            earlier: None,
            snapshot: Snapshot::default(),
            timeout: Duration::from_secs(10),
            freeze_cgroup: None,
            shell_job: false,
            orphan_pts_master: false,
            external: Vec::new(),
            empty_net: false,
            ext_unix_sk: false,
            service: None,
            cgroups: Cgroups::default(),
            mounts: Mounts::default(),
            skip_in_flight: false,
            tcp_established: false,
            tcp_close: false,
            network_lock: NetworkLock::default(),
            run_id: None,
            validation: Validation::default(),
            ghost_limit: 1 << 20,
            link_remap: false,
            evasive_devices: false,
            file_locks: false,
            hooks: Hooks::default(),
            fault: None,
        }
    }
}

/// How a dump went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What `stats-dump` says.
    pub stats: DumpStatsEntry,
    /// Processes dumped, zombies among them.
    pub tasks: u64,
    /// Threads of all of them.
    pub threads: u64,
    /// Pages stored, those of shared memory among them.
    pub pages: u64,
    /// Pages that were looked at and left out since they hold zeros.
    pub zero_pages: u64,
    /// Bytes of the stored pages in memory.
    pub raw_bytes: u64,
    /// Bytes of the stored pages in the images.
    pub packed_bytes: u64,
    /// From the first request to stop until everything stood still.
    pub freezing: Duration,
    /// From the first request to stop until the end of the tree, whatever it was.
    pub frozen: Duration,
    /// The whole dump.
    pub elapsed: Duration,
}

/// Dumps a tree.
///
/// # Errors
///
/// See [`Error`]. The tree then runs on as it was, and there are no images.
pub fn dump(options: &Options) -> Result<Outcome, Error> {
    session::run(options)
}
