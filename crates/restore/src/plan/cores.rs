//! `core` images of all tasks and threads, read by two threads where there are many.

use std::collections::HashMap;

use gelid_image::messages::CoreEntry;
use gelid_image::{Dir, ImageKind, ReadError};

use super::tree::Node;

/// Those that have been read and not yet been taken.
#[derive(Debug)]
pub(super) struct Cores {
    dir: Dir,
    read: HashMap<i32, Box<CoreEntry>>,
}

impl Cores {
    /// Reads those of a tree in advance, as far as they can be read.
    pub(super) fn of(nodes: &[Node], dir: &Dir) -> Self {
        let mut all: Vec<i32> = nodes.iter().map(|node| node.pid).collect();
        all.extend(nodes.iter().flat_map(|node| node.threads.iter().copied()));
        all.sort_unstable();
        all.dedup();
        let read = gelid_image::shared_out("cores", &all, |part| {
            let mut read = Vec::with_capacity(part.len());
            for number in part {
                if let Ok(core) = dir.read_one(ImageKind::Core, *number) {
                    read.push((*number, Box::new(core)));
                }
            }
            read
        });
        let mut cores = HashMap::with_capacity(all.len());
        cores.extend(read.into_iter().flatten());
        Self {
            dir: dir.clone(),
            read: cores,
        }
    }

    /// That of a task or thread.
    ///
    /// # Errors
    ///
    /// It could not be read, now or in advance.
    pub(super) fn take(&mut self, number: i32) -> Result<Box<CoreEntry>, ReadError> {
        match self.read.remove(&number) {
            Some(core) => Ok(core),
            None => self.dir.read_one(ImageKind::Core, number).map(Box::new),
        }
    }
}
