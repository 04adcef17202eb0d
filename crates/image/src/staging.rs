//! Writing a whole image set that becomes visible only when it is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use crate::blank::{Blanks, Roomy};
use crate::claim::Claim;
use crate::dir::plain;
use crate::manifest::{self, Checksum, Manifest};
use crate::naming::Naming;
use crate::staged::{Shared, Staged, State};
use crate::{Dir, ImageKind, ImageWriter, Key, Record, WriteError};

pub(crate) const INVENTORY: &str = "inventory.img";

/// So many files are worth a thread that names them.
const WORTH_A_THREAD: usize = 64;

/// How a set is written.
#[derive(Clone, Copy, Debug)]
pub struct StagingOptions {
    /// Permissions of the files, before the umask; 0644 as the format has it.
    pub mode: u32,
    /// Whether `commit` returns only when the set would survive a crash of the machine.
    pub sync: bool,
    /// Whether to write [`gelid-manifest.json`](crate::manifest).
    pub manifest: bool,
}

impl Default for StagingOptions {
    fn default() -> Self {
        Self {
            mode: 0o644,
            sync: false,
            manifest: true,
        }
    }
}

/// An image set under construction. Files have no name yet, or live in a hidden sub-directory;
/// [`commit`](Self::commit) moves them into place, the inventory last, so a directory with an inventory is whole.
/// Dropped without commit, nothing is left. What a killed predecessor left in the sub-directory is removed first.
///
/// All methods take `&self` and may be called from several threads.
#[derive(Debug)]
pub struct Staging {
    dir: Dir,
    options: StagingOptions,
    shared: Arc<Shared>,
    naming: Mutex<Option<Naming>>,
    done: bool,
}

impl Staging {
    /// Starts a set in an existing directory with the default options.
    pub fn new(dir: &Dir) -> Result<Self, WriteError> {
        Self::with_options(dir, StagingOptions::default())
    }

    /// Starts a set in an existing directory.
    pub fn with_options(dir: &Dir, options: StagingOptions) -> Result<Self, WriteError> {
        let shared = Shared {
            claim: Claim::new(dir)?,
            mode: Mode::from_raw_mode(options.mode & 0o777),
            blanks: Blanks::default(),
            state: Mutex::default(),
        };
        Ok(Self {
            dir: dir.clone(),
            options,
            shared: Arc::new(shared),
            naming: Mutex::default(),
            done: false,
        })
    }

    /// From now on files get their names as soon as they are finished, by another thread, if there are as many as that is
    /// worth. To be called when hardly anything can go wrong any more: if it does, names are taken away again, but
    /// whoever is killed leaves them. The inventory gets its name in the commit.
    pub fn name_early(&self) {
        let mut naming = self.naming();
        let mut state = self.shared.state();
        if naming.is_some() || self.options.sync || !self.is_worth_a_thread(&state) {
            return;
        }
        let Some((begun, finished)) = Naming::start(&self.shared, &self.dir) else {
            return;
        };
        for name in state.finished() {
            // It waits for them.
            let _ = finished.send(name.clone());
        }
        state.naming = Some(finished);
        *naming = Some(begun);
    }

    /// The same of a set that is too small for that, by the caller, and of files that are finished already: for a thread
    /// that has nothing else to do while others still write theirs.
    pub fn name_finished(&self) {
        let mut naming = self.naming();
        let state = self.shared.state();
        if naming.is_some() || self.options.sync || self.is_worth_a_thread(&state) {
            return;
        }
        let finished: Vec<String> = state.finished().cloned().collect();
        drop(state);
        *naming = Naming::give(&self.shared, &self.dir, finished);
    }

    fn is_worth_a_thread(&self, state: &State) -> bool {
        state.nameless.len() + self.shared.blanks.left() >= WORTH_A_THREAD
    }

    /// Waits for files to be named that are finished, and says which have been.
    fn named(&self) -> BTreeSet<String> {
        self.shared.state().naming = None;
        let mut naming = self.naming();
        naming.as_mut().map(Naming::end).unwrap_or_default()
    }

    fn naming(&self) -> MutexGuard<'_, Option<Naming>> {
        // Every critical section leaves it whole.
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes files in advance, so that less is to be done when they are written. File systems that cannot are left
    /// alone, and files that are not needed leave nothing. One thread at a time is fastest: two of them look at the
    /// same inodes. The first time the hash finds out what the processor can do, which takes its time in a virtual machine.
    pub fn prepare(&self, count: usize) {
        let _ = blake3::hash(&[]);
        let Shared { blanks, mode, .. } = &*self.shared;
        blanks.make(self.dir.as_fd(), *mode, count);
    }

