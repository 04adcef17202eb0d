//! Mount namespaces: what `mountpoints-*.img` say, checked, in the order in which it is made. Section 20 of the format.
//!
//! **Model.** A *file system* is there once, whatever its [origin](Origin): the root or a path that the restorer gives,
//! or it is made anew. A mount is a clone of a part of one. All are put together private; last, mounts become members of
//! their [groups](Group), so that nothing is told to anybody while the tree grows.

mod automount;
mod filesystem;
mod group;
mod options;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use gelid_image::messages::MntEntry;
use gelid_image::{Dir, ImageKind, manifest};
use gelid_sys::mount::attributes::Attributes;

use super::user::Users;
use crate::files::Name;
use crate::plan::PlanError;

pub(crate) use automount::Automount;
pub(crate) use filesystem::{Filesystem, New, Origin};
pub(crate) use group::{Group, Kinship};
pub use options::MountOptions;

/// More mounts than a tree has; ten times what the kernel lets a namespace have.
const MOUNTS: usize = 1_000_000;

/// What the kernel puts behind the path of what was removed.
const DELETED: &[u8] = b"//deleted";

/// All mounts of a tree.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// The namespaces, that of the root task first.
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) filesystems: Vec<Filesystem>,
    /// Parents before children; of two children of a mount the one with the longer path first, as the other may cover it.
    pub(crate) mounts: Vec<Mount>,
    /// Masters before slaves.
    pub(crate) groups: Vec<Group>,
    /// The namespace of each mount, by the number it had.
    by_id: BTreeMap<u32, usize>,
}

/// A mount namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Namespace {
    /// Its number in the images.
    pub(crate) id: u32,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number at the dump.
    pub(crate) id: u32,
    /// Index of the namespace.
    pub(crate) namespace: usize,
    /// Index of the mount it is on; `None` for the root of a namespace.
    pub(crate) parent: Option<usize>,
    /// Where it is, for messages.
    pub(crate) point: Name,
    /// Where it is on its parent; empty at its root.
    pub(crate) at: Vec<u8>,
    /// Index of the file system.
    pub(crate) filesystem: usize,
    /// What of the file system's origin is mounted; empty for all of it.
    pub(crate) root: Vec<u8>,
    pub(crate) attributes: Attributes,
    pub(crate) unbindable: bool,
    /// Index of the group.
    pub(crate) group: Option<usize>,
    /// What is mounted has been removed.
    pub(crate) deleted: bool,
    /// Its place in the order in which the kernel is to list them.
    pub(crate) rank: usize,
    /// Who owners of files are, as it shows them, if they are others.
    pub(crate) id_map: Option<Users>,
}

/// A record that is known to name its place.
#[derive(Debug)]
struct Checked {
    entry: MntEntry,
    namespace: usize,
    point: Name,
    root: Name,
    deleted: bool,
    rank: usize,
}

impl Mounts {
    /// Reads the namespaces with these numbers, that of the root task first.
    pub(crate) fn read(dir: &Dir, ids: &[u32], options: &MountOptions) -> Result<Self, PlanError> {
        let mut records = Vec::new();
        for id in ids {
            let entries: Vec<MntEntry> = dir.read_all(ImageKind::Mountpoints, *id)?;
            records.push((*id, entries));
        }
        let mut plan = Self::plan(records, options)?;
        for filesystem in &mut plan.filesystems {
            automount::read(dir, filesystem)?;
        }
        automount::make_room(&mut plan);
        // CRIU has the roots of cgroups as the cgroup namespace of the tree shows them, gelid as the machine does.
        if matches!(manifest::read(dir), Ok(None)) {
            plan.filesystems.iter_mut().for_each(Filesystem::be_within);
        }
        Ok(plan)
    }

