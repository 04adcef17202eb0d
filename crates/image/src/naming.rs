//! Files that get their names before the commit, by a thread of its own.
//!
//! A name costs ext4 some 12 us, and names in one directory are made one after the other: for thousands of images that
//! is worth a processor of its own, while others are still being written. Nobody takes the directory for a set
//! before it has an inventory, which gets its name last of all.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    named: Arc<Mutex<BTreeSet<String>>>,
    thread: Option<JoinHandle<()>>,
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
        let named = Arc::<Mutex<BTreeSet<_>>>::default();
        let thread = std::thread::Builder::new().name("names".into());
        let (shared, dir, all) = (Arc::clone(shared), dir.clone(), Arc::clone(&named));
        let thread = thread.spawn(move || give(&shared, &dir, &names, &all));
        let naming = Self {
            named,
            thread: Some(thread.ok()?),
        };
        Some((naming, finished))
    }

    /// Waits for the thread, which nobody sends names any more; the files that have their names.
    pub(crate) fn end(&mut self) -> BTreeSet<String> {
        if let Some(thread) = self.thread.take() {
            // What it could not name the commit names, or says why not.
            let _ = thread.join();
        }
        lock(&self.named).clone()
    }
}

fn give(shared: &Shared, dir: &Dir, names: &Receiver<String>, all: &Mutex<BTreeSet<String>>) {
    for name in names {
        if name != INVENTORY && shared.name_early(&name, dir) {
            lock(all).insert(name);
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section is a single step.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
