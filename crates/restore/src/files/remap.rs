//! Files whose path cannot be used as it is: `remap-fpath.img`.

use std::collections::BTreeMap;

use gelid_image::messages::{RemapFilePathEntry, RemapType};
use gelid_image::{Dir, ImageKind};

use super::{Error, Name};

/// Marks ghosts in records that do not say what they are.
const OLD_GHOST: u32 = 1 << 31;

/// What stands in for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remap {
    /// The file still has this name, which the dump gave it.
    Link(Name),
    /// The file had no name; its contents are in the images, under this id.
    Ghost(u32),
    /// It belongs to this process, which has ended.
    Process(u32),
}

/// What a record refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A file id.
    Link(u32),
    /// A ghost id.
    Ghost(u32),
    /// A process that has ended.
    Process(u32),
}

impl Target {
    /// The file whose path is used.
    pub(super) fn file(&self) -> Option<u32> {
        match self {
            Target::Link(id) => Some(*id),
            _ => None,
        }
    }
}

/// Reads the records, by id of the file that is remapped.
pub(super) fn read(dir: &Dir) -> Result<BTreeMap<u32, Target>, Error> {
    let mut remaps = BTreeMap::new();
    for entry in dir.read_all::<RemapFilePathEntry>(ImageKind::RemapFpath, ())? {
        let id = entry.remap_id;
        let target = match entry.remap_type.map(RemapType::try_from) {
            Some(Ok(RemapType::Linked)) => Target::Link(id),
            Some(Ok(RemapType::Ghost)) => Target::Ghost(id),
            Some(Ok(RemapType::Procfs)) => Target::Process(id),
            None if id & OLD_GHOST != 0 => Target::Ghost(id & !OLD_GHOST),
            None => Target::Link(id),
            Some(Err(_)) => {
                let object = format!("remap-fpath.img: file {}", entry.orig_id);
                let found = entry.remap_type.unwrap_or_default();
                let rule = "a path is remapped to a link, a ghost or a process (0 to 2)";
                return Err(Error::invalid(object, "remap_type", found, rule));
            }
        };
        if remaps.insert(entry.orig_id, target).is_some() {
            return Err(Error::Duplicate {
                image: "remap-fpath.img".into(),
                what: "file",
                id: entry.orig_id.into(),
            });
        }
    }
    Ok(remaps)
}
