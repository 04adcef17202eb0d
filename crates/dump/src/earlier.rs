//! Earlier images of the tree, which pages that are the same there are left to. Section 10.1 of the format.
//!
//! Their pagemaps are read, and their files of pages opened, before anything is frozen.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use gelid_image::{ImageKind, Key};
use gelid_pages::{Owner, Sets};
use gelid_sys::Pid;
use gelid_sys::nofile::Raised;

use crate::foresight::OTHERS;
use crate::survey::Task;
use crate::{Error, Options};

/// What earlier images have, by the pids in them.
pub(crate) struct Earlier {
    /// Where they are, relative to the images to come.
    pub(crate) path: PathBuf,
    /// Name of the dump that made the last of them.
    pub(crate) run_id: Option<String>,
    pages: HashMap<i32, Arc<gelid_pages::Earlier>>,
    _limit: Raised,
}

impl Earlier {
    /// Finds the pages of all tasks; `None` if there are to be no earlier images.
    pub(crate) fn read(options: &Options) -> Result<Option<Self>, Error> {
        let Some(path) = &options.earlier else {
            return Ok(None);
        };
        let mut sets = Sets::before(&options.images, path)?;
        let names = sets.dir().names().map_err(|source| Error::EarlierImages {
            path: path.clone(),
            source,
        })?;
        let pids: Vec<i32> = names.iter().filter_map(|name| pid(name)).collect();
        let maps = pids.into_iter().map(|pid| {
            let owner = Owner::Task(pid);
            Ok((owner, pid, sets.whole_pagemap(owner)?))
        });
        let maps: Vec<_> = maps.collect::<Result<_, Error>>()?;
        let files: usize = maps.iter().map(|(.., pagemap)| pagemap.parts.len()).sum();
        let limit = Raised::to(files as u64 + OTHERS);
        let mut pages = HashMap::new();
        for (owner, pid, pagemap) in maps {
            // What is raw is for CRIU as well.
            if !options.pages.format.is_packed() && sets.is_packed(&pagemap) {
                return Err(Error::EarlierPacked { path: path.clone() });
            }
            let reader = sets.open(owner, &pagemap)?;
            let earlier = gelid_pages::Earlier::new(reader, pagemap.placements);
            pages.insert(
                pid,
                Arc::new(earlier.map_err(gelid_pages::StoreError::from)?),
            );
        }
        Ok(Some(Self {
            path: path.clone(),
            run_id: sets.run_id().map(str::to_owned),
            pages,
            _limit: limit,
        }))
    }

    /// What there is of the tasks that are dumped now.
    pub(crate) fn of(&self, tasks: &[Task]) -> HashMap<Pid, Arc<gelid_pages::Earlier>> {
        let found = tasks.iter().filter_map(|task| {
            let pages = self.pages.get(&task.number())?;
            Some((task.living, Arc::clone(pages)))
        });
        found.collect()
    }
}

/// Whose pagemap a file is.
fn pid(name: &str) -> Option<i32> {
    match ImageKind::from_file_name(name)? {
        (ImageKind::Pagemap, Key::Number(pid)) => i32::try_from(pid).ok(),
        _ => None,
    }
}
