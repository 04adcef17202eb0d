//! Files that get their names before the commit, by a thread of its own.
//!
//! A name costs ext4 some 12 us, and names in one directory are made one after the other: for thousands of images that
//! is worth a processor of its own, while others are still being written. Nobody takes the directory for a set
//! before it has an inventory, which gets its name last of all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;

use crate::Dir;
use crate::manifest;
use crate::staged::Shared;
use crate::staging::INVENTORY;

/// A thread that gives names, and what it has named.
#[derive(Debug)]
pub(crate) struct Naming {
    /// Once it has ended.
    named: BTreeSet<String>,
    thread: Option<JoinHandle<BTreeSet<String>>>,
}

impl Naming {
    /// Starts it, unless the directory has an older set, whose files would come in its way, or there can be no thread. It
    /// ends with the sender of the names of finished files.
    pub(crate) fn start(shared: &Arc<Shared>, dir: &Dir) -> Option<(Self, Sender<String>)> {
        let is_free = |name: &str| {
            let found = accessat(dir, name, Access::EXISTS, AtFlags::empty());
            found == Err(Errno::NOENT)
        };
        if ![INVENTORY, manifest::FILE_NAME].into_iter().all(is_free) {
            return None;
        }
        let (finished, names) = mpsc::channel();
        let thread = std::thread::Builder::new().name("names".into());
        let (shared, dir) = (Arc::clone(shared), dir.clone());
        let thread = thread.spawn(move || give(&shared, &dir, &names)).ok()?;
        let naming = Self {
            named: BTreeSet::new(),
            thread: Some(thread),
        };
        Some((naming, finished))
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

fn give(shared: &Shared, dir: &Dir, names: &Receiver<String>) -> BTreeSet<String> {
    let named = names.iter();
    named
        .filter(|name| name != INVENTORY && shared.name_early(name, dir))
        .collect()
}
