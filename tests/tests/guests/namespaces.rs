//! Guests in namespaces of their own.

use super::{BEFORE, SHARED, SIGTRAP, guest, leasing, locking, refused, terminals, unlike};
use gelid_tests::{Case, Mode};

/// A guest that is the first process in namespaces of its own.
const fn inside(kinds: &'static str, of: Case) -> Case {
    Case {
        inside: Some(kinds),
        // How the images are written makes no difference.
        without: match of.without {
            [] => &[Mode::Zstd, Mode::Rounds],
            without => without,
        },
        ..of
    }
}

/// What CRIU does not dump.
const HEADLESS: &str = "processes whose main thread has ended";

/// A guest in a container: a root directory and namespaces of its own.
const fn contained(case: Case) -> Case {
    inside("pid mnt uts ipc net cgroup box", case)
}

/// The same, where root is nobody outside.
const fn of_nobody(case: Case) -> Case {
    inside("pid user mnt uts ipc net box", case)
}

/// What CRIU knows nothing of.
const NESTED: &str = "namespaces of tasks beyond the root's";

/// A guest with a mount namespace of its own, to which most of the host's mounts are given.
const fn mounting(case: Case) -> Case {
    Case {
        options: &["--external", "mnt[]"],
        ignore: &["ns/mnt"],
        ..case
    }
}

/// A guest with namespaces that its root has not, which are other ones then.
const fn nested(name: &'static str, facts: &'static [&'static str]) -> Case {
    Case {
        ignore: facts,
        ..unlike(name, NESTED)
    }
}

/// A guest in namespaces of its own, below those of its root.
const fn below(args: &'static [&'static str]) -> Case {
    Case {
        args,
        without: &[Mode::Zstd, Mode::Rounds],
        ignore: &["ns/"],
        ..unlike("below", NESTED)
    }
}

/// A guest with user namespaces below that of its root.
const fn users(name: &'static str) -> Case {
    Case {
        without: &[Mode::Zstd, Mode::Rounds],
        ignore: &["ns/"],
        ..unlike(name, NESTED)
    }
}

