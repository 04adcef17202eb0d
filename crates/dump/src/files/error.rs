//! Why a descriptor, an executable or a mapped file cannot be dumped.

use std::fmt;
use std::os::fd::RawFd;

use gelid_image::WriteError;
use gelid_sys::{Errno, Pid, proc};

use super::{InetRefusal, Name, Place, UnixRefusal, Unsupported};

/// What stands in the way of recording a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of procfs could not be read.
    #[error(transparent)]
    Proc(#[from] proc::Error),
    /// An image could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Packets could not be kept away from connections.
    #[error(transparent)]
    Netlock(#[from] gelid_netlock::Error),
    /// A system call failed.
    #[error("cannot {operation} {name}, {place}: {errno}{}", remedy(*.errno))]
    System {
        /// What was tried.
        operation: &'static str,
        /// Who holds the file.
        place: Place,
        /// The file.
        name: Name,
        /// What the kernel said.
        errno: Errno,
    },
    /// A system call on something of the dumper's own failed.
    #[error("cannot {operation}: {errno}{}", remedy(*.errno))]
    Own {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// Two descriptors could not be compared.
    #[error(
        "cannot compare descriptor {fd} of task {pid} with {other_fd} of task {other}: {errno}"
    )]
    Compare {
        /// A task.
        pid: Pid,
        /// Its descriptor.
        fd: RawFd,
        /// Another task.
        other: Pid,
        /// Its descriptor.
        other_fd: RawFd,
        /// What `kcmp(2)` said.
        errno: Errno,
    },
    /// The file is of a kind that is not dumped.
    #[error("{place} is {name}, {why}")]
    Unsupported {
        /// Who holds the file.
        place: Place,
        /// The file.
        name: Name,
        /// The kind, and what to do about it.
        why: Unsupported,
    },
    /// A file is locked.
    #[error(
        "{place} is {name}, which holds a lock ({lock}): use --file-locks, or release it first"
    )]
    Locked {
        /// Who holds the file.
        place: Place,
        /// The file.
        name: Name,
        /// The lock as `fdinfo` has it.
        lock: Name,
    },
    /// A lock that could not be taken again.
    #[error("{place} is {name}, which holds a lock ({lock}), {why}")]
    Lock {
        /// Who holds the file.
        place: Place,
        /// The file.
        name: Name,
        /// The lock as the kernel tells of it.
        lock: Name,
        /// What is in its way.
        why: LockRefusal,
    },
    /// A deleted file is too large to be put into the images.
    #[error(
        "{place} is the deleted file {name}, which takes {size} bytes: raise --ghost-limit, \
         which is {limit}"
    )]
    GhostTooLarge {
        /// Who holds the file.
        place: Place,
        /// Its former path.
        name: Name,
        /// Bytes it takes on the disk.
        size: u64,
        /// Bytes it may take.
        limit: u64,
    },
    /// A deleted file lives on under another name.
    #[error(
        "{place} is {name}, which was deleted but has {links} other name(s): use --link-remap, \
         which gives it one there again"
    )]
    Linked {
        /// Who holds the file.
        place: Place,
        /// Its former path.
        name: Name,
        /// Names it has.
        links: u64,
    },
    /// The path of a file leads to another file, or to nothing.
    #[error(
        "{place} is {name}, but that path does not lead to it: unmount what covers it, or use \
         --external 'file[{mount:x}:{inode:x}]' and give it back with --inherit-fd"
    )]
    Hidden {
        /// Who holds the file.
        place: Place,
        /// The path.
        name: Name,
        /// Mount of the file.
        mount: i32,
        /// Its inode.
        inode: u64,
    },
    /// What is in a pipe is in part a stream and in part packets, or was written before the packets that are to come.
    #[error(
        "{place} is {name}, which holds {bytes} bytes that were not written as packets, as others are (O_DIRECT): \
         let the reader empty it first"
    )]
    Packets {
        /// Who holds the pipe.
        place: Place,
        /// The pipe.
        name: Name,
        /// What is in it.
        bytes: u64,
    },
    /// What is in a pipe could not be read whole.
    #[error("{place} is {name}: of the {expected} bytes in it only {found} could be read")]
    PipeTorn {
        /// Who holds the pipe.
        place: Place,
        /// The pipe.
        name: Name,
        /// Bytes in it.
        expected: u64,
        /// Bytes read.
        found: u64,
    },
    /// What the kernel says of an event file is not what it should be.
    #[error("{place} is {name}, of which the kernel tells something unknown: {what}")]
    Odd {
        /// Who holds the file.
        place: Place,
        /// The file.
        name: Name,
        /// What is missing or wrong.
        what: proc::Malformed,
    },
    /// An epoll set watches a file that no task of the tree has open.
    #[error(
        "{place} is {name}, which watches, as descriptor {tfd}, a file that only tasks outside of the tree \
         have open: remove it with EPOLL_CTL_DEL, or dump the tree with them"
    )]
    Watched {
        /// Who holds the set.
        place: Place,
        /// The set.
        name: Name,
        /// Number that the file was added by.
        tfd: RawFd,
    },
    /// An epoll set watches a thread.
    #[error(
        "{place} is {name}, which watches a pidfd of a thread, {pid}, which is not dumped yet: remove it with \
         EPOLL_CTL_DEL first"
    )]
    WatchedThread {
        /// Who holds the set.
        place: Place,
        /// The set.
        name: Name,
        /// Number of the thread.
        pid: i32,
    },
    /// Events of the file system that nobody has read.
    #[error(
        "{place} is {name}, which holds {bytes} bytes of events; events are not dumped: let the program read \
         them, and try again"
    )]
    Events {
        /// Who holds the queue.
        place: Place,
        /// The queue.
        name: Name,
        /// Bytes of events.
        bytes: u64,
    },
    /// A watched file has no name, or none that can be found.
    #[error(
        "{place} is {name}, whose watch {wd} is of a file without a name that can be found (inode {inode} on \
         device {major}:{minor}): remove the watch first, or open the file"
    )]
    Nameless {
        /// Who holds the queue.
        place: Place,
        /// The queue.
        name: Name,
        /// Number of the watch.
        wd: i32,
        /// Inode of the file.
        inode: u64,
        /// Its device.
        major: u32,
        /// Its device.
        minor: u32,
    },
    /// A Unix socket that cannot be brought back as it is.
    #[error("{place} is the Unix socket {name}, {why}")]
    Unix {
        /// Who holds the socket.
        place: Place,
        /// The socket.
        name: Name,
        /// What is the matter with it.
        why: UnixRefusal,
    },
    /// A netlink socket with something to be read.
    #[error(
        "{place} is the netlink socket {name}, which has messages or an error that nobody has read; these are not \
         dumped: let the program read them, and try again"
    )]
    Netlink {
        /// Who holds the socket.
        place: Place,
        /// The socket.
        name: Name,
    },
    /// An internet socket that cannot be brought back as it is.
    #[error("{place} is the internet socket {name}, {why}")]
    Internet {
        /// Who holds the socket.
        place: Place,
        /// The socket.
        name: Name,
        /// What is the matter with it.
        why: InetRefusal,
    },
    /// A file in procfs of a process outside of the tree.
    #[error(
        "{place} is {name}, which belongs to process {pid} outside of the tree: close it first, or choose a root \
         above both"
    )]
    Stranger {
        /// Who holds the file.
        place: Place,
        /// The file.
        name: Name,
        /// Whose it is.
        pid: i32,
    },
    /// A slave whose master is not in the tree.
    #[error(
        "{place} is the terminal {name}, whose master is outside of the tree: choose a root above both, use \
         --shell-job if it is the one the tree was started from, or --external 'tty[{rdev:x}:{dev:x}]' and give \
         it back with --inherit-fd, or run the program with redirected input and output"
    )]
    Terminal {
        /// Who holds the terminal.
        place: Place,
        /// Its path.
        name: Name,
        /// Its device.
        rdev: u32,
        /// The device that its node is on.
        dev: u32,
    },
    /// A second terminal with its master outside.
    #[error(
        "{place} is the terminal {name}, but the tree also uses {other}, and the masters of both are outside of \
         it; there is one terminal to stand in: close the other"
    )]
    SecondTerminal {
        /// Who holds the terminal.
        place: Place,
        /// Its path.
        name: Name,
        /// Path of the first one.
        other: Name,
    },
    /// The slave of a master of the tree is open elsewhere too.
    #[error(
        "{place} is the master of terminal /dev/pts/{number}, which process {pid} outside of the tree has open: \
         end that first, or choose a root that is the ancestor of both"
    )]
    SlaveOutside {
        /// Who holds the master.
        place: Place,
        /// Number of the terminal.
        number: u32,
        /// Who has the slave.
        pid: i32,
    },
    /// A terminal whose session is not in the tree.
    #[error(
        "{place} is the terminal {name}, which is that of session {sid}, whose leader is outside of the tree: \
         choose a root that is the ancestor of both"
    )]
    SessionOutside {
        /// Who holds the terminal.
        place: Place,
        /// Its path.
        name: Name,
        /// The session.
        sid: i32,
    },
    /// An `--external` key that cannot be understood.
    #[error(
        "--external {key}: expected file[MOUNT:INODE] or tty[RDEV:DEV], hexadecimal, or unix[INODE], decimal"
    )]
    External {
        /// The key.
        key: String,
    },
    /// More files than can be numbered.
    #[error("the tree has too many open files")]
    TooMany,
}

