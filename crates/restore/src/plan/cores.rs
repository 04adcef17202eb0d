//! `core` images of all tasks and threads, read by two threads where there are many.

use std::collections::HashMap;

use gelid_image::messages::CoreEntry;
use gelid_image::{Dir, ImageKind, ReadError};

use super::tree::Node;

/// Fewer than these are read when they are needed.
const WORTH_SHARING: usize = 64;

/// Those that have been read and not yet been taken.
#[derive(Debug)]
pub(super) struct Cores {
    dir: Dir,
    read: HashMap<i32, CoreEntry>,
}

impl Cores {
    /// Reads those of a tree in advance, if there are many.
    pub(super) fn of(nodes: &[Node], dir: &Dir) -> Result<Self, ReadError> {
        let mut all: Vec<i32> = nodes.iter().map(|node| node.pid).collect();
        all.extend(nodes.iter().flat_map(|node| node.threads.iter().copied()));
        all.sort_unstable();
        all.dedup();
        let mut cores = Self {
            dir: dir.clone(),
            read: HashMap::new(),
        };
        if all.len() < WORTH_SHARING {
            return Ok(cores);
        }
        let (one, other) = all.split_at(all.len() / 2);
        std::thread::scope(|scope| {
            let beside = std::thread::Builder::new().name("cores".into());
            // What nobody else reads is read when it is needed.
            let beside = beside.spawn_scoped(scope, || read(dir, other)).ok();
            cores.read.extend(read(dir, one)?);
            if let Some(Ok(beside)) = beside.map(|beside| beside.join()) {
                cores.read.extend(beside?);
            }
            Ok(cores)
        })
    }

    /// That of a task or thread.
    pub(super) fn take(&mut self, number: i32) -> Result<CoreEntry, ReadError> {
        match self.read.remove(&number) {
            Some(core) => Ok(core),
            None => self.dir.read_one(ImageKind::Core, number),
        }
    }
}

fn read(dir: &Dir, numbers: &[i32]) -> Result<Vec<(i32, CoreEntry)>, ReadError> {
    let read = |number: &i32| Ok((*number, dir.read_one(ImageKind::Core, *number)?));
    numbers.iter().map(read).collect()
}
