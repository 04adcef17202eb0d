//! The build id that a linker put into an ELF file. Section 12.1 of the format.

use std::os::fd::AsFd;

use gelid_sys::Errno;

const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
/// Program headers looked at.
const MAX_HEADERS: usize = 64;
/// Bytes of one note segment looked at.
const MAX_NOTES: usize = 4096;
/// Bytes of the longest id that is recorded.
const MAX_ID: usize = 64;

/// Reads the build id as words, the last one padded with zeros; nothing if the file has none.
pub(super) fn read(file: impl AsFd) -> Result<Vec<u32>, Errno> {
    let mut head = [0; 64];
    let head = at(&file, 0, &mut head)?;
    let Some(Layout {
        offset,
        count,
        wide,
    }) = layout(head)
    else {
        return Ok(Vec::new());
    };
    let size = if wide { 56 } else { 32 };
    let mut headers = vec![0; count.min(MAX_HEADERS) * size];
    let headers = at(&file, offset, &mut headers)?;
    for header in headers.chunks_exact(size) {
        let Some((offset, size)) = note_segment(header, wide) else {
            continue;
        };
        let mut notes = vec![0; usize::try_from(size).unwrap_or(MAX_NOTES).min(MAX_NOTES)];
        if let Some(id) = find(at(&file, offset, &mut notes)?) {
            return Ok(words(id));
        }
    }
    Ok(Vec::new())
}

/// Where the program headers are.
struct Layout {
    offset: u64,
    count: usize,
    wide: bool,
}

/// Understands the ELF header of a little-endian file.
fn layout(head: &[u8]) -> Option<Layout> {
    let wide = match head.get(..6)? {
        [0x7f, b'E', b'L', b'F', 1, 1] => false,
        [0x7f, b'E', b'L', b'F', 2, 1] => true,
        _ => return None,
    };
    let (offset, size, count) = match wide {
        true => (long(head, 32)?, short(head, 54)?, short(head, 56)?),
        false => (word(head, 28)?.into(), short(head, 42)?, short(head, 44)?),
    };
    let expected = if wide { 56 } else { 32 };
    (size == expected).then_some(Layout {
        offset,
        count: count.into(),
        wide,
    })
}

/// Offset and size of a segment of notes.
fn note_segment(header: &[u8], wide: bool) -> Option<(u64, u64)> {
    if word(header, 0)? != PT_NOTE {
        return None;
    }
    match wide {
        true => Some((long(header, 8)?, long(header, 32)?)),
        false => Some((word(header, 4)?.into(), word(header, 16)?.into())),
    }
}

/// Looks for the id among notes.
fn find(mut notes: &[u8]) -> Option<&[u8]> {
    while notes.len() >= 12 {
        let (name, desc) = (word(notes, 0)? as usize, word(notes, 4)? as usize);
        let kind = word(notes, 8)?;
        let start = 12_usize.checked_add(name.checked_next_multiple_of(4)?)?;
        let end = start.checked_add(desc)?;
        let id = notes.get(start..end)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..12 + name) == Some(b"GNU\0") {
            return (1..=MAX_ID).contains(&id.len()).then_some(id);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
    None
}

/// An id as words, the last one padded with zeros.
pub(super) fn words(id: &[u8]) -> Vec<u32> {
    let word = |bytes: &[u8]| {
        let padded = bytes.iter().rev();
        padded.fold(0, |word, byte| word << 8 | u32::from(*byte))
    };
    id.chunks(4).map(word).collect()
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// What the file has at an offset, up to the length of the buffer.
fn at(file: impl AsFd, offset: u64, buffer: &mut [u8]) -> Result<&[u8], Errno> {
    if i64::try_from(offset).is_err() {
        return Ok(&[]);
    }
    let mut len = 0;
    while len < buffer.len() {
        match rustix::io::pread(&file, &mut buffer[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(&buffer[..len])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn notes_are_searched() {
        let mut notes = Vec::new();
        for (kind, name, desc) in [
            (1_u32, &b"GNU\0"[..], &[9_u8; 16][..]),
            (3, b"XYZ\0", b"other"),
            (3, b"GNU\0", b"12345"),
        ] {
            notes.extend((name.len() as u32).to_le_bytes());
            notes.extend((desc.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            notes.extend(name);
            notes.extend(desc);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(find(&notes), Some(&b"12345"[..]));
        assert_eq!(words(b"12345"), [0x3433_3231, 0x35]);
        assert_eq!(find(&notes[..20]), None);
        for end in 0..notes.len() {
            find(&notes[..end]);
        }
        assert_eq!(find(&[0xff; 64]), None);
    }

    #[test]
    fn other_files_have_none() {
        assert_eq!(read(File::open("/dev/null").unwrap()), Ok(vec![]));
        assert_eq!(read(File::open("/etc/passwd").unwrap()), Ok(vec![]));
        assert_eq!(read(File::open("/").unwrap()), Err(Errno::ISDIR));
    }

    #[test]
    fn the_shell_has_one() {
        let id = read(File::open("/bin/sh").unwrap()).unwrap();
        assert_eq!(id.len(), 5);
    }
}
