//! The table: every guest of `gelid-guest --list`, and what is peculiar about it.

use crate::trial;
use anyhow::{Result, ensure};
use gelid_tests::{Case, Verdict, build, output};
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

/// A guest that changes these facts itself.
const fn changing(name: &'static str, ignore: &'static [&'static str]) -> Case {
    Case {
        ignore,
        ..guest(name)
    }
}

/// Every guest.
const CASES: &[Case] = &[
    guest("madvise-flags"),
    guest("wipe-on-fork"),
    guest("dont-fork"),
    guest("guard-pages"),
    guest("mlock"),
    guest("mlock-onfault"),
    guest("mlockall"),
    guest("thp"),
    guest("hugetlb"),
    guest("vma-names"),
    guest("anon-dense"),
    with("anon-dense", &["1024"]),
    guest("anon-sparse"),
    guest("anon-mixed"),
    guest("anon-changing"),
    guest("prot-none"),
    guest("write-only"),
    guest("read-only"),
    guest("cow-tree"),
    guest("reservation"),
    guest("many-mappings"),
    guest("brk"),
    guest("grows-down"),
    guest("subreaper"),
    guest("pdeath-signal"),
    guest("no-new-privs"),
    guest("securebits"),
    guest("dumpable"),
    guest("personality"),
    guest("thp-disable"),
    guest("identity"),
    Case {
        dump_options: &["--ghost-limit=128M"],
        ..guest("exe-deleted")
    },
    guest("blocked-nanosleep"),
    guest("blocked-clock-nanosleep"),
    guest("blocked-clock-nanosleep-abs"),
    guest("blocked-poll"),
    guest("blocked-ppoll"),
    guest("blocked-select"),
    guest("blocked-futex-timeout"),
    guest("blocked-futex-deadline"),
    guest("blocked-sigtimedwait"),
    guest("blocked-epoll-timeout"),
    guest("address-space-full"),
    guest("address-space-limited"),
    guest("limits-used-up"),
    guest("no-stack"),
    guest("shared-text"),
    guest("sigtrap-handled"),
    guest("sigtrap-blocked"),
    guest("sigtrap-ignored"),
    guest("ids"),
    guest("capabilities"),
    guest("limits"),
    guest("umask"),
    guest("priority"),
    guest("affinity"),
    guest("oom-score"),
    guest("timer-slack"),
    guest("dup"),
    guest("dup-forked"),
    guest("cloexec"),
    guest("high-descriptors"),
    guest("owner-signal"),
    guest("devices"),
    guest("many-files"),
    guest("no-stdio"),
    guest("file-private"),
    guest("file-shared"),
    guest("file-past-end"),
    guest("file-deleted"),
    guest("file-replaced"),
    guest("shared-anon"),
    guest("shared-anon-moved"),
    guest("memfd-shared"),
    guest("memfd-private"),
    guest("memfd-sealed"),
    guest("memfd-unmapped"),
    guest("vdso"),
    guest("pipe-data"),
    guest("pipe-sizes"),
    guest("pipe-between"),
    guest("pipe-flags"),
    guest("pipe-half-closed"),
    guest("pipe-reopened"),
    guest("fifo-data"),
    guest("fifo-deleted"),
    guest("fifo-half"),
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
        ..guest("deleted-hard-linked")
    },
    Case {
        dump_options: &["--ghost-limit=128M"],
        ..guest("deleted-big")
    },
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
    guest("sharing-nothing"),
    guest("sharing-files"),
    guest("sharing-fs"),
    guest("sharing-files-fs"),
    guest("sharing-vm"),
    guest("sharing-vm-sighand"),
    guest("sharing-all"),
    guest("sharing-mixed"),
    guest("vfork"),
    guest("vfork-vm"),
    guest("altstack"),
    guest("in-handler"),
    guest("sigmasks"),
    guest("handlers"),
    guest("pending-shared"),
    guest("pending-thread"),
    changing("steady", &["maps", "fd "]),
    Case {
        refused: Some("is traced by"),
        ..guest("traced")
    },
    guest("threads"),
    with("threads", &["1000"]),
    Case {
        refused: Some("main thread"),
        ..guest("thread-leader-gone")
    },
    changing("mutexes", &["maps"]),
    guest("itimers"),
    changing("itimer-fires", &["ShdPnd"]),
    guest("posix-timers"),
    changing("timer-overrun", &["ShdPnd"]),
    guest("timer-fires"),
    guest("tree-deep"),
    guest("tree-wide"),
    guest("sessions"),
    guest("session-leader-dead"),
    guest("group-leader-dead"),
    guest("orphans"),
    guest("zombies"),
    guest("stopped"),
    guest("stopped-tstp"),
    guest("blocked-futex"),
    guest("blocked-pause"),
    guest("blocked-sigsuspend"),
    guest("blocked-sigwait"),
    guest("blocked-pipe-read"),
    guest("blocked-pipe-write"),
    guest("blocked-fifo-open"),
    guest("blocked-wait4"),
    guest("blocked-epoll-wait"),
    guest("x87"),
    guest("mxcsr"),
    guest("sse"),
    guest("avx"),
    guest("avx512"),
];

/// One test for each guest in each of its modes.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial("every guest is listed".into(), every_guest_is_listed)];
    for case in CASES {
        let name = [&[case.guest][..], case.args].concat().join("-");
        trials.extend(
            case.modes()
                .map(|mode| trial(format!("{name}/{}", mode.name()), move || case.run(mode))),
        );
    }
    trials
}

/// The table and the guest program agree.
fn every_guest_is_listed() -> Result<Verdict> {
    let text = output(Command::new(build()?.join("gelid-guest")).arg("--list"))?;
    let (there, listed): (BTreeSet<&str>, BTreeSet<&str>) = (
        text.lines().collect(),
        CASES.iter().map(|case| case.guest).collect(),
    );
    let missing: Vec<_> = there.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&there).collect();
    ensure!(
        missing.is_empty() && unknown.is_empty(),
        "not in the table: {missing:?}; no such guest: {unknown:?}"
    );
    Ok(Verdict::Passed)
}
