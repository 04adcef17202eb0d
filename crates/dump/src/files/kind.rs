//! What a file is, told from its link in `/proc` and its inode.

use gelid_sys::proc::fdinfo::FdInfo;
use rustix::fs::{FileType, major, minor};

use super::ns;
use super::tty::Way;
use super::{Stat, Unsupported};

/// What the kernel appends to the path of an unlinked file.
pub(super) const DELETED: &[u8] = b" (deleted)";

/// How a file is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By its path.
    Path,
    /// As an end of a pipe.
    Pipe,
    /// As a socket, if it is of a family that is dumped.
    Socket,
    /// As a named pipe.
    Fifo,
    /// As memory, if it is on a file system of the kernel's own.
    Memory,
    /// As a counter.
    Eventfd,
    /// As an epoll set.
    Eventpoll,
    /// As a signalfd.
    Signalfd,
    /// As a timer.
    Timerfd,
    /// As watches of the file system.
    Inotify,
    /// As watches of the file system, of files, mounts and file systems.
    Fanotify,
    /// As a map of BPF, if it is a hash table or an array.
    BpfMap,
    /// As a process.
    Pidfd,
    /// As a namespace, if it is the dumper's.
    Namespace(gelid_sys::proc::ns::Kind),
    /// As a queue of a TUN or TAP device.
    Tun,
    /// As a terminal.
    Terminal(Way),
    /// Not at all.
    Refused(Unsupported),
}

/// Classifies what the link of a file and its inode say. `is_path` is `O_PATH`.
pub(super) fn of(link: &[u8], stat: &Stat, is_path: bool) -> Kind {
    if link.first() != Some(&b'/') {
        return nameless(link, is_path);
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => regular(link),
        _ if is_path => Kind::Path,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Refused(Unsupported::Anonymous),
        FileType::CharacterDevice => device(stat),
        FileType::BlockDevice => other_device(stat),
        FileType::Directory | FileType::Symlink => Kind::Path,
        FileType::Unknown => Kind::Refused(Unsupported::Anonymous),
    }
}

/// Whether it is of no type, as are counters and other files of the kernel's own that have no place.
pub(super) fn has_no_type(stat: &Stat) -> bool {
    const TYPE: u32 = 0o170_000;
    stat.st_mode & TYPE == 0
}

/// Whether it is a counter: nothing else says such a thing.
pub(super) fn is_eventfd(info: &FdInfo) -> bool {
    info.value("eventfd-count").is_some()
}

/// Files of the kernel's own that look like files with a path.
fn regular(link: &[u8]) -> Kind {
    let Some(name) = link.strip_suffix(DELETED) else {
        return Kind::Path;
    };
    let memory = name.starts_with(b"/memfd:")
        || name.starts_with(b"/SYSV")
        || matches!(name, b"/dev/zero" | b"/anon_hugepage");
    if memory { Kind::Memory } else { Kind::Path }
}

/// Links such as `pipe:[123]`.
fn nameless(link: &[u8], is_path: bool) -> Kind {
    let (kind, rest) = match link.iter().position(|byte| *byte == b':') {
        Some(colon) => link.split_at(colon),
        None => (link, &b""[..]),
    };
    let unsupported = match kind {
        b"pipe" if !is_path => return Kind::Pipe,
        b"pipe" => Unsupported::PathOfPipe,
        b"socket" if !is_path => return Kind::Socket,
        b"socket" => Unsupported::PathOfPipe,
        b"mnt" | b"net" | b"uts" | b"ipc" | b"pid" | b"user" | b"cgroup" | b"time" => {
            match ns::kind(kind).filter(|_| !is_path) {
                Some(kind) => return Kind::Namespace(kind),
                None => Unsupported::Namespace,
            }
        }
        b"pidfd" if !is_path => return Kind::Pidfd,
        b"pidfd" => Unsupported::PathOfEvents,
        b"anon_inode" => return anonymous(rest.get(1..).unwrap_or_default(), is_path),
        // A path outside of the dumper's root: looking for it tells that.
        _ if link.starts_with(b"(unreachable)") => return Kind::Path,
        _ => Unsupported::Anonymous,
    };
    Kind::Refused(unsupported)
}

fn anonymous(name: &[u8], is_path: bool) -> Kind {
    let kind = match name.trim_ascii() {
        b"[eventfd]" => Kind::Eventfd,
        b"[eventpoll]" => Kind::Eventpoll,
        b"[signalfd]" => Kind::Signalfd,
        b"[timerfd]" => Kind::Timerfd,
        b"inotify" | b"[inotify]" => Kind::Inotify,
        b"[fanotify]" => Kind::Fanotify,
        b"bpf-map" => Kind::BpfMap,
        b"[pidfd]" => Kind::Pidfd,
        name => Kind::Refused(unsupported(name)),
    };
    match kind {
        Kind::Refused(_) => kind,
        _ if is_path => Kind::Refused(Unsupported::PathOfEvents),
        _ => kind,
    }
}

