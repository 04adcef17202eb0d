//! `/proc/PID/maps`: the mappings of an address space.

use std::ops::Range;

use bitflags::bitflags;

use super::text::{Fields, Malformed, Result, decimal, hex, split_once, trim_start, unescape};
use super::{Error, TaskDir};

bitflags! {
    /// What may be done with a mapping. The bits are those of `PROCMAP_QUERY`; the lowest three are
    /// `PROT_READ`, `PROT_WRITE` and `PROT_EXEC`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Perms: u32 {
        /// `PROT_READ`
        const READ = 1;
        /// `PROT_WRITE`
        const WRITE = 2;
        /// `PROT_EXEC`
        const EXEC = 4;
        /// `MAP_SHARED` rather than `MAP_PRIVATE`
        const SHARED = 8;
    }
}

/// Device numbers as `maps` prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Dev {
    pub major: u32,
    pub minor: u32,
}

/// One mapping (VMA).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// Protection and sharing.
    pub perms: Perms,
    /// Offset into the file in bytes.
    pub offset: u64,
    /// Device of the file, 0:0 if there is none.
    pub dev: Dev,
    /// Inode of the file, 0 if there is none.
    pub inode: u64,
    /// Path of the file, or `[heap]`, `[stack]`, `[vdso]`, `[anon:NAME]`, or nothing. A path as the
    /// kernel has it, where the file was unlinked with ` (deleted)` behind. In `maps` the kernel
    /// writes a newline as `\012`, which is undone here, so a name that holds those four characters
    /// is not told from one that holds a newline; `PROCMAP_QUERY` and `map_files` tell.
    pub path: Vec<u8>,
}

impl Mapping {
    /// The addresses as a range.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    /// The length in bytes.
    pub fn size(&self) -> u64 {
        self.end - self.start
    }

    /// Whether a file (or a shared-memory object) is behind it.
    pub fn has_file(&self) -> bool {
        self.inode != 0
    }
}

/// Reads and parses `maps`: all mappings in ascending order.
pub fn read(task: &TaskDir) -> std::result::Result<Vec<Mapping>, Error> {
    let mut mappings = Vec::with_capacity(64);
    task.each_line("maps", |line| {
        mappings.push(parse_line(line)?);
        Ok(())
    })?;
    Ok(mappings)
}

/// Parses the text of `maps`.
pub fn parse(text: &[u8]) -> Result<Vec<Mapping>> {
    super::text::lines(text).map(parse_line).collect()
}

/// Parses one line, without its newline.
pub fn parse_line(line: &[u8]) -> Result<Mapping> {
    let mut fields = Fields(line);
    let (start, end) = split_once(fields.need("range")?, b'-').ok_or(Malformed("range"))?;
    let (start, end) = (hex(start, "start")?, hex(end, "end")?);
    if start > end {
        return Err(Malformed("range"));
    }
    let perms = perms(fields.need("permissions")?)?;
    let offset = hex(fields.need("offset")?, "offset")?;
    let (major, minor) = split_once(fields.need("device")?, b':').ok_or(Malformed("device"))?;
    let dev = Dev {
        major: device(major)?,
        minor: device(minor)?,
    };
    let inode = decimal(fields.need("inode")?, "inode")?;
    // A path may end in blanks but never begins with one.
    let path = unescape(trim_start(fields.0), Some(b'\n'));
    Ok(Mapping {
        start,
        end,
        perms,
        offset,
        dev,
        inode,
        path,
    })
}

fn device(digits: &[u8]) -> Result<u32> {
    u32::try_from(hex(digits, "device")?).map_err(|_| Malformed("device"))
}

fn perms(letters: &[u8]) -> Result<Perms> {
    let [read, write, exec, shared] = letters else {
        return Err(Malformed("permissions"));
    };
    let mut perms = Perms::empty();
    let expected = [
        (read, b'r', b'-', Perms::READ),
        (write, b'w', b'-', Perms::WRITE),
        (exec, b'x', b'-', Perms::EXEC),
        (shared, b's', b'p', Perms::SHARED),
    ];
    for (letter, set, unset, bit) in expected {
        match *letter {
            letter if letter == set => perms |= bit,
            letter if letter == unset => {}
            _ => return Err(Malformed("permissions")),
        }
    }
    Ok(perms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let line = b"564b28002000-564b280c3000 r-xp 0002f000 fe:00 247003                     /usr/bin/bash";
        let mapping = parse_line(line).unwrap();
        assert_eq!(mapping.range(), 0x564b28002000..0x564b280c3000);
        assert_eq!(mapping.perms, Perms::READ | Perms::EXEC);
        assert_eq!((mapping.offset, mapping.inode), (0x2f000, 247003));
        assert_eq!(
            mapping.dev,
            Dev {
                major: 0xfe,
                minor: 0
            }
        );
        assert_eq!(mapping.path, b"/usr/bin/bash");

        let anonymous = parse_line(b"7f0000000000-7f0000001000 rw-s 00000000 00:01 0 ").unwrap();
        assert_eq!(
            (anonymous.perms, &anonymous.path[..]),
            (Perms::READ | Perms::WRITE | Perms::SHARED, &b""[..])
        );
        let named =
            parse_line(b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0    [vsyscall]")
                .unwrap();
        assert_eq!(
            (&named.path[..], named.size(), named.has_file()),
            (&b"[vsyscall]"[..], 4096, false)
        );
    }

    #[test]
    fn paths_are_kept_as_they_are() {
        let line = b"1000-2000 rw-s 00000000 fe:00 7   /tmp/a b\\012c\\d \\040 (deleted)  ";
        assert_eq!(
            parse_line(line).unwrap().path,
            b"/tmp/a b\nc\\d \\040 (deleted)  "
        );
    }

    #[test]
    fn wrong_lines_are_refused() {
        for (line, what) in [
            (&b""[..], "range"),
            (b"1000 rw-p 0 0:0 0", "range"),
            (b"2000-1000 rw-p 0 0:0 0", "range"),
            (b"1000-x rw-p 0 0:0 0", "end"),
            (b"1000-2000 rwp 0 0:0 0", "permissions"),
            (b"1000-2000 wr-p 0 0:0 0", "permissions"),
            (b"1000-2000 rw-p 0 00 0", "device"),
            (b"1000-2000 rw-p 0 100000000:0 0", "device"),
            (b"1000-2000 rw-p 0 0:0", "inode"),
        ] {
            assert_eq!(
                parse_line(line),
                Err(Malformed(what)),
                "{}",
                line.escape_ascii()
            );
        }
    }
}
