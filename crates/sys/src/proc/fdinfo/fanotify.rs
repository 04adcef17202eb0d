//! fanotify groups in `fdinfo`. `proc_pid_fdinfo(5)`.

use super::FdInfo;
use super::events::{field, handle};
use crate::proc::text::{Fields, Malformed, Result};

/// A fanotify group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Flags it was made with.
    pub flags: u32,
    /// Flags that files of events are opened with.
    pub event_flags: u32,
    /// Its marks.
    pub marks: Vec<Mark>,
}

/// A mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What it is on.
    pub on: Marked,
    /// Flags of the mark itself.
    pub flags: u32,
    /// Events and flags.
    pub mask: u32,
    /// Events that are ignored.
    pub ignored_mask: u32,
}

/// What a mark is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marked {
    /// An inode.
    Inode {
        /// Its number.
        inode: u64,
        /// Its device as the kernel has it: major << 20 | minor.
        dev: u32,
        /// Type and bytes of a handle of it, if the file system gives any.
        handle: Option<(u32, Vec<u8>)>,
    },
    /// A mount, by its id.
    Mount(u32),
    /// A file system, by its device.
    FileSystem(u32),
}

impl FdInfo {
    /// As a fanotify group.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is none, or has a kind of mark that is not known.
    pub fn fanotify(&self) -> Result<Group> {
        let lines = self.lines();
        let mut lines = lines.filter_map(|line| line.strip_prefix(b"fanotify "));
        let mut fields = Fields(lines.next().ok_or(Malformed("fanotify"))?);
        Ok(Group {
            flags: field(fields.need("flags")?, "flags")?,
            event_flags: field(fields.need("event-flags")?, "event-flags")?,
            marks: lines.map(mark).collect::<Result<_>>()?,
        })
    }
}

fn mark(line: &[u8]) -> Result<Mark> {
    let mut fields = Fields(line);
    let first = fields.need("mark")?;
    let (mut on, inode) = if first.starts_with(b"mnt_id:") {
        (Marked::Mount(field(first, "mnt_id")?), None)
    } else if first.starts_with(b"sdev:") {
        (Marked::FileSystem(field(first, "sdev")?), None)
    } else {
        let inode = field(first, "ino")?;
        let dev = field(fields.need("sdev")?, "sdev")?;
        (Marked::FileSystem(dev), Some((inode, dev)))
    };
    let flags = field(fields.need("mflags")?, "mflags")?;
    let mask = field(fields.need("mask")?, "mask")?;
    let ignored_mask = field(fields.need("ignored_mask")?, "ignored_mask")?;
    if let Some((inode, dev)) = inode {
        let handle = handle(&mut fields)?;
        on = Marked::Inode { inode, dev, handle };
    }
    Ok(Mark {
        on,
        flags,
        mask,
        ignored_mask,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_understood() {
        let text = b"pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1038\n\
            fanotify flags:c01 event-flags:88002\n\
            fanotify mnt_id:1b mflags:40 mask:40000038 ignored_mask:3\n\
            fanotify ino:9c80a9 sdev:fe00000 mflags:0 mask:3b ignored_mask:0 fhandle-bytes:2 fhandle-type:1 f_handle:a980\n\
            fanotify ino:1 sdev:6 mflags:200 mask:100 ignored_mask:0 \n\
            fanotify sdev:1b mflags:0 mask:48000300 ignored_mask:0\n";
        let group = super::super::parse(text.to_vec()).unwrap().fanotify();
        let group = group.unwrap();
        assert_eq!((group.flags, group.event_flags), (0xc01, 0x8_8002));
        let on: Vec<_> = group.marks.iter().map(|mark| mark.on.clone()).collect();
        let inode = |inode, dev, handle| Marked::Inode { inode, dev, handle };
        assert_eq!(
            on,
            [
                Marked::Mount(0x1b),
                inode(0x9c_80a9, 0xfe0_0000, Some((1, vec![0xa9, 0x80]))),
                inode(1, 6, None),
                Marked::FileSystem(0x1b),
            ]
        );
        let mount = &group.marks[0];
        let masks = (mount.flags, mount.mask, mount.ignored_mask);
        assert_eq!(masks, (0x40, 0x4000_0038, 3));
    }

    #[test]
    fn other_marks_are_refused() {
        for line in [
            &b"mnt_ns:5 mflags:0 mask:0 ignored_mask:0"[..],
            b"ino:1",
            b"",
        ] {
            assert!(mark(line).is_err());
        }
    }
}