    /// Makes a file in advance that has blocks for so many bytes, for [`roomy`](Self::roomy) to take by the same number.
    /// File systems for which that is not known to be worth while are left alone.
    pub fn prepare_room(&self, whose: u32, bytes: u64) {
        let Shared { blanks, mode, .. } = &*self.shared;
        blanks.make_roomy(self.dir.as_fd(), *mode, whose, bytes);
    }

    /// A writer for an image file.
    pub fn writer(&self, kind: ImageKind, key: impl Into<Key>) -> Result<ImageWriter, WriteError> {
        let key = key.into();
        let name = kind
            .file_name(key)
            .ok_or(WriteError::BadKey { kind, key })?;
        if self.shared.state().files.contains_key(&name) {
            return Err(WriteError::Duplicate { file: name });
        }
        Ok(ImageWriter::new(self.shared.clone(), kind, name))
    }

    /// Creates a file of any name for the caller to fill. It exists from now on, even if empty.
    /// Must be closed before the commit.
    pub fn raw(&self, name: &str) -> Result<File, WriteError> {
        fit(name)?;
        let file = self.shared.create(name)?;
        self.shared.set(name, Staged::Raw);
        Ok(file)
    }

    /// The same, into the file that was prepared for somebody, if one was. To be flushed at its end.
    pub fn roomy(&self, name: &str, whose: u32) -> Result<Roomy, WriteError> {
        fit(name)?;
        let (file, has_room) = match self.shared.take_roomy(name, whose)? {
            Some(file) => (file, true),
            None => (self.shared.create(name)?, false),
        };
        self.shared.set(name, Staged::Raw);
        Ok(Roomy::new(file, has_room))
    }

    /// Sets the checksum of a raw file, of which all is written, for the manifest, in whatever form its owner likes; spares
    /// the commit from reading the file back.
    pub fn set_checksum(&self, name: &str, checksum: impl Into<String>) -> Result<(), WriteError> {
        self.shared.sum(name, checksum.into())
    }

    /// Removes a raw file without a checksum from the set, after it was closed.
    pub fn discard(&self, name: &str) -> Result<(), WriteError> {
        let mut state = self.shared.state();
        match state.files.remove(name) {
            Some(Staged::Raw) => {}
            _ => return Err(WriteError::BadName { name: name.into() }),
        }
        if state.nameless.remove(name).is_some() {
            return Ok(());
        }
        drop(state);
        let hidden = self.shared.claim.hidden();
        hidden
            .and_then(|hidden| rustix::fs::unlinkat(hidden, name, AtFlags::empty()))
            .map_err(|source| WriteError::io(name, "remove", source))
    }

    /// Writes an image of a single record.
    pub fn put<M: Record>(
        &self,
        kind: ImageKind,
        key: impl Into<Key>,
        message: &M,
    ) -> Result<(), WriteError> {
        let mut writer = self.writer(kind, key)?;
        writer.push(message)?;
        writer.finish()
    }

    /// Makes `parent` of the new set lead to `target` (section 10.1).
    pub fn link_parent(&self, target: &Path) -> Result<(), WriteError> {
        let hidden = self.shared.claim.hidden();
        let made = hidden.and_then(|hidden| {
            rustix::fs::symlinkat(target.as_os_str().as_bytes(), hidden, "parent")
        });
        made.map_err(|source| WriteError::io("parent", "create", source))?;
        self.shared.state().links.push("parent".into());
        Ok(())
    }

    /// The directory the set will appear in.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Makes the set visible. Of a set that was in the directory before, the files with the same
    /// names and those its manifest lists are replaced and removed.
    pub fn commit(mut self) -> Result<(), WriteError> {
        let (files, links) = self.take_files()?;
        let named = self.named();
        let others = files.keys().filter(|name| !named.contains(*name));
        let mut names: Vec<String> = others.cloned().chain(links).collect();
        let manifest = self.manifest(&files)?;
        if self.options.manifest {
            self.write_manifest(&manifest)?;
            names.push(manifest::FILE_NAME.into());
        }
        if self.options.sync {
            self.sync_files(files.keys())?;
        }
        self.retire_old_set()?;
        self.publish(names)?;
        self.done = true;
        self.shared.claim.give_up();
        Ok(())
    }