/// All of them.
pub(super) const CASES: &[Case] = &[
    inside("pid", guest("subreaper")),
    inside("pid", guest("pdeath-signal")),
    inside("pid", guest("owner-signal")),
    inside("pid", guest("epoll-signalfd")),
    inside("pid", locking(guest("locks-posix"))),
    inside("pid", locking(unlike("large-table", SHARED))),
    inside("pid", guest("pidfd")),
    inside("pid", unlike("pidfd-dead", "how others have ended")),
    inside("pid", guest("pidfd-zombie")),
    inside("pid", guest("pidfd-in-flight")),
    inside("pid", unlike("pidfd-thread", "pidfds of threads")),
    inside(
        "pid",
        terminals(unlike(
            "pty-sessions",
            "terminals opened by others than their leaders",
        )),
    ),
    inside(
        "pid",
        terminals(unlike("pty-dead-group", "a group that has ended")),
    ),
    inside("pid", guest("clear-child-tid")),
    inside("pid", guest("mutexes")),
    inside("pid", unlike("sharing-mixed", SHARED)),
    inside("pid", unlike("sharing-vm-sighand", SHARED)),
    inside("pid", unlike("handlers", SIGTRAP)),
    inside("pid", guest("pending-shared")),
    inside(
        "pid",
        unlike("pending-thread", "a SIGCHLD that waits in a thread"),
    ),
    inside("pid", guest("signalfd")),
    inside(
        "pid",
        unlike("threads", "timer slack and affinity of threads"),
    ),
    inside("pid", unlike("thread-leader-gone-status", HEADLESS)),
    inside(
        "pid user uts cgroup",
        locking(unlike("thread-leader-gone", HEADLESS)),
    ),
    inside("pid", guest("itimers")),
    inside("pid", guest("tree-deep")),
    inside("pid", guest("sessions")),
    inside("pid", guest("unix-rights")),
    inside("pid", guest("in-handler")),
    inside("pid", guest("altstack")),
    inside("pid", guest("registers")),
    inside("pid user", guest("limits")),
    inside("pid user", unlike("affinity", "affinity")),
    inside("pid user", guest("no-new-privs")),
    inside("pid user", guest("securebits")),
    inside("pid user", guest("dumpable")),
    inside("pid user", guest("regular")),
    inside("pid user", guest("deleted")),
    inside("pid user", guest("directory")),
    inside("pid user", guest("pipe-reopened")),
    inside("pid user", guest("memfd-shared")),
    inside("pid user", locking(guest("locks-posix"))),
    inside("pid user", leasing(guest("leases-foreign"))),
    inside("pid user", guest("owner-signal")),
    inside("pid user", guest("sessions")),
    // Names without a file belong to a network, and have the pid in them.
    inside(
        "pid user net",
        unlike("unix-bound", "directories made for names that are gone"),
    ),
    inside("pid net", unlike("unix-senders", "names of senders")),
    inside("pid net", unlike("unix-peers", "SO_PEERCRED")),
    inside("pid user net", unlike("unix-first", "SO_PEERCRED")),
    inside("pid", unlike("unix-credentials", "credentials of messages")),
    inside(
        "pid user",
        unlike("unix-credentials", "credentials of messages"),
    ),
    inside("pid uts time cgroup", guest("tree-deep")),
    inside("pid user uts cgroup", unlike("sharing-mixed", SHARED)),
    inside("pid user", guest("pidfd")),
    inside("pid user", guest("pidfd-in-flight")),
    inside("pid user", guest("oom-score")),
    nested("nested-names", &["ns/uts"]),
    nested("nested-clocks", &["ns/time"]),
    nested("nested-cgroups", &["ns/cgroup"]),
    nested("nested-ipc", &["ns/ipc"]),
    inside("pid ipc", nested("nested-ipc", &[])),
    inside("pid user", nested("nested-ipc", &[])),
    inside("pid uts", nested("nested-names", &[])),
    inside("pid user uts", nested("nested-names", &[])),
    inside("pid user", nested("nested-clocks", &[])),
    inside("pid time", nested("nested-clocks", &[])),
    inside("pid", nested("nested-cgroups", &[])),
    inside("pid cgroup", nested("nested-cgroups", &[])),
    contained(guest("tree-deep")),
    contained(guest("pipe-data")),
    contained(guest("fifo-data")),
    contained(guest("regular")),
    contained(guest("deleted")),
    contained(guest("memfd-shared")),
    contained(unlike(
        "posix-timers",
        "which thread a timer in a pid namespace is for",
    )),
    contained(guest("unix-rights")),
    contained(guest("epoll-nested")),
    contained(guest("cow-tree")),
    contained(locking(guest("locks-posix"))),
    contained(terminals(guest("pty-opened"))),
    contained(guest("inotify-boxed")),
    contained(Case {
        without: &[Mode::Zstd, Mode::Rounds, Mode::ToCriu],
        ..guest("cgroup-mounted")
    }),
    contained(unlike("nested-shown", NESTED)),
    of_nobody(unlike("nested-shown", NESTED)),
    of_nobody(guest("tree-deep")),
    of_nobody(guest("deleted")),
    of_nobody(guest("memfd-shared")),
    of_nobody(guest("anon-mixed")),
    of_nobody(terminals(guest("pty-opened"))),
    mounting(unlike("mounts", BEFORE)),
    mounting(unlike("mounts-nested", BEFORE)),
    mounting(refused("mounts-covered", "unmount what covers it")),
    mounting(refused(
        "mounts-unknown",
        "of a file system that is not dumped",
    )),
    inside(
        "pid user",
        mounting(refused("mounts-formats", "formats that a user namespace")),
    ),
    mounting(unlike("mounts-mapped", "other owners of files")),
    inside("pid", mounting(unlike("automount", BEFORE))),
    inside(
        "pid",
        mounting(refused(
            "automount-outside",
            "whose daemon is not in the tree",
        )),
    ),
    mounting(unlike("mounts-sockets", "files of sockets that nobody has")),
    mounting(unlike("mounts-shared-directories", SHARED)),
    Case {
        ignore: &["ns/"],
        ..unlike("below-levels", NESTED)
    },
    unlike("below-empty", NESTED),
    Case {
        // A copy of its memory takes numbers.
        without: &[Mode::Zstd, Mode::Rounds, Mode::Running],
        ..inside("pid", unlike("last-pid", "the number given last"))
    },
    inside("pid", below(&["pid", "pidfd"])),
    inside("pid user", below(&["pid", "owner-signal"])),
    users("users-maps"),
    users("users-unmapped"),
    users("users-levels"),
    users("users-siblings"),
    inside("pid", users("users-groups")),
    inside("pid", users("users-self")),
    inside("pid", users("users-threads")),
    inside("pid", users("users-init")),
    inside("pid user", users("users-maps")),
    inside("pid user", users("users-self")),
    inside("pid user", users("users-levels")),
    inside("pid user", users("users-siblings")),
    inside("pid user", users("users-threads")),
    inside("pid user", users("users-init")),
    inside("pid mnt", below(&["user pid mnt", "sessions"])),
    inside("pid mnt", below(&["user mnt uts", "pidfd"])),
    inside("pid mnt", users("owners")),
    of_nobody(users("owners")),
    below(&["user", "sessions"]),
    below(&["user uts ipc cgroup", "pidfd"]),
    below(&["user net", "unix-rights"]),
    inside("pid", below(&["user pid", "pidfd"])),
    inside("pid", below(&["user pid", "sessions"])),
    inside("pid", below(&["user pid", "pending-thread"])),
    inside(
        "pid",
        below(&["user pid uts ipc cgroup net", "sharing-mixed"]),
    ),
    below(&["pid", "pidfd"]),
    below(&["pid", "subreaper"]),
    below(&["pid", "sessions"]),
    below(&["pid", "owner-signal"]),
    below(&["pid", "threads"]),
    below(&["pid", "pending-thread"]),
    below(&["pid", "sharing-mixed"]),
    below(&["pid", "posix-timers"]),
    inside("pid mnt", below(&["pid mnt", "pidfd"])),
    inside("pid mnt", below(&["pid mnt", "session-leader-dead"])),
];
