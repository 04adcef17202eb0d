//! Why a descriptor, an executable or a mapped file cannot be dumped.

use std::fmt;
use std::os::fd::RawFd;

use gelid_image::WriteError;
use gelid_sys::{Errno, Pid, proc};

use super::{InetRefusal, Name, Place, UnixRefusal};

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
    /// The contents of a pipe are divided in packets, which an image cannot tell.
    #[error(
        "{place} is {name}, which holds {bytes} bytes in packets (O_DIRECT); packets are not dumped yet: \
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
            Self::InFlight => write!(
                f,
                "by a descriptor that is in flight only: let the program receive it first"
            ),
        }
    }
}

/// A kind of file that is not dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// A socket.
    Socket {
        /// Its family: `AF_INET` and so on.
        family: i32,
    },
    /// A fanotify group that others wait for.
    FanotifyPermission,
    /// A fanotify mark on what is mounted nowhere.
    FanotifyUnmounted,
    /// userfaultfd.
    Userfaultfd,
    /// io_uring.
    IoUring,
    /// A pidfd of somebody outside of the tree.
    PidfdOutside {
        /// Who that is.
        pid: i32,
    },
    /// A pidfd on its way to a socket.
    PidfdInFlight,
    /// A file of `/proc/PID/ns`.
    Namespace,
    /// A BPF program, map or link.
    Bpf,
    /// perf events.
    Perf,
    /// The end of a seccomp filter that a supervisor has.
    SeccompListener,
    /// A POSIX message queue without a name.
    MessageQueue,
    /// A task is to be told of the next message in a queue.
    MessageNotice,
    /// `memfd_secret(2)`.
    SecretMemory,
    /// A System V segment.
    SystemV,
    /// A terminal of a kind of which nothing is known.
    OtherTerminal,
    /// A terminal that serves something else than people: a network over a serial line, a mouse.
    LineDiscipline,
    /// A pseudoterminal whose number no image can tell.
    ManyTerminals,
    /// A master in packet mode that has something to tell.
    PacketStatus,
    /// A device with state of its own.
    Device {
        /// Its numbers.
        major: u32,
        /// Its numbers.
        minor: u32,
    },
    /// A pipe opened with `O_PATH`.
    PathOfPipe,
    /// An eventfd or its likes opened with `O_PATH`.
    PathOfEvents,
    /// A deleted file on hugetlbfs.
    DeletedHuge,
    /// A file with a lease, and without a name.
    DeletedLeased,
    /// An anonymous inode that gelid does not know.
    Anonymous,
    /// A deleted file of procfs that belongs to no process.
    Vanished,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, remedy) = match self {
            Self::Socket { family } => (socket(*family), CLOSE),
            Self::FanotifyPermission => (
                "a fanotify group that others wait for (FAN_OPEN_PERM and its likes)",
                CLOSE,
            ),
            Self::FanotifyUnmounted => (
                "a fanotify group with a mark on a mount that cannot be found",
                "remove the mark first",
            ),
            Self::Userfaultfd => ("a userfaultfd", CLOSE),
            Self::IoUring => {
                return write!(
                    f,
                    "an io_uring, and the kernel does not tell how it was set up: {CLOSE}, or run the program \
                     without it (Node.js: UV_USE_IO_URING=0)"
                );
            }
            Self::PidfdOutside { pid } => {
                return write!(
                    f,
                    "a pidfd of {pid}, which is outside of the tree: {CLOSE}, or choose a root above both"
                );
            }
            Self::PidfdInFlight => ("a pidfd in flight", "let the program receive it first"),
            Self::Namespace => ("a namespace", CLOSE),
            Self::Bpf => ("a BPF object", CLOSE),
            Self::Perf => ("a perf event", CLOSE),
            Self::SeccompListener => ("the listener of a seccomp filter", CLOSE),
            Self::MessageQueue => ("a POSIX message queue without its name", CLOSE),
            Self::MessageNotice => (
                "a POSIX message queue that tells the program of its next message (mq_notify)",
                "unregister it first",
            ),
            Self::SecretMemory => ("secret memory", "run the program without it"),
            Self::SystemV => ("System V shared memory", "detach it first"),
            Self::OtherTerminal => ("a terminal of an unknown kind", REDIRECT),
            Self::LineDiscipline => ("a terminal with another line discipline", CLOSE),
            Self::ManyTerminals => (
                "a pseudoterminal with a number of 1000 or more",
                "close some others, and start it again",
            ),
            Self::PacketStatus => (
                "a master in packet mode that has a change to tell",
                "let the program read it first",
            ),
            Self::Device { major, minor } => {
                return write!(
                    f,
                    "the device {major}:{minor}, whose state is in its driver and cannot be dumped: {CLOSE}"
                );
            }
            Self::PathOfPipe => ("a pipe opened with O_PATH", CLOSE),
            Self::PathOfEvents => ("an event file opened with O_PATH", CLOSE),
            Self::DeletedHuge => ("a deleted file on hugetlbfs", "leave it its name"),
            Self::DeletedLeased => (
                "a file with a lease and without a name",
                "give the lease back first",
            ),
            Self::Anonymous => ("a kind of file that gelid does not know", CLOSE),
            Self::Vanished => ("a file of procfs that is gone", CLOSE),
        };
        write!(f, "{what}, which is not dumped yet: {remedy}")
    }
}

/// What a family of sockets is called.
fn socket(family: i32) -> &'static str {
    match family {
        16 => "a netlink socket",
        17 => "a packet socket",
        29 => "a CAN socket",
        31 => "a Bluetooth socket",
        38 => "a socket of the kernel's cryptography",
        40 => "a socket between virtual machines",
        44 => "an XDP socket",
        _ => "a socket of another family",
    }
}

const CLOSE: &str = "close it first";
const REDIRECT: &str = "run the program with redirected input and output";

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