    fn take_files(&self) -> Result<(BTreeMap<String, Staged>, Vec<String>), WriteError> {
        let mut state = self.shared.state();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        for (name, staged) in &state.files {
            if matches!(staged, Staged::Open) {
                return Err(WriteError::Unfinished { file: name.clone() });
            }
        }
        // The map stays as it is for clean-up, should a later step fail.
        let files = state.files.iter().map(|(name, staged)| {
            let staged = match staged {
                Staged::Finished(finished) => Staged::Finished(*finished),
                Staged::Raw => Staged::Raw,
                Staged::Summed(summed) => Staged::Summed(summed.clone()),
                Staged::Open => Staged::Open,
            };
            (name.clone(), staged)
        });
        Ok((files.collect(), state.links.clone()))
    }

    fn manifest(&self, files: &BTreeMap<String, Staged>) -> Result<Manifest, WriteError> {
        let mut manifest = Manifest::new();
        if !self.options.manifest {
            return Ok(manifest);
        }
        for (name, staged) in files {
            let (len, checksum) = match staged {
                Staged::Finished(f) => (f.len, Checksum::Blake3(f.blake3)),
                Staged::Summed(f) => (f.len, Checksum::Other(f.checksum.clone())),
                Staged::Raw | Staged::Open => self.shared.hash(name)?,
            };
            manifest.insert(name.clone(), len, checksum);
        }
        Ok(manifest)
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), WriteError> {
        let mut file = self.shared.create(manifest::FILE_NAME)?;
        let json = manifest.to_json().map_err(io::Error::from);
        let written = json.and_then(|json| io::Write::write_all(&mut file, &json));
        let synced = written.and_then(|()| match self.options.sync {
            true => file.sync_all(),
            false => Ok(()),
        });
        self.shared.set(manifest::FILE_NAME, Staged::Raw);
        synced.map_err(|source| WriteError::io(manifest::FILE_NAME, "write", source))
    }

    fn sync_files<'a>(&self, names: impl Iterator<Item = &'a String>) -> Result<(), WriteError> {
        for name in names {
            let synced = self.shared.open(name)?.sync_all();
            synced.map_err(|source| WriteError::io(name, "sync", source))?;
        }
        Ok(())
    }

    /// Takes the inventory away first: whatever happens from here on, no mixture of two sets looks
    /// complete.
    fn retire_old_set(&self) -> Result<(), WriteError> {
        let old = manifest::read(&self.dir).ok().flatten();
        self.unlink(INVENTORY)?;
        self.unlink(manifest::FILE_NAME)?;
        // Also those that come anew: file systems take a rename over an older file for a promise to have
        // the data on disk, and wait for it.
        for name in old.iter().flat_map(Manifest::names) {
            if plain(name) {
                self.unlink(name)?;
            }
        }
        Ok(())
    }

    fn publish(&self, mut names: Vec<String>) -> Result<(), WriteError> {
        // The manifest last but one, the inventory last.
        names.sort_by_key(|name| match name.as_str() {
            INVENTORY => 2,
            manifest::FILE_NAME => 1,
            _ => 0,
        });
        for (at, name) in names.iter().enumerate() {
            if name == INVENTORY {
                self.sync_dir()?;
            }
            let moved = self.shared.publish(name, &self.dir);
            if let Err(source) = moved {
                for name in &names[..at] {
                    let _ = self.unlink(name);
                }
                return Err(WriteError::io(name, "put in place", source));
            }
        }
        self.sync_dir()
    }

    fn sync_dir(&self) -> Result<(), WriteError> {
        if !self.options.sync {
            return Ok(());
        }
        rustix::fs::fsync(&self.dir)
            .map_err(|source| WriteError::io(self.dir.label(), "sync", source))
    }

    fn unlink(&self, name: &str) -> Result<(), WriteError> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(source) => Err(WriteError::io(name, "remove", source)),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            for name in self.named() {
                // Without an inventory nobody takes it for anything.
                let _ = self.unlink(&name);
            }
            self.shared.claim.give_up();
        }
    }
}

/// Whether a file of that name may be in a set.
fn fit(name: &str) -> Result<(), WriteError> {
    match plain(name) && !name.starts_with('.') && name != manifest::FILE_NAME {
        true => Ok(()),
        false => Err(WriteError::BadName { name: name.into() }),
    }
}
