//! Where the bytes of an image come from: its file, or what was read of it when its checksum was compared.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Larger files are read again.
pub(crate) const LARGEST: u64 = 1 << 20;
/// What all together may take.
const MOST: usize = 16 << 20;

/// The bytes of an image.
#[derive(Debug)]
pub enum Source {
    /// As the file has them now.
    File(File),
    /// As the file had them when they were found to be what was written.
    Kept(Cursor<Arc<[u8]>>),
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Kept(bytes) => bytes.read(buffer),
        }
    }
}

/// Small images whose checksums have been compared. They are decoded from the same bytes: nobody can exchange them
/// in between, and no file is opened twice.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    images: Mutex<Images>,
}

#[derive(Debug, Default)]
struct Images {
    bytes: usize,
    by_name: HashMap<String, Arc<[u8]>>,
    /// All files of the set, where that is known.
    listed: Option<HashSet<String>>,
}

impl Kept {
    fn images(&self) -> MutexGuard<'_, Images> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes down all files of the set.
    pub(crate) fn limit<'n>(&self, names: impl Iterator<Item = &'n str>) {
        self.images().listed = Some(names.map(str::to_owned).collect());
    }

    /// Whether the set may have a file of that name.
    pub(crate) fn may_have(&self, name: &str) -> bool {
        let images = self.images();
        images
            .listed
            .as_ref()
            .is_none_or(|listed| listed.contains(name))
    }

    /// What is kept of a file, with its length.
    pub(crate) fn get(&self, name: &str) -> Option<(Source, u64)> {
        let images = self.images();
        let bytes = images.by_name.get(name)?;
        let source = Source::Kept(Cursor::new(Arc::clone(bytes)));
        Some((source, bytes.len() as u64))
    }

    /// Keeps the bytes of a file, if there is room for them; those that it had before are forgotten.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let mut images = self.images();
        if let Some(old) = images.by_name.remove(name) {
            images.bytes -= old.len();
        }
        if images.bytes + bytes.len() <= MOST {
            images.bytes += bytes.len();
            images.by_name.insert(name.to_owned(), bytes.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let kept = Kept::default();
        let large = vec![1; MOST / 2];
        kept.put("a", &large);
        kept.put("b", &large);
        kept.put("c", &[2]);
        assert!(kept.get("a").is_some() && kept.get("b").is_some());
        assert!(kept.get("c").is_none());
        kept.put("a", &[3]);
        kept.put("c", &[2]);
        let mut bytes = Vec::new();
        kept.get("a").unwrap().0.read_to_end(&mut bytes).unwrap();
        kept.get("c").unwrap().0.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [3, 2]);
    }
}
