//! The names of all options, as [`getopt`](super::getopt) reads them, and to which group of [`Options`] each belongs.
//!
//! They stand here besides, although clap knows them, because clap has to be told of every option before it can name
//! one, and takes as long for that as a small dump takes to write its images. A test compares both.
//!
//! [`Options`]: super::Options

use super::getopt::{Known, Takes};

/// A struct that is flattened into the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    General,
    Tasks,
    Files,
    Memory,
    Namespaces,
    Cgroups,
    Check,
}

impl Group {
    const fn known(self, name: &'static str, takes: Takes) -> Known {
        Known {
            name,
            letter: None,
            takes,
            meaning: name,
            negates: false,
            group: self,
        }
    }

    const fn flag(self, name: &'static str) -> Known {
        self.known(name, Takes::Nothing)
    }

    const fn value(self, name: &'static str) -> Known {
        self.known(name, Takes::Required)
    }

    const fn optional(self, name: &'static str) -> Known {
        self.known(name, Takes::Optional)
    }

    /// An option that switches the flag `meaning` off again.
    const fn negation(self, name: &'static str, meaning: &'static str) -> Known {
        Known {
            meaning,
            negates: true,
            ..self.known(name, Takes::Nothing)
        }
    }
}

impl Known {
    const fn letter(self, letter: char) -> Self {
        Self {
            letter: Some(letter),
            ..self
        }
    }

    /// Another name for the option `meaning`.
    const fn means(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }
}

/// How much is logged.
pub(super) const VERBOSITY: Known = Group::General.optional("verbosity").letter('v');

