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
    let Some(mut reader) = dir.reader_opt(ImageKind::Fdinfo, id)? else {
        let slots = Vec::new();
        return Ok(Table { id, slots });
    };
    let entries = reader.decoded("table", |entry: FdinfoEntry| {
        let slot = PlannedFd {
            fd: entry.fd.cast_signed(),
            id: entry.id,
            cloexec: entry.flags & 1 != 0,
        };
        (slot, entry.r#type())
    });
    let slots: Vec<(PlannedFd, FdTypes)> = entries.collect::<Result<_, _>>()?;
    check_numbers(id, &slots)?;
    Ok(Table { id, slots })
}

/// Looks whether all numbers can be, and are there once. Mostly they ascend.
fn check_numbers(id: u32, slots: &[(PlannedFd, FdTypes)]) -> Result<(), Error> {
    let image = || format!("fdinfo-{id}.img");
    let ascending = slots.is_sorted_by(|(one, _), (next, _)| one.fd < next.fd);
    let mut seen = BTreeSet::new();
    for (slot, _) in slots {
        if !(0..FD_LIMIT).contains(&slot.fd) {
            let rule = "no descriptor has such a number";
            let found = slot.fd.cast_unsigned();
            return Err(Error::invalid(image(), "fd", found, rule));
        }
        if !ascending && !seen.insert(slot.fd) {
            return Err(Error::Duplicate {
                image: image(),
                what: "descriptor",
                id: slot.fd.cast_unsigned().into(),
            });
        }
    }
    Ok(())
}

/// The first table and descriptor that needs a file.
pub(super) fn first_user(tables: &[Table], file: u32) -> Option<(u32, i32)> {
    tables.iter().find_map(|table| {
        let mut slots = table.slots.iter();
        let (slot, _) = slots.find(|(slot, _)| slot.id == file)?;
        Some((table.id, slot.fd))
    })
}

/// Compares the tables with the files they refer to.
pub(super) fn check(
    tables: Vec<Table>,
    kinds: &BTreeMap<u32, FdTypes>,
    descriptions: &BTreeMap<u32, Description>,
) -> Result<BTreeMap<u32, Vec<PlannedFd>>, Error> {
    let mut checked = BTreeMap::new();
    let mut present = Present::new(kinds, descriptions);
    for table in tables {
        for (slot, kind) in &table.slots {
            if present.kind(slot.id) == Some(*kind) {
                continue;
            }
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

/// Files by ascending ids, for those who mostly ask for one after the other.
struct Present {
    files: Vec<(u32, FdTypes)>,
    next: usize,
}

impl Present {
    fn new(kinds: &BTreeMap<u32, FdTypes>, descriptions: &BTreeMap<u32, Description>) -> Self {
        let mut kinds = kinds.iter();
        let of = |id: &u32| {
            let (id, kind) = kinds.find(|(other, _)| *other == id)?;
            Some((*id, *kind))
        };
        Self {
            files: descriptions.keys().filter_map(of).collect(),
            next: 0,
        }
    }

    /// The kind of a file, if there is one.
    fn kind(&mut self, id: u32) -> Option<FdTypes> {
        let at = match self.files.get(self.next) {
            Some((next, _)) if *next == id => self.next,
            _ => self.files.binary_search_by_key(&id, |(id, _)| *id).ok()?,
        };
        self.next = at + 1;
        Some(self.files[at].1)
    }
}