    /// Plans from the records of each namespace.
    pub(crate) fn plan(
        records: Vec<(u32, Vec<MntEntry>)>,
        options: &MountOptions,
    ) -> Result<Self, PlanError> {
        let namespaces = records
            .iter()
            .map(|(id, _)| Namespace { id: *id })
            .collect();
        let mut checked = BTreeMap::new();
        for (namespace, (id, entries)) in records.into_iter().enumerate() {
            // The kernel lists them the other way round.
            for entry in entries.into_iter().rev() {
                let number = entry.mnt_id;
                if checked.len() >= MOUNTS {
                    return Err(wrong(&entry, "there are too many mounts"));
                }
                let twice = wrong(&entry, "two mounts have this number");
                if checked
                    .insert(number, check(entry, (namespace, checked.len()))?)
                    .is_some()
                {
                    return Err(twice);
                }
            }
            if !checked.values().any(|mount| mount.namespace == namespace) {
                return Err(PlanError::Mount {
                    id: 0,
                    point: format!("/ of namespace {id}"),
                    what: "the namespace has no mounts".into(),
                });
            }
        }
        let order = order(&checked)?;
        let mut plan = Self {
            namespaces,
            by_id: checked
                .iter()
                .map(|(id, mount)| (*id, mount.namespace))
                .collect(),
            ..Self::default()
        };
        let sources = filesystem::plan(&order, &checked, options, &mut plan.filesystems)?;
        let groups = group::plan(&order, &checked, &sources, &mut plan.groups)?;
        let index: BTreeMap<u32, usize> = order.iter().copied().zip(0..).collect();
        for (id, source) in order.iter().zip(sources) {
            let mount = &checked[id];
            let parent = index.get(&mount.entry.parent_mnt_id).copied();
            let parent = parent.filter(|_| !mount.is_root(&checked));
            let base = parent.map(|parent| &plan.mounts[parent].point);
            plan.mounts.push(Mount {
                id: *id,
                namespace: mount.namespace,
                parent,
                at: match base {
                    Some(base) => below(base, &mount.point).unwrap_or_default().to_vec(),
                    None => Vec::new(),
                },
                point: mount.point.clone(),
                filesystem: source.filesystem,
                root: source.root,
                attributes: attributes(mount.entry.flags),
                unbindable: mount.entry.flags & MS_UNBINDABLE != 0,
                group: groups.get(id).copied(),
                deleted: mount.deleted,
                rank: mount.rank,
                id_map: match &mount.entry.id_map {
                    None => None,
                    Some(map) => {
                        let what = "no mount shows such owners of files";
                        Some(Users::check(map).ok_or_else(|| wrong(&mount.entry, what))?)
                    }
                },
            });
        }
        Ok(plan)
    }

    /// The index of the namespace of each mount, by its number.
    pub(crate) fn by_mount(&self) -> BTreeMap<i32, usize> {
        let number = |(id, at): (&u32, &usize)| Some((i32::try_from(*id).ok()?, *at));
        self.by_id.iter().filter_map(number).collect()
    }

    /// The plan, a line for each mount.
    pub(crate) fn describe(&self) -> impl Iterator<Item = String> {
        self.mounts.iter().map(|mount| {
            let origin = &self.filesystems[mount.filesystem].origin;
            let root = String::from_utf8_lossy(&mount.root);
            let namespace = self.namespaces[mount.namespace].id;
            format!(
                "namespace {namespace}: mount {} from {origin} /{root}",
                mount.point
            )
        })
    }
}

impl Checked {
    /// Whether it is the root of its namespace: its parent is not among the mounts, or is in another namespace.
    fn is_root(&self, all: &BTreeMap<u32, Checked>) -> bool {
        let parent = all.get(&self.entry.parent_mnt_id);
        self.entry.parent_mnt_id == self.entry.mnt_id
            || parent.is_none_or(|parent| parent.namespace != self.namespace)
    }
}