/// Every name, in the order of the help; then those that switch a flag off.
pub(super) const ALL: &[Known] = &[
    Group::General.value("tree").letter('t'),
    Group::General.value("images-dir").letter('D'),
    Group::General.value("work-dir").letter('W'),
    Group::General.value("prev-images-dir"),
    Group::General.value("log-file").letter('o'),
    Group::General.flag("log-pid"),
    VERBOSITY,
    Group::General.flag("display-stats"),
    Group::General.value("pidfile"),
    Group::General.value("status-fd"),
    Group::General.value("close"),
    Group::General.value("libdir").letter('L'),
    Group::General.value("action-script"),
    Group::General.value("config"),
    Group::General.flag("no-default-config"),
    Group::General.flag("unprivileged"),
    Group::General.flag("deprecated"),
    Group::General.flag("stream"),
    Group::General.value("timeout"),
    Group::General.flag("ms"),
    Group::Tasks.flag("leave-running").letter('R'),
    Group::Tasks.flag("leave-stopped").letter('s'),
    Group::Tasks.flag("restore-detached").letter('d'),
    Group::Tasks
        .flag("daemon")
        .letter('d')
        .means("restore-detached"),
    Group::Tasks.flag("restore-sibling").letter('S'),
    Group::Tasks.flag("exec-cmd"),
    Group::Tasks.flag("shell-job").letter('j'),
    Group::Tasks.value("freeze-cgroup"),
    Group::Tasks.flag("dry-run"),
    Group::Tasks.flag("orphan-pts-master"),
    Group::Files.value("external"),
    Group::Files.value("inherit-fd"),
    Group::Files.flag("tcp-established"),
    Group::Files.flag("skip-in-flight"),
    Group::Files.flag("tcp-close"),
    Group::Files.value("network-lock"),
    Group::Files.optional("ext-unix-sk").letter('x'),
    Group::Files.flag("file-locks").letter('l'),
    Group::Files.flag("link-remap"),
    Group::Files.value("ghost-limit"),
    Group::Files.flag("ghost-fiemap"),
    Group::Files.flag("evasive-devices"),
    Group::Files.flag("force-irmap"),
    Group::Files.value("irmap-scan-path"),
    Group::Files.value("file-validation"),
    Group::Files.flag("skip-file-rwx-check"),
    Group::Files.flag("allow-uprobes"),
    Group::Memory.value("compress"),
    Group::Memory.flag("dedup-content"),
    Group::Memory.value("snapshot"),
    Group::Memory.flag("track-mem"),
    Group::Memory.value("pre-dump-mode"),
    Group::Memory.flag("auto-dedup"),
    Group::Memory.flag("page-server"),
    Group::Memory.value("address"),
    Group::Memory.value("port"),
    Group::Memory.value("ps-socket"),
    Group::Memory.flag("lazy-pages"),
    Group::Memory.flag("tls"),
    Group::Memory.value("tls-cacert"),
    Group::Memory.value("tls-cacrl"),
    Group::Memory.value("tls-cert"),
    Group::Memory.value("tls-key"),
    Group::Memory.flag("tls-no-cn-verify"),
    Group::Namespaces.value("root").letter('r'),
    Group::Namespaces.value("join-ns").letter('J'),
    Group::Namespaces.value("empty-ns"),
    Group::Namespaces.value("skip-mnt"),
    Group::Namespaces.value("enable-fs"),
    Group::Namespaces.value("ext-mount-map").letter('M'),
    Group::Namespaces.flag("enable-external-sharing"),
    Group::Namespaces.flag("enable-external-masters"),
    Group::Namespaces.flag("mntns-compat-mode"),
    Group::Namespaces.value("veth-pair"),
    Group::Namespaces.flag("weak-sysctls"),
    Group::Namespaces.value("lsm-profile"),
    Group::Namespaces.value("lsm-mount-context"),
    Group::Cgroups.optional("manage-cgroups"),
    Group::Cgroups.value("cgroup-root"),
    Group::Cgroups.value("cgroup-props"),
    Group::Cgroups.value("cgroup-props-file"),
    Group::Cgroups.flag("cgroup-props-ignore-default"),
    Group::Cgroups.value("cgroup-dump-controller"),
    Group::Cgroups.value("cgroup-yard"),
    Group::Cgroups.optional("cpu-cap"),
    Group::Check.value("feature"),
    Group::Check.flag("extra"),
    Group::Check.flag("experimental"),
    Group::Check.flag("all"),
    Group::Check.flag("json"),
    Group::Check.flag("help").letter('h'),
    Group::Check.flag("version").letter('V'),
    Group::Files.negation("no-allow-uprobes", "allow-uprobes"),
    Group::Memory.negation("no-auto-dedup", "auto-dedup"),
    Group::Tasks.negation("no-daemon", "restore-detached"),
    Group::Memory.negation("no-dedup-content", "dedup-content"),
    Group::General.negation("no-deprecated", "deprecated"),
    Group::General.negation("no-display-stats", "display-stats"),
    Group::Files.negation("no-evasive-devices", "evasive-devices"),
    Group::Check.negation("no-experimental", "experimental"),
    Group::Check.negation("no-extra", "extra"),
    Group::Files.negation("no-file-locks", "file-locks"),
    Group::Files.negation("no-force-irmap", "force-irmap"),
    Group::Files.negation("no-ghost-fiemap", "ghost-fiemap"),
    Group::Files.negation("no-link-remap", "link-remap"),
    Group::General.negation("no-log-pid", "log-pid"),
    Group::Namespaces.negation("no-mntns-compat-mode", "mntns-compat-mode"),
    Group::Memory.negation("no-page-server", "page-server"),
    Group::Tasks.negation("no-restore-detached", "restore-detached"),
    Group::Tasks.negation("no-restore-sibling", "restore-sibling"),
    Group::Tasks.negation("no-shell-job", "shell-job"),
    Group::Files.negation("no-skip-file-rwx-check", "skip-file-rwx-check"),
    Group::Files.negation("no-skip-in-flight", "skip-in-flight"),
    Group::General.negation("no-stream", "stream"),
    Group::Files.negation("no-tcp-close", "tcp-close"),
    Group::Files.negation("no-tcp-established", "tcp-established"),
    Group::Memory.negation("no-tls", "tls"),
    Group::Memory.negation("no-track-mem", "track-mem"),
    Group::General.negation("no-unprivileged", "unprivileged"),
    Group::Namespaces.negation("no-weak-sysctls", "weak-sysctls"),
];