fn unsupported(name: &[u8]) -> Unsupported {
    match name {
        b"[userfaultfd]" => Unsupported::Userfaultfd,
        b"[io_uring]" => Unsupported::IoUring,
        b"[perf_event]" => Unsupported::Perf,
        b"seccomp notify" => Unsupported::SeccompListener,
        name if name.starts_with(b"bpf") || name.starts_with(b"[bpf") => Unsupported::Bpf,
        _ => Unsupported::Anonymous,
    }
}

fn device(stat: &Stat) -> Kind {
    match (major(stat.st_rdev), minor(stat.st_rdev)) {
        // null, zero, full, random, urandom: nothing to carry over.
        (1, 3 | 5 | 7 | 8 | 9) => Kind::Path,
        // That of automounters, whose calls name what they are about.
        (10, 235) => Kind::Path,
        (136..=143, _) => Kind::Terminal(Way::Slave),
        (5, 0) => Kind::Terminal(Way::Controlling),
        (5, 1) => Kind::Terminal(Way::Console),
        (5, 2) => Kind::Terminal(Way::Master),
        (4, 0..=63) => Kind::Terminal(Way::Vt),
        (4, _) => Kind::Terminal(Way::Serial),
        (5 | 128..=135, _) => Kind::Refused(Unsupported::OtherTerminal),
        (10, 200) => Kind::Tun,
        _ => other_device(stat),
    }
}

fn other_device(stat: &Stat) -> Kind {
    Kind::Refused(Unsupported::Device {
        major: major(stat.st_rdev),
        minor: minor(stat.st_rdev),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat_of(path: &str) -> Stat {
        rustix::fs::lstat(path).unwrap()
    }

    #[test]
    fn names_tell_what_has_no_path() {
        let stat = stat_of("/");
        let of = |link: &str| of(link.as_bytes(), &stat, false);
        assert_eq!(of("pipe:[7]"), Kind::Pipe);
        assert_eq!(of("socket:[7]"), Kind::Socket);
        assert_eq!(of("(unreachable)/x"), Kind::Path);
        let net = Kind::Namespace(gelid_sys::proc::ns::Kind::Net);
        assert_eq!(of("net:[4026531840]"), net);
        assert_eq!(of("anon_inode:[eventpoll]"), Kind::Eventpoll);
        assert_eq!(of("anon_inode:inotify"), Kind::Inotify);
        assert_eq!(of("anon_inode:[pidfd]"), Kind::Pidfd);
        assert_eq!(of("pidfd:[7]"), Kind::Pidfd);
        assert_eq!(of("anon_inode:bpf-map"), Kind::BpfMap);
        let path = super::of(b"anon_inode:[timerfd]", &stat, true);
        assert_eq!(path, Kind::Refused(Unsupported::PathOfEvents));
        for (link, why) in [
            ("anon_inode:[io_uring]", Unsupported::IoUring),
            ("anon_inode:bpf-prog", Unsupported::Bpf),
            ("anon_inode:[kvm-vm]", Unsupported::Anonymous),
            ("something", Unsupported::Anonymous),
            ("", Unsupported::Anonymous),
        ] {
            assert_eq!(of(link), Kind::Refused(why), "{link}");
        }
    }

    #[test]
    fn devices_are_told_by_their_numbers() {
        let of = |path: &str| of(path.as_bytes(), &stat_of(path), false);
        assert_eq!(of("/dev/null"), Kind::Path);
        assert_eq!(of("/dev/urandom"), Kind::Path);
        assert_eq!(of("/dev/tty"), Kind::Terminal(Way::Controlling));
        assert_eq!(of("/dev/ptmx"), Kind::Terminal(Way::Master));
        let device = super::of(b"/dev/ptmx", &stat_of("/dev/ptmx"), true);
        assert_eq!(device, Kind::Path);
    }

    #[test]
    fn memory_has_the_name_of_a_deleted_file() {
        let stat = stat_of("/proc/self/status");
        let of = |link: &[u8]| of(link, &stat, false);
        assert_eq!(of(b"/memfd:x y (deleted)"), Kind::Memory);
        assert_eq!(of(b"/memfd:x y"), Kind::Path);
        assert_eq!(of(b"/dev/zero (deleted)"), Kind::Memory);
        assert_eq!(of(b"/dev/zero-not (deleted)"), Kind::Path);
    }
}
