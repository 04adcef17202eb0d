//! Semaphores: `ipcns-sem-*.img`.

use gelid_image::messages::IpcSemEntry;
use gelid_image::{Dir, ImageKind};
use gelid_sys::ipc::sem;

use super::super::PlanError;
use super::{Identity, wrong};

/// A set of semaphores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) identity: Identity,
    pub(crate) values: Vec<u16>,
}

const KIND: ImageKind = ImageKind::IpcnsSem;

/// Reads the sets of a namespace.
pub(super) fn read(dir: &Dir, namespace: u32) -> Result<Vec<Set>, PlanError> {
    let mut sets = Vec::new();
    let Some(mut reader) = dir.reader_opt(KIND, namespace)? else {
        return Ok(sets);
    };
    while let Some(entry) = reader.next::<IpcSemEntry>()? {
        let identity = Identity::read(KIND, &entry.desc)?;
        let wrong = wrong(KIND, entry.desc.id);
        if !(1..=u32::from(u16::MAX) + 1).contains(&entry.nsems) {
            return Err(wrong("has no semaphores, or more than any set"));
        }
        let len = u64::from(entry.nsems) * 2;
        let bytes = reader.payload_padded(len, 8)?.bytes(len)?;
        let words = bytes.chunks_exact(2);
        let values: Vec<u16> = words
            .map(|word| u16::from_le_bytes([word[0], word[1]]))
            .collect();
        if values.iter().any(|value| *value > sem::MOST) {
            return Err(wrong("has a value that no semaphore has"));
        }
        sets.push(Set { identity, values });
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(nsems: u32, payload: &[u8]) -> Result<Vec<Set>, PlanError> {
        let scratch = tempfile::tempdir().unwrap();
        let mut image = gelid_image::header(KIND);
        let entry = IpcSemEntry {
            nsems,
            ..IpcSemEntry::default()
        };
        gelid_image::append(&mut image, &entry);
        image.extend(payload);
        std::fs::write(scratch.path().join("ipcns-sem-3.img"), image).unwrap();
        read(&Dir::open(scratch.path()).unwrap(), 3)
    }

    #[test]
    fn values_are_read_and_bounded() {
        let sets = read_from(3, &[1, 0, 2, 0, 0xff, 0x7f, 9, 9]).unwrap();
        assert_eq!(sets[0].values, [1, 2, 32767]);
        let wrong = |nsems, payload| read_from(nsems, payload).unwrap_err().to_string();
        assert!(wrong(1, &[0, 0x80, 0, 0, 0, 0, 0, 0]).contains("no semaphore has"));
        assert!(wrong(0, &[]).contains("no semaphores"));
        assert!(wrong(u32::MAX, &[]).contains("more than any set"));
        read_from(65536, &[0; 8]).unwrap_err();
    }
}
