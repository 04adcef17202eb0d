//! The files of a set under construction, and what is known of each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::blank::{Blanks, Nameless};
use crate::claim::Claim;
use crate::manifest::{self, Checksum};
use crate::{Dir, WriteError};

/// What the writers of a set share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) claim: Claim,
    pub(crate) mode: Mode,
    pub(crate) blanks: Blanks,
    pub(crate) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Staged>,
    /// Those of them that get their names in the end.
    pub(crate) nameless: BTreeMap<String, Nameless>,
    pub(crate) links: Vec<String>,
    pub(crate) failure: Option<WriteError>,
    /// Who wants to know of files that are finished.
    pub(crate) naming: Option<Sender<String>>,
}

#[derive(Debug)]
pub(crate) enum Staged {
    /// A writer is at work.
    Open,
    /// A writer has finished.
    Finished(Finished),
    /// Written by somebody else, who may still be at it; read at commit for its checksum.
    Raw,
    /// Written by somebody else, who has told its checksum.
    Summed(Summed),
}

/// What is known of a file that somebody else has written.
#[derive(Clone, Debug)]
pub(crate) struct Summed {
    pub(crate) len: u64,
    pub(crate) checksum: String,
}

/// What a finished writer knows about its file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    pub(crate) len: u64,
    pub(crate) blake3: blake3::Hash,
}

impl State {
    /// The files into which nothing more is written.
    pub(crate) fn finished(&self) -> impl Iterator<Item = &String> {
        let is_finished =
            |staged: &Staged| matches!(staged, Staged::Finished(_) | Staged::Summed(_));
        let files = self.files.iter();
        files.filter_map(move |(name, staged)| is_finished(staged).then_some(name))
    }

    /// Nothing more is written into a file.
    fn finish(&mut self, name: &str, staged: Staged) {
        self.files.insert(name.into(), staged);
        if let Some(naming) = &self.naming {
            // Whom it does not reach, the commit names.
            let _ = naming.send(name.into());
        }
    }
}

impl Shared {
    /// Creates a file of the set and notes it as being written.
    pub(crate) fn create(&self, name: &str) -> Result<File, WriteError> {
        if let Some(file) = self.take_blank(name)? {
            return Ok(file);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let hidden = self.claim.hidden();
        match hidden.and_then(|hidden| rustix::fs::openat(hidden, name, flags, self.mode)) {
            Ok(fd) => {
                self.set(name, Staged::Open);
                Ok(File::from(fd))
            }
            Err(Errno::EXIST) => Err(WriteError::Duplicate { file: name.into() }),
            Err(source) => Err(WriteError::io(name, "create", source)),
        }
    }

    /// A file made in advance, if there is one.
    fn take_blank(&self, name: &str) -> Result<Option<File>, WriteError> {
        self.take(name, || self.blanks.take())
    }

    /// The file with blocks that is for somebody, if there is one.
    pub(crate) fn take_roomy(&self, name: &str, whose: u32) -> Result<Option<File>, WriteError> {
        self.take(name, || self.blanks.take_roomy(whose))
    }

    fn take(
        &self,
        name: &str,
        made: impl FnOnce() -> Option<(File, Nameless)>,
    ) -> Result<Option<File>, WriteError> {
        let mut state = self.state();
        if state.files.contains_key(name) {
            return Err(WriteError::Duplicate { file: name.into() });
        }
        Ok(made().map(|(file, nameless)| {
            state.nameless.insert(name.into(), nameless);
            state.files.insert(name.into(), Staged::Open);
            file
        }))
    }

    /// Makes a file visible, in the place of another one.
    pub(crate) fn publish(&self, name: &str, dir: &Dir) -> io::Result<()> {
        let Some(nameless) = self.state().nameless.remove(name) else {
            return Ok(rustix::fs::renameat(self.claim.hidden()?, name, dir, name)?);
        };
        match nameless.name(dir, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
                nameless.name(dir, name)
            }
            named => named,
        }
    }

    pub(crate) fn finish(&self, name: &str, finished: Finished) {
        self.state().finish(name, Staged::Finished(finished));
    }

    /// Notes the checksum of a raw file, which is complete.
    pub(crate) fn sum(&self, name: &str, checksum: String) -> Result<(), WriteError> {
        match self.state().files.get(name) {
            Some(Staged::Raw | Staged::Summed(_)) => {}
            _ => return Err(WriteError::BadName { name: name.into() }),
        }
        let len = self.len(name)?;
        let summed = Staged::Summed(Summed { len, checksum });
        self.state().finish(name, summed);
        Ok(())
    }

    /// Gives a file its name, if it has none and nobody else has it; whether it has it now.
    pub(crate) fn name_early(&self, name: &str, dir: &Dir) -> bool {
        let Some(nameless) = self.state().nameless.remove(name) else {
            return false;
        };
        let named = nameless.name(dir, name).is_ok();
        if !named {
            self.state().nameless.insert(name.into(), nameless);
        }
        named
    }

    /// Notes the first failure that nobody else could be told of.
    pub(crate) fn fail(&self, error: WriteError) {
        self.state().failure.get_or_insert(error);
    }

    pub(crate) fn set(&self, name: &str, staged: Staged) {
        self.state().files.insert(name.into(), staged);
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state consistent, so a panic elsewhere does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, name: &str) -> Result<File, WriteError> {
        if let Some(nameless) = self.state().nameless.get(name) {
            let opened = nameless.open();
            return opened.map_err(|source| WriteError::io(name, "open", source));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let hidden = self.claim.hidden();
        match hidden.and_then(|hidden| rustix::fs::openat(hidden, name, flags, Mode::empty())) {
            Ok(fd) => Ok(File::from(fd)),
            Err(source) => Err(WriteError::io(name, "open", source)),
        }
    }

    fn len(&self, name: &str) -> Result<u64, WriteError> {
        let nameless = self.state().nameless.get(name).map(Nameless::len);
        let found = match nameless {
            Some(len) => len,
            None => self.open(name)?.metadata().map(|found| found.len()),
        };
        found.map_err(|source| WriteError::io(name, "stat", source))
    }

    pub(crate) fn hash(&self, name: &str) -> Result<(u64, Checksum), WriteError> {
        let hashed = manifest::hash(self.open(name)?);
        let (len, hash) = hashed.map_err(|source| WriteError::io(name, "read", source))?;
        Ok((len, Checksum::Blake3(hash)))
    }
}
