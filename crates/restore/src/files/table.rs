//! Descriptor tables: which descriptor is which open file.

use std::collections::{BTreeMap, BTreeSet};

use gelid_image::messages::{FdTypes, FdinfoEntry};
use gelid_image::{Dir, ImageKind};

use super::{Description, Error};

/// Numbers that no kernel gives out; `fs.nr_open` ends before.
pub(super) const FD_LIMIT: i32 = 1 << 30;

/// One descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedFd {
    /// Its number.
    pub fd: i32,
    /// Id of the open file.
    pub id: u32,
    /// Whether `execve(2)` closes it.
    pub cloexec: bool,
}

/// A table as read.
pub(super) struct Table {
    id: u32,
    slots: Vec<(PlannedFd, FdTypes)>,
}

/// Reads the tables with these ids.
pub(super) fn read_all(dir: &Dir, ids: &[u32]) -> Result<Vec<Table>, Error> {
    let ids: BTreeSet<u32> = ids.iter().copied().collect();
    ids.into_iter().map(|id| read(dir, id)).collect()
}

fn read(dir: &Dir, id: u32) -> Result<Table, Error> {
    // A task without descriptors has no image.
    let entries: Vec<FdinfoEntry> = dir.read_all(ImageKind::Fdinfo, id)?;
    let mut seen = BTreeSet::new();
    let mut slots = Vec::with_capacity(entries.len());
    for entry in entries {
        let image = || format!("fdinfo-{id}.img");
        let Some(fd) = i32::try_from(entry.fd).ok().filter(|fd| *fd < FD_LIMIT) else {
            let rule = "no descriptor has such a number";
            return Err(Error::invalid(image(), "fd", entry.fd, rule));
        };
        if !seen.insert(fd) {
            return Err(Error::Duplicate {
                image: image(),
                what: "descriptor",
                id: entry.fd.into(),
            });
        }
        let slot = PlannedFd {
            fd,
            id: entry.id,
            cloexec: entry.flags & 1 != 0,
        };
        slots.push((slot, entry.r#type()));
    }
    Ok(Table { id, slots })
}

/// The first table and descriptor that needs each file.
pub(super) fn first_users(tables: &[Table]) -> BTreeMap<u32, (u32, i32)> {
    let mut users = BTreeMap::new();
    for table in tables {
        for (slot, _) in &table.slots {
            users.entry(slot.id).or_insert((table.id, slot.fd));
        }
    }
    users
}

/// Compares the tables with the files they refer to.
pub(super) fn check(
    tables: Vec<Table>,
    kinds: &BTreeMap<u32, FdTypes>,
    descriptions: &BTreeMap<u32, Description>,
) -> Result<BTreeMap<u32, Vec<PlannedFd>>, Error> {
    let mut checked = BTreeMap::new();
    for table in tables {
        for (slot, kind) in &table.slots {
            let by = || format!("descriptor {} of table {}", slot.fd, table.id);
            if !descriptions.contains_key(&slot.id) {
                return Err(Error::Missing {
                    by: by(),
                    what: "file",
                    id: slot.id.into(),
                    image: "files.img",
                });
            }
            if kinds.get(&slot.id) != Some(kind) {
                let rule = "the file of that id is of another kind";
                return Err(Error::invalid(by(), "type", format!("{kind:?}"), rule));
            }
        }
        let slots = table.slots.into_iter().map(|(slot, _)| slot).collect();
        checked.insert(table.id, slots);
    }
    Ok(checked)
}
