//! Open flags of a description: what is given to `open(2)`, what `fcntl(2)` sets afterwards.

use std::fmt;

use rustix::fs::OFlags;

/// The bit of `O_TMPFILE` that `O_DIRECTORY` is not; the kernel keeps it for a file that never had a name.
const TMPFILE: u32 = 0o20_000_000;

/// Open flags as recorded: those the kernel keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// Access mode: 0 read, 1 write, 2 both (3 is Linux's "neither").
    #[must_use]
    pub fn access(self) -> u32 {
        self.0 & 3
    }

    /// Whether the description stands for a place in the tree of files only (`O_PATH`).
    #[must_use]
    pub fn is_path(self) -> bool {
        self.has(OFlags::PATH)
    }

    /// Whether the file was made without a name (`O_TMPFILE`).
    #[must_use]
    pub(crate) fn is_tmpfile(self) -> bool {
        self.0 & TMPFILE != 0
    }

    /// Whether one of these bits is set.
    #[must_use]
    pub(crate) fn has(self, bits: OFlags) -> bool {
        self.0 & bits.bits() != 0
    }

    /// What to open with: whatever the file has become, this waits for nobody, takes no terminal, creates
    /// and truncates nothing.
    pub(crate) fn to_open(self) -> OFlags {
        let recorded = OFlags::from_bits_retain(self.0);
        if self.is_path() {
            return recorded & (OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)
                | OFlags::CLOEXEC;
        }
        let mut kept = OFlags::from_bits_retain(self.access());
        kept |= recorded
            & (OFlags::APPEND
                | OFlags::SYNC
                | OFlags::DSYNC
                | OFlags::DIRECT
                | OFlags::NOATIME
                | OFlags::NOFOLLOW
                | OFlags::LARGEFILE);
        if !self.is_tmpfile() {
            kept |= recorded & OFlags::DIRECTORY;
        }
        kept | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
    }

    /// What `F_SETFL` sets; that I/O is announced by signals waits for its owner.
    pub(crate) fn status(self) -> OFlags {
        let settable = OFlags::APPEND | OFlags::NONBLOCK | OFlags::DIRECT | OFlags::NOATIME;
        OFlags::from_bits_retain(self.0) & settable
    }

    /// What `F_SETFL` sets at the very end, if it differs from [`status`](Self::status).
    pub(crate) fn late_status(self) -> Option<OFlags> {
        self.has(OFlags::ASYNC)
            .then(|| self.status() | OFlags::ASYNC)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#o}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_created_or_truncated() {
        let all = Flags(!OFlags::PATH.bits()).to_open();
        assert!(!all.intersects(OFlags::CREATE | OFlags::EXCL | OFlags::TRUNC | OFlags::ASYNC));
        assert_eq!(all.bits() & TMPFILE, 0);
        assert!(all.contains(OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC));
    }

    #[test]
    fn a_path_has_no_status() {
        let path = Flags((OFlags::PATH | OFlags::NOFOLLOW | OFlags::NONBLOCK).bits());
        assert_eq!(
            path.to_open(),
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC
        );
    }

    #[test]
    fn a_file_without_a_name_is_no_directory() {
        let tmpfile = Flags(0o22_300_002);
        assert!(!tmpfile.to_open().contains(OFlags::DIRECTORY));
        assert_eq!(tmpfile.access(), 2);
    }
}
