//! The files of a guest's directory at one moment, to be put back before another restore.
//!
//! A tree that went on after its dump has changed its files. Images of it expect them as they were.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files longer than this are taken to stay as they are.
const LONGEST: u64 = 64 << 20;

/// What a path was.
#[derive(Debug)]
enum Entry {
    Directory,
    File {
        bytes: Vec<u8>,
        mode: u32,
        modified: SystemTime,
    },
    Other,
}

/// All that was in a directory.
#[derive(Debug)]
pub struct DirectoryState {
    root: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
}

impl DirectoryState {
    /// Remembers a directory.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub fn save(root: &Path) -> Result<Self> {
        let mut entries = BTreeMap::new();
        walk(root, &mut |path| {
            let data = fs::symlink_metadata(path)?;
            let entry = if data.is_dir() {
                Entry::Directory
            } else if data.is_file() && data.len() <= LONGEST {
                Entry::File {
                    bytes: fs::read(path)?,
                    mode: data.mode(),
                    modified: data.modified()?,
                }
            } else {
                Entry::Other
            };
            entries.insert(path.to_owned(), entry);
            Ok(())
        })?;
        Ok(Self {
            root: root.to_owned(),
            entries,
        })
    }

    /// Makes the directory what it was: contents, times of change, and no file more. Inodes that
    /// still exist are kept.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn put_back(&self) -> Result<()> {
        let mut extra = Vec::new();
        walk(&self.root, &mut |path| {
            if !self.entries.contains_key(path) {
                extra.push(path.to_owned());
            }
            Ok(())
        })?;
        for path in extra.iter().rev() {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
        for (path, entry) in &self.entries {
            match entry {
                Entry::Directory => fs::create_dir_all(path)?,
                Entry::File {
                    bytes,
                    mode,
                    modified,
                } => {
                    rewrite(path, bytes, *mode, *modified)
                        .with_context(|| path.display().to_string())?;
                }
                Entry::Other => {}
            }
        }
        Ok(())
    }
}

/// Calls back for every path below a directory, folders before what is in them.
fn walk(root: &Path, visit: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(root).with_context(|| root.display().to_string())? {
        let path = entry?.path();
        visit(&path)?;
        if fs::symlink_metadata(&path)?.is_dir() {
            walk(&path, visit)?;
        }
    }
    Ok(())
}

/// Writes a file unless it is as it should be.
fn rewrite(path: &Path, bytes: &[u8], mode: u32, modified: SystemTime) -> Result<()> {
    if fs::read(path).is_ok_and(|found| found == bytes)
        && fs::metadata(path)?.modified()? == modified
    {
        return Ok(());
    }
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.set_times(FileTimes::new().set_modified(modified))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        fs::write(path("sub/kept"), "kept").unwrap();
        fs::write(path("changed"), "old").unwrap();
        let before = fs::metadata(path("changed")).unwrap();
        let state = DirectoryState::save(dir.path()).unwrap();

        fs::write(path("changed"), "new and longer").unwrap();
        fs::write(path("new"), "").unwrap();
        fs::create_dir_all(path("more/of it")).unwrap();
        fs::remove_file(path("sub/kept")).unwrap();
        state.put_back().unwrap();

        let after = fs::metadata(path("changed")).unwrap();
        assert_eq!(fs::read_to_string(path("changed")).unwrap(), "old");
        assert_eq!(
            (after.ino(), after.modified().unwrap()),
            (before.ino(), before.modified().unwrap())
        );
        assert_eq!(fs::read_to_string(path("sub/kept")).unwrap(), "kept");
        assert!(!path("new").exists() && !path("more").exists());
    }
}