/// Why a lock could not be taken again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockRefusal {
    /// Somebody outside would get it.
    Awaited {
        /// Who waits for it.
        by: i32,
    },
    /// Somebody outside keeps it.
    Shared {
        /// Who has the description too.
        by: i32,
    },
    /// No task has the description.
    InFlight,
    /// Only a thread with a table of its own has the description.
    OfThread,
}

impl fmt::Display for LockRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Awaited { by } => write!(
                f,
                "for which process {by} outside of the tree waits, which would get it when the tree ends: \
                 stop that process, or use --leave-running"
            ),
            Self::Shared { by } => write!(
                f,
                "which process {by} outside of the tree shares and keeps when the tree ends: choose a root \
                 above both, or use --leave-running"
            ),
            Self::OfThread => write!(
                f,
                "by a descriptor that one thread has apart from its process, which is not dumped yet: end that thread first"
            ),
            Self::InFlight => write!(
                f,
                "by a descriptor that is in flight only: let the program receive it first"
            ),
        }
    }
}

/// What to do about an errno, as the end of a sentence.
fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::MFILE => "; raise the limit of open files of the dumper",
        Errno::ACCESS | Errno::PERM => "; run the dump as root",
        Errno::XDEV => "; the directory it was in is gone: create it again",
        Errno::ROFS => "; make the file system writable",
        Errno::NOSPC | Errno::DQUOT => "; make room on the file system",
        _ => "",
    }
}
