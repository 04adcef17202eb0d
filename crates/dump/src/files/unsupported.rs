//! Kinds of files that are not dumped, and what to do about them.

use std::fmt;

/// A kind of file that is not dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// A socket.
    Socket {
        /// Its family: `AF_INET` and so on.
        family: i32,
    },
    /// A socket between virtual machines that has or had a connection, or is about to.
    VsockConnection,
    /// One that listens, with connections that nobody has accepted.
    VsockPending,
    /// One of datagrams.
    VsockDatagrams,
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
    /// A file of `/proc/PID/ns`.
    Namespace,
    /// A BPF program or link.
    Bpf,
    /// A BPF map that is neither a plain hash table nor a plain array.
    BpfMap,
    /// A BPF map that is mapped.
    MappedBpf,
    /// A BPF map whose entries are described by BTF.
    BpfTypes,
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
    /// A TUN or TAP device that is not persistent.
    FleetingTun,
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
    /// A socket that is mapped, and is no packet socket, or closed.
    MappedSocket,
    /// What is mapped, has no name, and may not be looked at.
    UnseenMapping,
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
            Self::VsockConnection => (
                "a connection between virtual machines (vsock), whose other end is outside",
                CLOSE,
            ),
            Self::VsockPending => (
                "a socket between virtual machines (vsock) where connections wait to be accepted",
                "let the program accept them first",
            ),
            Self::VsockDatagrams => ("a socket of datagrams between virtual machines", CLOSE),
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
            Self::Namespace => ("a namespace", CLOSE),
            Self::Bpf => ("a BPF program, or what belongs to one", CLOSE),
            Self::BpfMap => (
                "a BPF map of another type than hash table and array, of 4 GiB, or with flags of which nothing is known",
                CLOSE,
            ),
            Self::MappedBpf => ("a mapped array of BPF", "unmap it first"),
            Self::BpfTypes => (
                "a BPF map whose entries are described by types (BTF), which no image can hold",
                "make it without them, or close it first",
            ),
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
            Self::FleetingTun => (
                "a queue of a TUN or TAP device that goes with it",
                "make the device persistent (ip tuntap add)",
            ),
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
            Self::MappedSocket => (
                "a mapped socket that is not open as a packet socket",
                "unmap it first",
            ),
            Self::UnseenMapping => (
                "shared memory or a file without a name, and nobody in a user namespace may look behind a mapping",
                "dump with CAP_CHECKPOINT_RESTORE outside of it",
            ),
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
        29 => "a CAN socket",
        31 => "a Bluetooth socket",
        38 => "a socket of the kernel's cryptography",
        44 => "an XDP socket",
        _ => "a socket of another family",
    }
}

const CLOSE: &str = "close it first";
const REDIRECT: &str = "run the program with redirected input and output";
