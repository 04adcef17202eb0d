//! Files that get their names before the commit.
//!
//! A name costs ext4 some 12 us, and names in one directory are made one after the other: for thousands of images that
//! is worth a thread of its own, while others are still being written. Those of a few images are given by a thread that has
//! nothing else to do. Nobody takes the directory for a set before it has an inventory, which gets its name last of all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;

use crate::Dir;
use crate::manifest;
use crate::staged::Shared;
use crate::staging::INVENTORY;

/// What has been named, and the thread that still gives names, if there is one.
#[derive(Debug)]
pub(crate) struct Naming {
    /// By a thread: once it has ended.
    named: BTreeSet<String>,
    thread: Option<JoinHandle<BTreeSet<String>>>,
}

impl Naming {
    /// Starts it, unless the directory has an older set, whose files would come in its way, or there can be no thread. It
    /// ends with the sender of the names of finished files.
    pub(crate) fn start(shared: &Arc<Shared>, dir: &Dir) -> Option<(Self, Sender<String>)> {
        if !is_free(dir) {
            return None;
        }
        let (finished, names) = mpsc::channel();
        let thread = std::thread::Builder::new().name("names".into());
        let (shared, dir) = (Arc::clone(shared), dir.clone());
        let thread = thread.spawn(move || give(&shared, &dir, names.iter()));
        let thread = thread.ok()?;
        let naming = Self {
            named: BTreeSet::new(),
            thread: Some(thread),
        };
        Some((naming, finished))
    }

    /// Gives names to finished files at once, unless the directory has an older set.
    pub(crate) fn give(shared: &Shared, dir: &Dir, finished: Vec<String>) -> Option<Self> {
        is_free(dir).then(|| Self {
            named: give(shared, dir, finished.into_iter()),
            thread: None,
        })
    }

    /// Waits for the thread, which nobody sends names any more; the files that have their names.
    pub(crate) fn end(&mut self) -> BTreeSet<String> {
        if let Some(thread) = self.thread.take() {
            // What it could not name the commit names, or says why not.
            self.named = thread.join().unwrap_or_default();
        }
        self.named.clone()
    }
}

/// Whether a directory has no set.
fn is_free(dir: &Dir) -> bool {
    [INVENTORY, manifest::FILE_NAME].into_iter().all(|name| {
        let found = accessat(dir, name, Access::EXISTS, AtFlags::empty());
        found == Err(Errno::NOENT)
    })
}

fn give(shared: &Shared, dir: &Dir, names: impl Iterator<Item = String>) -> BTreeSet<String> {
    names
        .filter(|name| name != INVENTORY && shared.name_early(name, dir))
        .collect()
}
