//! The table: every guest of `gelid-guest --list`, and what is peculiar about it.

mod bpf;
mod equal;
mod idle;
mod internet;
mod ipc;
mod namespaces;
mod pipes;
mod protection;
mod refusals;
mod unix;
mod working;

use crate::trial;
use anyhow::{Result, ensure};
use gelid_tests::{Case, Mode, Verdict, build, output};
use libtest_mimic::Trial;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

/// A guest without peculiarities.
const fn guest(name: &'static str) -> Case {
    Case::new(name)
}

/// A guest with arguments.
const fn with(name: &'static str, args: &'static [&'static str]) -> Case {
    Case {
        args,
        ..guest(name)
    }
}

/// A guest of which CRIU loses something.
const fn unlike(name: &'static str, lost: &'static str) -> Case {
    Case {
        lost_by_criu: Some(lost),
        ..guest(name)
    }
}

/// A guest that changes these facts itself.
const fn changing(name: &'static str, ignore: &'static [&'static str]) -> Case {
    Case {
        ignore,
        ..guest(name)
    }
}

/// A guest with a deadline: restored when that has passed, it has ended before it can be looked at.
const fn waiting_until(case: Case) -> Case {
    Case {
        moving: true,
        ..case
    }
}

/// A guest whose dump is refused for this reason.
const fn refused(name: &'static str, reason: &'static str) -> Case {
    Case {
        refused: Some(reason),
        ..guest(name)
    }
}

/// A guest that is worth few modes, as it takes long to begin or is shown elsewhere.
const fn seldom(case: Case) -> Case {
    Case {
        without: &[Mode::Zstd, Mode::Running, Mode::Rounds],
        ..case
    }
}

/// A guest that uses pseudoterminals.
const fn terminals(case: Case) -> Case {
    Case {
        terminals: true,
        ..case
    }
}

/// What CRIU loses of a program that has left its mount namespace.
const BEFORE: &str = "files of the mount namespace before";

/// A guest whose files are locked.
const fn locking(case: Case) -> Case {
    Case {
        options: &["--file-locks"],
        ..case
    }
}

/// A guest with leases.
const fn leasing(case: Case) -> Case {
    Case {
        // Looking after the directory breaks them.
        without: &[Mode::Running],
        ..locking(case)
    }
}

/// A guest that no tracer can stop.
const fn waiting_in_vfork(name: &'static str) -> Case {
    Case {
        dump_options: &["--timeout=1"],
        refused: Some("waits in vfork"),
        ..guest(name)
    }
}

/// What CRIU loses of several guests.
const INTERRUPTED: &str = "calls that a stop interrupts are not made again";
const NO_ROOM: &str = "needs room in the target";
const SIGTRAP: &str = "the disposition of SIGTRAP";
const FOREIGN: &str = "limits of other users' tasks need CAP_SYS_RESOURCE";
const MESSAGES: &str = "message queues, unless they are mounted on /dev/mqueue";
/// Of guests that CRIU dumps not, but restores.
const NOT_BY_CRIU: &[Mode] = &[Mode::FromCriu];
const SHARED: &str = "tables shared between processes";

/// Every guest, but for those with sockets, and those with what is never dumped.
const CASES: &[Case] = &[
    guest("madvise-flags"),
    guest("wipe-on-fork"),
    guest("dont-fork"),
    guest("guard-pages"),
    guest("mlock"),
    unlike("mlock-onfault", "locked on fault becomes locked"),
    unlike("mlockall", "new mappings are no longer locked"),
    guest("thp"),
    guest("hugetlb"),
    guest("vma-names"),
    guest("aio"),
    unlike("aio-waiting", INTERRUPTED),
    refused("aio-forked", "since a fork"),
    guest("anon-dense"),
    with("anon-dense", &["256"]),
    guest("anon-sparse"),
    guest("anon-mixed"),
    guest("anon-changing"),
    guest("prot-none"),
    guest("write-only"),
    guest("read-only"),
    guest("reservation"),
    guest("many-mappings"),
    guest("brk"),
    guest("grows-down"),
    unlike("beyond-memory", "mappings larger than memory"),
    unlike("dispatch", "the dispatch of system calls"),
    guest("subreaper"),
    guest("pdeath-signal"),
    guest("no-new-privs"),
    guest("securebits"),
    guest("dumpable"),
    unlike("personality", "the personality"),
    guest("thp-disable"),
    guest("login-uid"),
    guest("identity"),
    Case {
        dump_options: &["--ghost-limit=128M"],
        ..guest("exe-deleted")
    },
    unlike("blocked-nanosleep", INTERRUPTED),
    unlike("blocked-clock-nanosleep", INTERRUPTED),
    waiting_until(guest("blocked-clock-nanosleep-abs")),
    unlike("blocked-poll", INTERRUPTED),
    guest("blocked-ppoll"),
    guest("blocked-select"),
    waiting_until(unlike("blocked-futex-timeout", INTERRUPTED)),
    waiting_until(unlike("blocked-futex-deadline", INTERRUPTED)),
    waiting_until(unlike("blocked-sigtimedwait", INTERRUPTED)),
    waiting_until(unlike("blocked-epoll-timeout", INTERRUPTED)),
    unlike("address-space-full", NO_ROOM),
    unlike("address-space-limited", NO_ROOM),
    unlike("limits-used-up", NO_ROOM),
    guest("no-stack"),
    guest("cgroups"),
    guest("cgroup-threads"),
    guest("shared-text"),
    guest("sigtrap-handled"),
    unlike("sigtrap-blocked", SIGTRAP),
    unlike("sigtrap-ignored", SIGTRAP),
    unlike("ids", FOREIGN),
    unlike("capabilities", FOREIGN),
    guest("limits"),
    guest("umask"),
    unlike("priority", "I/O priority"),
    guest("deadline"),
    unlike("affinity", "affinity"),
    unlike("autogroup", "the nice value of a session"),
    guest("oom-score"),
    unlike("timer-slack", "timer slack"),
    guest("dup"),
    guest("dup-forked"),
    guest("cloexec"),
    unlike("high-descriptors", "has no room for its own descriptors"),
    guest("owner-signal"),
    guest("devices"),
    Case {
        dump_options: &["--evasive-devices"],
        ..guest("device-elsewhere")
    },
    guest("many-files"),
    seldom(guest("full-table")),
    guest("no-stdio"),
    Case {
        lost_by_criu: Some("files of networks, once they were looked for again"),
        // The kernel says or does not say that they are deleted.
        ..changing("of-networks", &["fd 0003", "fd 0004", "fd 0005"])
    },
    unlike("of-processes", "positions in what changes on the way"),
    guest("of-the-dead"),
    guest("open-namespaces"),
    refused("of-a-stranger", "outside of the tree: close it first"),
    guest("epoll"),
    guest("epoll-nested"),
    unlike("epoll-oneshot", "watches that have fired are armed"),
    unlike("epoll-numbers", "numbers that files are watched by"),
    unlike("epoll-shared", "numbers that files are watched by"),
    guest("epoll-signalfd"),
    guest("epoll-timerfd"),
    guest("epoll-many"),
    guest("epoll-sockets"),
    guest("epoll-in-flight"),
    guest("eventfd"),
    unlike("eventfd-full", "counts of more than 32 bits"),
    unlike("eventfd-semaphore", "that it is a semaphore"),
    guest("eventfd-blocked"),
    guest("fanotify"),
    unlike("fanotify-mount", "marks on file systems"),
    refused("fanotify-permission", "others wait for"),
    seldom(guest("fanotify-overflow")),
    refused("fanotify-unread", "let the program read them"),
    guest("inotify"),
    unlike("inotify-oneshot", "the flags of a watch"),
    Case {
        // Looking after the directory is an event too.
        without: &[Mode::Running],
        ..guest("inotify-all")
    },
    unlike("inotify-deleted", "causes events of its own"),
    guest("inotify-blocked"),
    refused("inotify-unread", "let the program read them"),
    seldom(guest("inotify-overflow")),
    leasing(guest("leases")),
    leasing(unlike("leases-unowned", "files that nobody owns")),
    leasing(guest("leases-foreign")),
    leasing(unlike("leases-breaking", "leases that are being broken")),
    leasing(unlike("leases-blocked", "leases that are being broken")),
    Case {
        refused: Some("a file with a lease and without a name"),
        ..locking(guest("leases-deleted"))
    },
    locking(guest("locks-posix")),
    // Who has taken a lock and closed the file is not known as the taker any more.
    locking(changing("locks-descriptions", &["fd "])),
    locking(unlike("locks-shared-table", SHARED)),
    locking(unlike("large-table", SHARED)),
    locking(guest("locks-blocked")),
    // The file has another inode.
    locking(changing("locks-deleted", &["fd "])),
    refused("locks-refused", "use --file-locks"),
    guest("file-private"),
    guest("file-shared"),
    guest("file-past-end"),
    guest("file-deleted"),
    // A restored mapping has the name that the file was given beside the new one.
    changing("file-replaced", &["maps"]),
    guest("shared-anon"),
    guest("shared-anon-moved"),
    guest("memfd-shared"),
    guest("memfd-private"),
    guest("memfd-sealed"),
    guest("memfd-unmapped"),
    refused("memfd-secret", "secret memory"),
    refused("memfd-secret-mapped", "secret memory"),
    guest("vdso"),
    Case {
        // The original takes its queue with it.
        without: &[Mode::Running],
        ..unlike("mqueue", MESSAGES)
    },
    Case {
        without: &[Mode::Running],
        ..unlike("mqueue-blocked", MESSAGES)
    },
    refused("mqueue-notify", "tells the program of its next message"),
    refused("mqueue-unlinked", "without its name"),
    guest("pidfd"),
    unlike("pidfd-dead", "how others have ended"),
    guest("pidfd-zombie"),
    unlike("pidfd-thread", "pidfds of threads"),
    guest("pidfd-epoll"),
    refused("pidfd-outside", "which is outside of the tree"),
    terminals(unlike(
        "pty-queues",
        "incomplete lines, and where lines end",
    )),
    terminals(unlike("pty-settings", "settings that are locked")),
    terminals(guest("pty-opened")),
    terminals(guest("pty-hung-up")),
    terminals(unlike("pty-closed", "that the slave was open")),
    terminals(unlike("pty-stopped", "that the output was stopped")),
    terminals(unlike("pty-packets", "marks of packets become data")),
    terminals(refused(
        "pty-unread-packet",
        "let the program read it first",
    )),
    terminals(unlike(
        "pty-sessions",
        "terminals opened by others than their leaders",
    )),
    terminals(unlike("pty-dead-group", "a group that has ended")),
    terminals(refused(
        "pty-master-outside",
        "whose master is outside of the tree",
    )),
    terminals(refused("pty-slave-outside", "outside of the tree has open")),
    Case {
        // The device goes with the original.
        without: &[Mode::Running],
        ..unlike("tun", "devices of the host")
    },
    refused("tun-fleeting", "make the device persistent"),
    guest("cwd"),
    guest("cwd-deleted"),
    guest("chroot"),
    guest("registers"),
    guest("flags"),
    guest("segments"),
    guest("regular"),
    guest("append"),
    guest("path-only"),
    guest("directory"),
    guest("deleted"),
    Case {
        dump_options: &["--link-remap"],
        // The name made for the restore goes away when the tree lives on.
        without: &[Mode::Running],
        ..guest("deleted-hard-linked")
    },
    Case {
        dump_options: &["--ghost-limit=128M"],
        ..guest("deleted-big")
    },
    guest("deleted-sparse"),
    guest("deleted-directory"),
    guest("renamed"),
    guest("tmpfile"),
    guest("robust-list"),
    guest("clear-child-tid"),
    Case {
        pause: Duration::from_millis(300),
        ..guest("rseq-critical")
    },
    guest("rseq-registration"),
    guest("seccomp-strict"),
    guest("seccomp-filters"),
    unlike(
        "seccomp-threads",
        "that some filters are the same in all threads",
    ),
    unlike("seccomp-poor", FOREIGN),
    guest("seccomp-narrow"),
    guest("seccomp-long"),
    refused("seccomp-supervised", "asks a supervisor"),
    guest("sharing-nothing"),
    guest("sharing-files"),
    unlike("sharing-fs", SHARED),
    unlike("sharing-files-fs", SHARED),
    unlike("sharing-vm", SHARED),
    unlike("sharing-vm-sighand", SHARED),
    unlike("sharing-all", SHARED),
    unlike("sharing-mixed", SHARED),
    waiting_in_vfork("vfork"),
    waiting_in_vfork("vfork-vm"),
    guest("signalfd"),
    guest("signalfd-blocked"),
    guest("altstack"),
    guest("in-handler"),
    guest("sigmasks"),
    unlike("handlers", SIGTRAP),
    guest("pending-shared"),
    unlike("pending-thread", "a SIGCHLD that waits in a thread"),
    guest("pending-many"),
    Case {
        refused: Some("is traced by"),
        ..guest("traced")
    },
    unlike("threads", "timer slack and affinity of threads"),
    Case {
        args: &["1000"],
        ..unlike("threads", "timer slack and affinity of threads")
    },
    locking(Case {
        without: NOT_BY_CRIU,
        ..guest("thread-leader-gone")
    }),
    Case {
        without: NOT_BY_CRIU,
        ..guest("thread-leader-gone-status")
    },
    unlike("thread-apart", "what a thread has alone"),
    // So many that their records are written while they play.
    Case {
        args: &["80"],
        ..unlike("thread-apart", "what a thread has alone")
    },
    changing("mutexes", &["maps"]),
    guest("timerfd"),
    unlike("timerfd-deadlines", "parts of a second of a deadline"),
    Case {
        pause: Duration::from_secs(1),
        // Twice is too long, and what is restored later is late.
        without: &[Mode::Rounds, Mode::Running],
        ..unlike("timerfd-time-of-day", "deadlines")
    },
    guest("timerfd-fires"),
    Case {
        ignore: &["fd "],
        ..unlike("timerfd-periodic", "ticks that nobody has counted")
    },
    guest("itimers"),
    changing("itimer-fires", &["ShdPnd"]),
    guest("posix-timers"),
    Case {
        ignore: &["ShdPnd"],
        ..unlike("timer-overrun", "overruns of timers")
    },
    guest("timer-fires"),
    guest("tree-deep"),
    guest("tree-wide"),
    guest("sessions"),
    unlike("session-leader-dead", "parents of orphans"),
    guest("group-leader-dead"),
    guest("orphans"),
    unlike("zombies", "exit codes"),
    guest("stopped"),
    guest("stopped-tstp"),
    guest("blocked-futex"),
    guest("blocked-pause"),
    guest("blocked-sigsuspend"),
    unlike("blocked-sigwait", INTERRUPTED),
    guest("blocked-pipe-read"),
    guest("blocked-pipe-write"),
    guest("blocked-fifo-open"),
    guest("blocked-wait4"),
    unlike("blocked-epoll-wait", INTERRUPTED),
    guest("x87"),
    guest("mxcsr"),
    guest("sse"),
    guest("avx"),
    guest("avx512"),
];

/// One test for each guest in each of its modes.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial("every guest is listed".into(), every_guest_is_listed)];
    for case in cases() {
        let name = [&[case.guest][..], case.args].concat().join("-");
        let name = match case.inside {
            Some(kinds) => format!("inside-{}-{name}", kinds.replace(' ', "-")),
            None => name,
        };
        trials.extend(
            case.modes()
                .map(|mode| trial(format!("{name}/{}", mode.name()), move || case.run(mode))),
        );
    }
    trials
}

/// All cases.
fn cases() -> impl Iterator<Item = &'static Case> {
    let sockets = internet::CASES.iter().chain(unix::CASES);
    let others = ipc::CASES.iter().chain(refusals::CASES);
    let others = others.chain(namespaces::CASES).chain(pipes::CASES);
    let others = others.chain(idle::CASES).chain(protection::CASES);
    let others = others.chain(working::CASES).chain(equal::CASES);
    let others = others.chain(bpf::CASES);
    CASES.iter().chain(sockets).chain(others)
}

/// The table and the guest program agree.
fn every_guest_is_listed() -> Result<Verdict> {
    let text = output(Command::new(build()?.join("gelid-guest")).arg("--list"))?;
    let (there, listed): (BTreeSet<&str>, BTreeSet<&str>) = (
        text.lines().collect(),
        cases().map(|case| case.guest).collect(),
    );
    let missing: Vec<_> = there.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&there).collect();
    ensure!(
        missing.is_empty() && unknown.is_empty(),
        "not in the table: {missing:?}; no such guest: {unknown:?}"
    );
    Ok(Verdict::Passed)
}
