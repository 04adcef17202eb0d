//! Kinds of file systems, their flags and options.

use gelid_image::messages::Fstype;
use gelid_sys::Errno;
use gelid_sys::proc::mountinfo::MountInfo;
use rustix::fs::{CWD, StatxFlags, statx};

use super::{Fate, Mount};
use crate::Error;
use crate::namespace::Users;

/// The code of a file system.
pub(super) fn of(name: &[u8]) -> Fstype {
    match name {
        b"proc" => Fstype::Proc,
        b"sysfs" => Fstype::Sysfs,
        b"devtmpfs" => Fstype::Devtmpfs,
        b"binfmt_misc" => Fstype::BinfmtMisc,
        b"tmpfs" => Fstype::Tmpfs,
        b"devpts" => Fstype::Devpts,
        b"simfs" => Fstype::Simfs,
        b"pstore" => Fstype::Pstore,
        b"securityfs" => Fstype::Securityfs,
        b"fusectl" => Fstype::Fusectl,
        b"debugfs" => Fstype::Debugfs,
        b"cgroup" => Fstype::Cgroup,
        b"aufs" => Fstype::Aufs,
        b"mqueue" => Fstype::Mqueue,
        b"overlay" => Fstype::Overlayfs,
        b"autofs" => Fstype::Autofs,
        b"tracefs" => Fstype::Tracefs,
        b"cgroup2" => Fstype::Cgroup2,
        name if name == b"fuse" || name.starts_with(b"fuse.") => Fstype::Fuse,
        _ => Fstype::Unsupported,
    }
}

/// Whether a restore can make one by itself.
pub(super) fn can_be_made(kind: Fstype) -> bool {
    !matches!(
        kind,
        Fstype::Unsupported | Fstype::Simfs | Fstype::Aufs | Fstype::Fuse | Fstype::Overlayfs
    )
}

/// Whether it is a pseudoterminal file system that the dumper does not have mounted at its usual place.
pub(super) fn is_own_devpts(mount: &Mount, all: &[Mount]) -> Result<bool, Error> {
    let given = |other: &Mount| {
        other.info.dev == mount.info.dev && !matches!(other.fate, Fate::New | Fate::Part)
    };
    if mount.kind != Fstype::Devpts || all.iter().any(given) {
        return Ok(false);
    }
    match statx(
        CWD,
        "/dev/pts",
        rustix::fs::AtFlags::empty(),
        StatxFlags::empty(),
    ) {
        Ok(own) => {
            let dev = mount.info.dev;
            Ok((own.stx_dev_major, own.stx_dev_minor) != (dev.major, dev.minor))
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(true),
        Err(errno) => Err(Error::System {
            file: "/dev/pts",
            source: errno.into(),
        }),
    }
}

/// Flags of a mount by itself, by the words that `mountinfo` has for them.
const FLAGS: [(&[u8], u32); 8] = [
    (b"ro", 0x1),
    (b"nosuid", 0x2),
    (b"nodev", 0x4),
    (b"noexec", 0x8),
    (b"nosymfollow", 0x100),
    (b"noatime", 0x400),
    (b"nodiratime", 0x800),
    (b"relatime", 0x20_0000),
];

/// Flags of all mounts of a file system.
const SUPER_FLAGS: [(&[u8], u32); 6] = [
    (b"rw", 0),
    (b"ro", 0x1),
    (b"sync", 0x10),
    (b"mand", 0x40),
    (b"dirsync", 0x80),
    (b"lazytime", 0x200_0000),
];

const SHARED: u32 = 0x10_0000;
const SLAVE: u32 = 0x8_0000;
const UNBINDABLE: u32 = 0x2_0000;

/// Flags of a mount as a number.
pub(super) fn flags(info: &MountInfo) -> u32 {
    let words = info.options.split(|byte| *byte == b',');
    let known = words.filter_map(|word| FLAGS.iter().find(|(name, _)| *name == word));
    let flags = known.fold(0, |flags, (_, bit)| flags | bit);
    let propagation = [
        (info.shared != 0, SHARED),
        (info.master != 0, SLAVE),
        (info.unbindable, UNBINDABLE),
    ];
    let set = propagation.iter().filter(|(set, _)| *set);
    set.fold(flags, |flags, (_, bit)| flags | bit)
}

/// Options with owners as the tree sees them, which is how images have them: the kernel tells those outside.
pub(super) fn with_owners(options: &[u8], users: &Users) -> Vec<u8> {
    let inside = |word: &[u8]| {
        let (key, value) = std::str::from_utf8(word).ok()?.split_once('=')?;
        let id: u32 = value.parse().ok()?;
        match key {
            "uid" => Some(format!("uid={}", users.uid(id)).into_bytes()),
            "gid" => Some(format!("gid={}", users.gid(id)).into_bytes()),
            _ => None,
        }
    };
    let words = options.split(|byte| *byte == b',');
    let words: Vec<_> = words
        .map(|word| inside(word).unwrap_or_else(|| word.to_vec()))
        .collect();
    words.join(&b',')
}

/// Flags of a file system as a number, and its other options.
pub(super) fn super_options(options: &[u8]) -> (u32, Vec<u8>) {
    let (mut flags, mut rest) = (0, Vec::new());
    for word in options.split(|byte| *byte == b',') {
        match SUPER_FLAGS.iter().find(|(name, _)| *name == word) {
            Some((_, bit)) => flags |= bit,
            // It says that files have labels, and is no option.
            None if word == b"seclabel" || word.is_empty() => {}
            None => rest.push(word),
        }
    }
    (flags, rest.join(&b','))
}
