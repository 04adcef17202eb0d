//! The manifest: length and checksum of every file of a set.
//!
//! `gelid-manifest.json` is ours; CRIU ignores it, and a directory without one is as good as any. Where there is one that
//! was verified, images that it does not list are none of the set.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use serde::ser::SerializeMap;

use crate::dir::{plain, with_room};
use crate::source::LARGEST;
use crate::{Dir, ReadError, shared_out};

/// Name of the manifest in an image directory.
pub const FILE_NAME: &str = "gelid-manifest.json";

/// Version of the manifest's own layout.
const FORMAT: u64 = 1;
/// A manifest is small; a larger file is not one.
const MAX_LEN: u64 = 64 << 20;

/// Lengths and checksums of the files of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    files: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    len: u64,
    checksum: Checksum,
}

/// Checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// BLAKE3 of the whole file.
    Blake3(blake3::Hash),
    /// Whatever the writer of the file supplied; it also checks it.
    Other(String),
}

/// All of a manifest's file.
#[derive(serde::Serialize)]
struct Stored<'m> {
    format: u64,
    gelid: &'static str,
    files: &'m BTreeMap<String, Entry>,
}

/// The same as it was found: anything may be missing.
#[derive(serde::Deserialize)]
struct Found {
    format: Option<u64>,
    files: Option<BTreeMap<String, FoundEntry>>,
}

#[derive(serde::Deserialize)]
struct FoundEntry {
    length: Option<u64>,
    blake3: Option<String>,
    checksum: Option<String>,
}

impl serde::Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("length", &self.len)?;
        match &self.checksum {
            Checksum::Blake3(hash) => map.serialize_entry("blake3", hash.to_hex().as_str())?,
            Checksum::Other(text) => map.serialize_entry("checksum", text)?,
        }
        map.end()
    }
}

/// Why a manifest could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not JSON.
    #[error("{FILE_NAME}: {0}")]
    Json(#[from] serde_json::Error),
    /// It is JSON of another shape or format version.
    #[error("{FILE_NAME}: {what} missing or malformed")]
    Malformed {
        /// The part in question.
        what: String,
    },
}

/// What is wrong with a file, in comparison with the manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file is not there or cannot be read.
    #[error("{file}: missing ({reason})")]
    Missing {
        /// The file.
        file: String,
        /// Why it could not be read.
        reason: String,
    },
    /// The file has another length.
    #[error("{file}: {found} bytes, {expected} expected")]
    Length {
        /// The file.
        file: String,
        /// Length in the manifest.
        expected: u64,
        /// Length found.
        found: u64,
    },
    /// The contents have changed.
    #[error("{file}: contents changed")]
    Contents {
        /// The file.
        file: String,
    },
}

impl Manifest {
    /// An empty manifest.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn insert(&mut self, name: String, len: u64, checksum: Checksum) {
        self.files.insert(name, Entry { len, checksum });
    }

    /// Names of the files, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Length in bytes and checksum of a file.
    pub fn get(&self, name: &str) -> Option<(u64, &Checksum)> {
        self.files
            .get(name)
            .map(|entry| (entry.len, &entry.checksum))
    }

    /// Compares a directory with the manifest and names every missing, truncated or changed file.
    /// Of files whose checksum is their writer's own, only the length is compared. Images of a directory without damage
    /// that it does not list are not read any more.
    pub fn verify(&self, dir: &Dir) -> Vec<Damage> {
        let names: Vec<&str> = self.names().collect();
        let verify = |names: &[&str]| -> Vec<Damage> {
            let all = names.iter();
            all.filter_map(|name| self.verify_file(dir, name)).collect()
        };
        let damage = shared_out("checksums", &names, verify).concat();
        if damage.is_empty() {
            dir.limit(self.names());
        }
        damage
    }

    /// Compares one file with the manifest; a file it does not list is never damaged. Images that are small and
    /// undamaged are decoded from what was read here.
    pub fn verify_file(&self, dir: &Dir, name: &str) -> Option<Damage> {
        let entry = self.files.get(name)?;
        let missing = |reason: String| Damage::Missing {
            file: name.into(),
            reason,
        };
        let (file, found) = match dir.raw_sized(name) {
            Ok(file) => file,
            Err(error) => return Some(missing(error.to_string())),
        };
        if found != entry.len {
            return Some(Damage::Length {
                file: name.into(),
                expected: entry.len,
                found,
            });
        }
        let Checksum::Blake3(expected) = entry.checksum else {
            return None;
        };
        let found = match found {
            ..=LARGEST => small(file, found).map(|bytes| {
                let hash = blake3::hash(&bytes);
                if hash == expected {
                    dir.keep(name, &bytes);
                }
                hash
            }),
            _ => hash(file).map(|(_, hash)| hash),
        };
        match found {
            Ok(found) if found == expected => None,
            Ok(_) => Some(Damage::Contents { file: name.into() }),
            Err(error) => Some(missing(error.to_string())),
        }
    }

    /// The manifest as stored, for [`Manifest::parse`].
    pub(crate) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let stored = Stored {
            format: FORMAT,
            gelid: env!("CARGO_PKG_VERSION"),
            files: &self.files,
        };
        let mut json = serde_json::to_vec_pretty(&stored)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads a stored manifest, trusting nothing in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let found: Found = serde_json::from_slice(bytes)?;
        let malformed = |what: &str| ManifestError::Malformed { what: what.into() };
        if found.format != Some(FORMAT) {
            return Err(malformed("format"));
        }
        let mut manifest = Self::new();
        for (name, entry) in found.files.ok_or(malformed("files"))? {
            let checksum = match (entry.blake3, entry.checksum) {
                (Some(hex), None) => blake3::Hash::from_hex(hex).ok().map(Checksum::Blake3),
                (None, Some(text)) => Some(Checksum::Other(text)),
                _ => None,
            };
            let (Some(len), Some(checksum), true) = (entry.length, checksum, plain(&name)) else {
                return Err(malformed(&name));
            };
            manifest.insert(name, len, checksum);
        }
        Ok(manifest)
    }
}

/// The manifest of a directory, or `None` if it has none.
pub fn read(dir: &Dir) -> Result<Option<Manifest>, ManifestError> {
    let bytes = match dir.raw_bytes(FILE_NAME, MAX_LEN) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Manifest::parse(&bytes).map(Some)
}

/// Verifies a directory against its manifest; one without manifest is accepted.
pub fn verify(dir: &Dir) -> Result<Vec<Damage>, ManifestError> {
    Ok(read(dir)?.map_or(Vec::new(), |manifest| manifest.verify(dir)))
}

/// The bytes of a file that has had `len` of them, and one more if there is one.
fn small(file: File, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = with_room(len);
    file.take(len + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Length and BLAKE3 of a file.
pub(crate) fn hash(mut file: File) -> io::Result<(u64, blake3::Hash)> {
    let mut hasher = blake3::Hasher::new();
    // Most images are small, and there is one for each task.
    let len = file.metadata()?.len().clamp(4 << 10, 256 << 10);
    let mut buffer = vec![0; len as usize];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.count(), hasher.finalize())),
            Ok(n) => {
                hasher.update(&buffer[..n]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
