//! `/proc/PID/ns`, `uid_map`, `gid_map` and `timens_offsets`: the namespaces of a task, `namespaces(7)`.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::text::{Fields, Malformed, Result, decimal, lines, signed, split_once};
use super::{Error, TaskDir};

/// A link in `/proc/PID/ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of the links")]
pub enum Kind {
    Cgroup,
    Ipc,
    Mnt,
    Net,
    Pid,
    PidForChildren,
    Time,
    TimeForChildren,
    User,
    Uts,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 10] = [
        Self::Cgroup,
        Self::Ipc,
        Self::Mnt,
        Self::Net,
        Self::Pid,
        Self::PidForChildren,
        Self::Time,
        Self::TimeForChildren,
        Self::User,
        Self::Uts,
    ];

    /// Name of the link.
    pub fn name(self) -> &'static str {
        self.path().strip_prefix("ns/").unwrap_or_default()
    }

    fn path(self) -> &'static str {
        match self {
            Self::Cgroup => "ns/cgroup",
            Self::Ipc => "ns/ipc",
            Self::Mnt => "ns/mnt",
            Self::Net => "ns/net",
            Self::Pid => "ns/pid",
            Self::PidForChildren => "ns/pid_for_children",
            Self::Time => "ns/time",
            Self::TimeForChildren => "ns/time_for_children",
            Self::User => "ns/user",
            Self::Uts => "ns/uts",
        }
    }
}

/// Inode numbers of the namespaces of a task, which tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ids([u64; 10]);

impl Ids {
    /// The namespace of this kind; 0 if the kernel has none of it, or none has been made for the
    /// children yet.
    pub fn get(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }
}

/// Reads all links.
pub fn read(task: &TaskDir) -> std::result::Result<Ids, Error> {
    let mut ids = Ids::default();
    for kind in Kind::ALL {
        ids.0[kind as usize] = id(task, kind)?;
    }
    Ok(ids)
}

/// Reads one link; 0 as in [`Ids::get`].
pub fn id(task: &TaskDir, kind: Kind) -> std::result::Result<u64, Error> {
    let mut target = [0; 64];
    match task.short_link(kind.path(), &mut target) {
        Ok(link) => parse_link(link).map_err(|what| task.parse_error(kind.path(), what)),
        // A task that has gone gives ESRCH or lacks the whole directory.
        Err(error) if error.errno() == Errno::NOENT && task.link("ns/user").is_ok() => Ok(0),
        Err(error) => Err(error),
    }
}

/// Opens a namespace for `setns(2)` and the ioctls of `ioctl_nsfs(2)`.
pub fn open(task: &TaskDir, kind: Kind) -> std::result::Result<OwnedFd, Error> {
    task.open_file(kind.path(), OFlags::RDONLY)
}

/// The inode in the target of a link, `net:[4026531839]`.
pub fn parse_link(link: &[u8]) -> Result<u64> {
    let (_, number) = split_once(link, b'[').ok_or(Malformed("namespace link"))?;
    let number = number
        .strip_suffix(b"]")
        .ok_or(Malformed("namespace link"))?;
    decimal(number, "namespace link")
}

/// A run of ids that a user namespace maps, `user_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside, seen from the reader's user namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Reads `uid_map`.
pub fn uid_map(task: &TaskDir) -> std::result::Result<Vec<IdRange>, Error> {
    task.parsed("uid_map", 256, parse_id_map)
}

/// Reads `gid_map`.
pub fn gid_map(task: &TaskDir) -> std::result::Result<Vec<IdRange>, Error> {
    task.parsed("gid_map", 256, parse_id_map)
}

/// Whether `setgroups(2)` is denied in the user namespace of a task.
pub fn denies_groups(task: &TaskDir) -> std::result::Result<bool, Error> {
    task.parsed("setgroups", 16, |text| Ok(text.starts_with(b"deny")))
}

/// Parses the text of `uid_map` or `gid_map`.
pub fn parse_id_map(text: &[u8]) -> Result<Vec<IdRange>> {
    let range = |line| {
        let mut fields = Fields(line);
        let mut next = || decimal(fields.need("id map")?, "id map");
        Ok(IdRange {
            inside: next()?,
            outside: next()?,
            count: next()?,
        })
    };
    lines(text).map(range).collect()
}

/// What a time namespace adds to a clock, `time_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ClockOffset {
    pub secs: i64,
    pub nanos: u32,
}

/// Reads `timens_offsets`: the offsets of the monotonic and the boot-time clock for the children.
///
/// # Errors
///
/// `ENOENT` on a kernel without time namespaces.
pub fn clock_offsets(task: &TaskDir) -> std::result::Result<(ClockOffset, ClockOffset), Error> {
    task.parsed("timens_offsets", 128, parse_clock_offsets)
}

/// Parses the text of `timens_offsets`.
pub fn parse_clock_offsets(text: &[u8]) -> Result<(ClockOffset, ClockOffset)> {
    let mut offsets = (ClockOffset::default(), ClockOffset::default());
    for line in lines(text) {
        let mut fields = Fields(line);
        let slot = match fields.need("clock")? {
            b"monotonic" | b"1" => &mut offsets.0,
            b"boottime" | b"7" => &mut offsets.1,
            _ => return Err(Malformed("clock")),
        };
        slot.secs = signed(fields.need("seconds")?, "seconds")?;
        slot.nanos = decimal(fields.need("nanoseconds")?, "nanoseconds")?;
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_maps_are_understood() {
        assert_eq!(parse_link(b"net:[4026531839]"), Ok(4026531839));
        assert_eq!(
            parse_link(b"net:4026531839"),
            Err(Malformed("namespace link"))
        );
        assert_eq!(parse_link(b"net:[x]"), Err(Malformed("namespace link")));
        let map = parse_id_map(b"         0       1000          1\n 1 100000 65536\n").unwrap();
        assert_eq!(
            map[1],
            IdRange {
                inside: 1,
                outside: 100000,
                count: 65536
            }
        );
        assert_eq!(parse_id_map(b"1 2\n"), Err(Malformed("id map")));
    }

    #[test]
    fn clock_offsets_are_understood() {
        let (monotonic, boot) =
            parse_clock_offsets(b"monotonic  -5  7\nboottime   86400 0\n").unwrap();
        assert_eq!((monotonic.secs, monotonic.nanos, boot.secs), (-5, 7, 86400));
        assert_eq!(parse_clock_offsets(b"tai 1 1\n"), Err(Malformed("clock")));
    }

    #[test]
    fn names_are_the_links() {
        assert_eq!(Kind::PidForChildren.name(), "pid_for_children");
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}