/// Checks a record by itself.
fn check(entry: MntEntry, (namespace, rank): (usize, usize)) -> Result<Checked, PlanError> {
    if entry.with_plugin == Some(true) {
        return Err(wrong(&entry, "a plugin is to mount it, and there are none"));
    }
    let point = Name::new(&entry.mountpoint).map_err(|what| wrong(&entry, what))?;
    let keyed = entry.ext_mount == Some(true);
    let root = match keyed {
        // The key stands there.
        true => &b"/"[..],
        false => entry.root.as_slice(),
    };
    let stripped = root.strip_suffix(DELETED);
    let deleted = entry.deleted == Some(true) || stripped.is_some();
    let root = Name::new(stripped.unwrap_or(root)).map_err(|what| wrong(&entry, what))?;
    Ok(Checked {
        entry,
        namespace,
        point,
        root,
        deleted,
        rank,
    })
}

/// Numbers of all mounts in the order in which they are made.
fn order(all: &BTreeMap<u32, Checked>) -> Result<Vec<u32>, PlanError> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut roots: BTreeMap<usize, u32> = BTreeMap::new();
    for (id, mount) in all {
        if !mount.is_root(all) {
            let parent = &all[&mount.entry.parent_mnt_id];
            if below(&parent.point, &mount.point).is_none() {
                return Err(wrong(&mount.entry, "it is not below the mount it is on"));
            }
            children
                .entry(mount.entry.parent_mnt_id)
                .or_default()
                .push(*id);
        } else if roots.insert(mount.namespace, *id).is_some() {
            return Err(wrong(&mount.entry, "its namespace has another root"));
        } else if !mount.point.relative_to_root().is_empty() {
            return Err(wrong(
                &mount.entry,
                "it is the root of its namespace, but not at /",
            ));
        }
    }
    for siblings in children.values_mut() {
        let length = |id: &u32| all[id].point.relative_to_root().len();
        siblings.sort_by_key(|id| std::cmp::Reverse((length(id), &all[id].point)));
        let same = siblings
            .windows(2)
            .find(|two| all[&two[0]].point == all[&two[1]].point);
        if let Some(two) = same {
            return Err(wrong(
                &all[&two[0]].entry,
                "two mounts are at the same place",
            ));
        }
    }
    let mut order = Vec::with_capacity(all.len());
    let mut waiting: Vec<u32> = roots.into_values().rev().collect();
    while let Some(id) = waiting.pop() {
        order.push(id);
        waiting.extend(children.remove(&id).unwrap_or_default().into_iter().rev());
    }
    if order.len() < all.len() {
        let reached: BTreeSet<&u32> = order.iter().collect();
        let lost = all.iter().find(|(id, _)| !reached.contains(id));
        if let Some((_, lost)) = lost {
            return Err(wrong(&lost.entry, "it is mounted on itself"));
        }
    }
    Ok(order)
}

/// The rest of a path below another one; empty if it is the same.
fn below<'p>(base: &Name, path: &'p Name) -> Option<&'p [u8]> {
    let (base, path) = (base.relative_to_root(), path.relative_to_root());
    let rest = path.strip_prefix(base)?;
    match (base, rest) {
        (b"", rest) | (_, rest @ b"") => Some(rest),
        (_, rest) => rest.strip_prefix(b"/"),
    }
}

const MS_UNBINDABLE: u32 = 0x2_0000;
const MS_RELATIME: u32 = 0x20_0000;

fn attributes(flags: u32) -> Attributes {
    let known = [
        (0x1, Attributes::READ_ONLY),
        (0x2, Attributes::NO_SUID),
        (0x4, Attributes::NO_DEVICES),
        (0x8, Attributes::NO_EXEC),
        (0x100, Attributes::NO_SYMLINKS),
        (0x400, Attributes::NO_ATIME),
        (0x800, Attributes::NO_DIR_ATIME),
    ];
    let set = known.into_iter().filter(|(bit, _)| flags & bit != 0);
    let set = set.fold(Attributes::empty(), |all, (_, one)| all | one);
    match flags & MS_RELATIME != 0 || set.contains(Attributes::NO_ATIME) {
        true => set,
        false => set | Attributes::STRICT_ATIME,
    }
}

fn wrong(entry: &MntEntry, what: impl Into<String>) -> PlanError {
    PlanError::Mount {
        id: entry.mnt_id,
        point: entry.mountpoint.escape_ascii().to_string(),
        what: what.into(),
    }
}
