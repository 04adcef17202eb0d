//! The build id of an ELF file: the note that says which build it is.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// Notes are looked for in no more program headers than this.
const MAX_HEADERS: u64 = 128;
/// Bytes of notes that are read at most.
const MAX_NOTES: u64 = 64 << 10;

const PT_NOTE: u64 = 4;
const NT_GNU_BUILD_ID: u32 = 3;

/// Offsets of what is needed in the headers of a class.
struct Layout {
    /// Bytes in an address.
    word: usize,
    phoff: usize,
    phentsize: usize,
    /// In a program header.
    offset: usize,
    filesz: usize,
    header: u64,
}

const ELF32: Layout = Layout {
    word: 4,
    phoff: 28,
    phentsize: 42,
    offset: 4,
    filesz: 16,
    header: 32,
};

const ELF64: Layout = Layout {
    word: 8,
    phoff: 32,
    phentsize: 54,
    offset: 8,
    filesz: 32,
    header: 56,
};

/// Reads the build id; `None` if the file has none, or is no little-endian ELF file. The position of the
/// file does not change.
pub(crate) fn read(file: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    let header = read_at(file, 0, 64)?;
    let layout = match header.get(..6) {
        Some([0x7f, b'E', b'L', b'F', 1, 1]) => ELF32,
        Some([0x7f, b'E', b'L', b'F', 2, 1]) => ELF64,
        _ => return Ok(None),
    };
    let number = |bytes: &[u8], at, len| number(bytes, at, len).unwrap_or(0);
    let headers = number(&header, layout.phoff, layout.word);
    let size = number(&header, layout.phentsize, 2);
    let count = number(&header, layout.phentsize + 2, 2).min(MAX_HEADERS);
    if size < layout.header {
        return Ok(None);
    }
    let table = read_at(file, headers, size * count)?;
    for header in table.chunks_exact(size as usize) {
        if number(header, 0, 4) != PT_NOTE {
            continue;
        }
        let offset = number(header, layout.offset, layout.word);
        let len = number(header, layout.filesz, layout.word).min(MAX_NOTES);
        if let Some(id) = find(&read_at(file, offset, len)?) {
            return Ok(Some(id.to_vec()));
        }
    }
    Ok(None)
}

/// Finds the build id among notes.
fn find(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let field = |at| number(notes, at, 4).and_then(|len| usize::try_from(len).ok());
        let (name, description) = (field(0)?, field(4)?);
        let kind = number(notes, 8, 4)?;
        let rest = notes.get(12..)?;
        let at = name.checked_next_multiple_of(4)?;
        let end = at.checked_add(description)?;
        if rest.get(..name)? == b"GNU\0" && kind == u64::from(NT_GNU_BUILD_ID) {
            return rest.get(at..end);
        }
        notes = rest.get(end.checked_next_multiple_of(4)?..)?;
    }
}

/// A little-endian number.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}

/// Up to `len` bytes, fewer at the end of the file.
fn read_at(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; len as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        let Some(at) = offset.checked_add(filled as u64) else {
            break;
        };
        match rustix::io::pread(file, &mut bytes[filled..], at) {
            Ok(0) | Err(Errno::INVAL) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// A recorded build id: words of its bytes, the low one first, zeros behind.
pub(crate) fn matches(recorded: &[u32], found: &[u8]) -> bool {
    let bytes: Vec<u8> = recorded
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    bytes.len() == found.len().next_multiple_of(4)
        && bytes.starts_with(found)
        && bytes[found.len()..].iter().all(|byte| *byte == 0)
}

/// As tools print it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn programs_have_one() {
        let program = File::open("/proc/self/exe").unwrap();
        // Whether the linker wrote one or not, nothing else breaks.
        let found = read(program.as_fd()).unwrap();
        assert!(found.is_none_or(|id| id.len() >= 8));
        let text = File::open("/proc/self/maps").unwrap();
        assert_eq!(read(text.as_fd()), Ok(None));
    }

    #[test]
    fn a_note_is_found_among_others() {
        let mut notes = Vec::new();
        for (name, kind, id) in [
            (&b"Linux\0"[..], 3u32, &b"no"[..]),
            (b"GNU\0", 3, b"\x01\x02\x03"),
        ] {
            notes.extend((name.len() as u32).to_le_bytes());
            notes.extend((id.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            for part in [name, id] {
                notes.extend(part);
                notes.resize(notes.len().next_multiple_of(4), 0);
            }
        }
        assert_eq!(find(&notes), Some(&b"\x01\x02\x03"[..]));
        for cut in 0..notes.len() - 1 {
            assert_eq!(find(&notes[..cut]), None);
        }
        assert_eq!(find(&[0xff; 40]), None);
        assert!(matches(&[0x0003_0201], b"\x01\x02\x03"));
        assert!(!matches(&[0x0003_0201, 0], b"\x01\x02\x03"));
        assert!(!matches(&[0x0103_0201], b"\x01\x02\x03"));
        assert_eq!(hex(b"\x01\xfe"), "01fe");
    }
}
