//! `/proc/PID/fdinfo/N`: position, flags and kind-specific state of an open file description.

mod events;
mod fanotify;
mod locks;
mod slot;

use std::os::fd::RawFd;

use super::text::{Malformed, Result, decimal, lines, number, signed, split_once, trim_start};
use super::{Error, TaskDir};

pub use events::{Eventfd, Notified, Timerfd, Watched};
pub use fanotify::{Group, Mark, Marked};
pub use locks::{Lock, LockKind, LockType, Waiting, waiting};
pub use slot::Slot;

/// The lines that all kinds of file have, and the text for those that only some have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdInfo {
    /// File position.
    pub pos: i64,
    /// `O_*` flags of the description, and `O_CLOEXEC` of the descriptor.
    pub flags: u32,
    /// Mount, as in `mountinfo`.
    pub mnt_id: Option<i32>,
    /// Inode (since Linux 5.14).
    pub ino: Option<u64>,
    text: Vec<u8>,
    /// Where in the text the lines begin that only some kinds have.
    special: usize,
}

impl FdInfo {
    /// What the file would say of a description that has none of the lines that are specific to a kind, found out in
    /// another way: all but the mount, and whether the descriptor is closed on `execve`.
    pub fn told(pos: i64, flags: u32, ino: u64) -> Self {
        let info = Self {
            pos,
            flags,
            mnt_id: None,
            ino: Some(ino),
            text: Vec::new(),
            special: 0,
        };
        info.of_description()
    }

    /// The same but for whether the descriptor is closed on `execve`.
    fn of_description(mut self) -> Self {
        self.flags &= !(libc::O_CLOEXEC as u32);
        self
    }

    /// All lines that are specific to the kind of file (`eventfd-count`, `tfd`, `inotify`, `lock`, …), in
    /// order, without their newlines.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let special = self.text.get(self.special..).unwrap_or_default();
        lines(special).filter(|line| !is_common(line))
    }

    /// The lines as pairs of key and value, cut at the first colon. Lines of several fields
    /// (`inotify wd:1 ino:…`) are cut there too, so [`lines`](Self::lines) suits them better.
    pub fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pairs = self.lines().filter_map(|line| split_once(line, b':'));
        pairs.map(|(key, value)| (key, trim_start(value)))
    }

    /// The value of the first line with this key.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.pairs()
            .find(|(found, _)| *found == key.as_bytes())
            .map(|(_, value)| value)
    }

    /// The same as a number; `None` if it is none.
    pub fn number(&self, key: &str) -> Option<u64> {
        std::str::from_utf8(self.value(key)?.trim_ascii())
            .ok()?
            .parse()
            .ok()
    }

    /// Whether descriptor is closed on `execve`.
    pub fn cloexec(&self) -> bool {
        self.flags & libc::O_CLOEXEC as u32 != 0
    }
}

/// Reads and parses `fdinfo/FD`.
pub fn read(task: &TaskDir, fd: RawFd) -> std::result::Result<FdInfo, Error> {
    let name = format!("fdinfo/{fd}");
    let text = task.read_record(&name, 512)?;
    parse(text).map_err(|what| task.parse_error(&name, what))
}

/// Parses the text of a file of `fdinfo`.
pub fn parse(text: Vec<u8>) -> Result<FdInfo> {
    let (mut pos, mut flags, mut mnt_id, mut ino) = (None, None, None, None);
    let mut special = 0;
    for line in lines(&text) {
        let Some((key, value)) = split_once(line, b':') else {
            break;
        };
        let value = trim_start(value);
        match key {
            b"pos" if pos.is_none() => pos = Some(signed(value, "pos")?),
            b"flags" if flags.is_none() => flags = Some(number(value, 8, "flags")?),
            b"mnt_id" if mnt_id.is_none() => mnt_id = Some(signed(value, "mnt_id")?),
            b"ino" if ino.is_none() => ino = Some(decimal(value, "ino")?),
            _ => break,
        }
        special += line.len() + 1;
    }
    let flags = flags.ok_or(Malformed("flags"))?;
    Ok(FdInfo {
        pos: pos.ok_or(Malformed("pos"))?,
        flags: u32::try_from(flags).map_err(|_| Malformed("flags"))?,
        mnt_id: Some(mnt_id.ok_or(Malformed("mnt_id"))?),
        ino,
        text,
        special,
    })
}

fn is_common(line: &[u8]) -> bool {
    [&b"pos:"[..], b"flags:", b"mnt_id:", b"ino:"]
        .iter()
        .any(|key| line.starts_with(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_and_special_lines() {
        let text = b"pos:\t7\nflags:\t02000002\nmnt_id:\t15\nino:\t2057\neventfd-count:                3\neventfd-id: 1\n";
        let info = parse(text.to_vec()).unwrap();
        assert_eq!(
            (info.pos, info.flags, info.mnt_id, info.ino),
            (7, 0o2000002, Some(15), Some(2057))
        );
        assert!(info.cloexec());
        assert_eq!(info.value("eventfd-count"), Some(&b"3"[..]));
        assert_eq!(info.value("sigmask"), None);
        assert_eq!(info.lines().count(), 2);
    }

    #[test]
    fn lines_that_repeat_are_all_there() {
        let text = b"pos:\t0\nflags:\t02\nmnt_id:\t15\ntfd:        5 events:       19 data: 5 pos:0 ino:3 sdev:d\n\
            tfd:        6 events:       19 data: 6 pos:0 ino:4 sdev:d\n";
        let info = parse(text.to_vec()).unwrap();
        assert_eq!(info.ino, None);
        assert_eq!(info.pairs().filter(|(key, _)| *key == b"tfd").count(), 2);
    }

    #[test]
    fn wrong_texts_are_refused() {
        assert_eq!(parse(b"".to_vec()), Err(Malformed("flags")));
        assert_eq!(parse(b"flags:\t9\n".to_vec()), Err(Malformed("flags")));
        assert_eq!(
            parse(b"flags:\t02\nmnt_id:\t1\n".to_vec()),
            Err(Malformed("pos"))
        );
        assert_eq!(
            parse(b"pos:\t0\nflags:\t02\n".to_vec()),
            Err(Malformed("mnt_id"))
        );
    }
}
