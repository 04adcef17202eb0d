//! Guests with an object that no dump takes, and one that is near to these.

use super::{guest, locking, refused, terminals};
use gelid_tests::Case;

/// A guest with connections.
const fn connected(name: &'static str, reason: &'static str) -> Case {
    Case {
        options: &["--tcp-established"],
        ..refused(name, reason)
    }
}

/// All of them.
pub(super) const CASES: &[Case] = &[
    // In a large table.
    Case {
        args: &["400"],
        ..refused("locks-refused", "use --file-locks")
    },
    refused("refused-bpf", "a BPF program"),
    refused("refused-perf", "perf"),
    refused("refused-userfaultfd", "userfaultfd"),
    refused("refused-device", "device"),
    refused("refused-thread-files", "descriptors"),
    refused("refused-leader-death", "PR_SET_PDEATHSIG"),
    Case {
        args: &["pid mnt", "sessions"],
        ..refused("below", "in another mnt namespace")
    },
    refused("users-groups-mixed", "has other groups than its parent"),
    refused("users-shared", "shares its working directory"),
    Case {
        inside: Some("pid mnt"),
        ..refused("owners-devpts", "below that of the root")
    },
    Case {
        inside: Some("pid mnt"),
        ..refused("owners-unmapped", "below that of the root")
    },
    refused("below-gone", "a pid namespace that has ended"),
    refused("below-put", "put into a pid namespace"),
    refused("refused-dispatch", "PR_SET_SYSCALL_USER_DISPATCH"),
    connected("refused-mptcp", "a connection of MPTCP"),
    connected("refused-ktls", "which keeps state of its own"),
    connected("refused-notices", "MSG_ERRQUEUE"),
    refused("refused-family", "which is not dumped yet: close it first"),
    refused("refused-socket-mapped", "a mapped socket"),
    refused("refused-renamed", "give that its old name again"),
    locking(refused("locks-awaited", "waits, which would get it")),
    locking(refused("locks-kept", "shares and keeps")),
    refused("refused-pidfd-in-flight", "which has a pidfd to be read"),
    locking(refused("refused-lock-in-flight", "in flight only")),
    refused("refused-mixed-pipe", "not written as packets"),
    refused("refused-shared-undo", "CLONE_SYSVSEM"),
    refused("refused-thread-undo", "CLONE_SYSVSEM"),
    refused("refused-32-bit", "32-bit code"),
    guest("call-32-bit"),
    refused("refused-thread-names", "of its own (unshare)"),
    locking(refused(
        "refused-thread-lock",
        "that one thread has apart from its process",
    )),
    refused("refused-thread-pidfd", "a pidfd of a thread"),
    refused("refused-thread-watched", "a pidfd of a thread"),
    refused("refused-dead-thread", "a file of procfs that is gone"),
    refused("refused-thread-file", "a file of a thread in /proc"),
    refused("refused-group", "whose leader runs outside of the tree"),
    terminals(refused("refused-discipline", "another line discipline")),
    terminals(refused("refused-terminal", "whose leader is outside")),
    refused("io-uring", "an io_uring"),
    refused("io-uring-mapped", "an io_uring"),
];
