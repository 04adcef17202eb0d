//! Cgroups of threads: what `cgroup.img` says, checked. Nothing in it is trusted to be a path or a property.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use gelid_image::messages::{
    CgControllerEntry, CgSetEntry, CgroupDirEntry, CgroupEntry, CgroupPerms, CgroupPropEntry,
    CoreEntry, InventoryEntry,
};
use gelid_image::{Dir, ImageKind};

use gelid_sys::proc::ns::Kind;

use super::{Life, Plan, PlanError};

/// More groups than a tree has.
const GROUPS: usize = 1 << 16;
/// More than a hierarchy nests.
const DEPTH: usize = 128;

/// What is done with groups that are there, or are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ManageCgroups {
    /// Tasks stay in the groups of the restore.
    Ignore,
    /// Groups must be there, and are left as they are.
    None,
    /// Groups must be there, and get their properties.
    Props,
    /// Groups that are missing are made; others get their owners only.
    #[default]
    Soft,
    /// Groups that are missing are made; all get their properties.
    Full,
    /// All groups are made; none may be there.
    Strict,
}

/// What the caller says about cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupOptions {
    /// What is done with groups.
    pub manage: ManageCgroups,
    /// Where groups go: the hierarchy they are in, or any, and the path of their new root.
    pub roots: Vec<(Option<String>, String)>,
    /// A folder where hierarchies are mounted.
    pub yard: Option<PathBuf>,
}

/// Groups, and who is in them.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    pub(crate) hierarchies: Vec<Hierarchy>,
    /// Path of the group in each hierarchy, by the number of the set. The set of the dumper is not among them;
    /// [`BEGINNING`] may be.
    pub(crate) sets: BTreeMap<u32, BTreeMap<String, Vec<u8>>>,
    /// Sets of threads that are in other ones than the dumper was, by thread.
    pub(crate) threads: HashMap<i32, u32>,
    /// Numbers of the sets where cgroup namespaces of other tasks begin, by the numbers of these.
    pub(crate) beginnings: BTreeMap<u32, u32>,
}

/// The number of the set where the tree's own cgroup namespace begins, if it has one.
pub(crate) const BEGINNING: u32 = 0;

/// The groups of a hierarchy.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    /// As `/proc/PID/cgroup` calls it.
    pub(crate) name: String,
    /// Parents come before what is below them.
    pub(crate) groups: Vec<Group>,
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group {
    /// From the root of the hierarchy, which has none.
    pub(crate) path: Vec<u8>,
    pub(crate) properties: Vec<Property>,
    pub(crate) permissions: Option<Permissions>,
}

/// A file of a group.
#[derive(Debug)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
    pub(crate) permissions: Option<Permissions>,
}

/// Owner and mode of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permissions {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

impl Plan {
    /// Adds the groups of the tree to the plan.
    ///
    /// # Errors
    ///
    /// [`PlanError::Cgroup`] for what makes no sense.
    pub fn read_cgroups(&mut self, dir: &Dir, options: &CgroupOptions) -> Result<(), PlanError> {
        if options.manage == ManageCgroups::Ignore {
            return Ok(());
        }
        let Some(entry) = dir.read_opt::<CgroupEntry>(ImageKind::Cgroup, ())? else {
            return Ok(());
        };
        let inventory: InventoryEntry = dir.read_one(ImageKind::Inventory, ())?;
        let Some(own) = inventory.root_cg_set else {
            return Ok(());
        };
        let root = match self.lives.first() {
            Some(Life::Alive(alive)) => alive.threads.first().and_then(|thread| thread.cg_set),
            _ => None,
        };
        let root = root.filter(|_| self.namespaces.root(Kind::Cgroup).is_some());
        let mut namespaces: BTreeMap<u32, u32> = BTreeMap::new();
        for (_, alive) in self.alive() {
            let set = alive.threads.first().and_then(|thread| thread.cg_set);
            for (kind, id) in &alive.further {
                if let (Kind::Cgroup, Some(id), Some(set)) = (kind, id, set) {
                    namespaces.entry(*id).or_insert(set);
                }
            }
        }
        let mut planned = read(&entry, root, &namespaces, options)?;
        for life in &self.lives {
            let Life::Alive(alive) = life else { continue };
            for thread in &alive.threads {
                let Some(set) = thread.cg_set.filter(|set| *set != own) else {
                    continue;
                };
                if !planned.sets.contains_key(&set) {
                    return Err(wrong("a thread is in a set that is not there", set));
                }
                planned.threads.insert(thread.tid, set);
            }
        }
        self.cgroups = planned;
        Ok(())
    }
}

/// By hierarchy, groups and where they go.
type Moves = HashMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

fn read(
    entry: &CgroupEntry,
    root: Option<u32>,
    namespaces: &BTreeMap<u32, u32>,
    options: &CgroupOptions,
) -> Result<Cgroups, PlanError> {
    let mut planned = Cgroups::default();
    let mut moves = Moves::new();
    let mut count = 0;
    for controller in &entry.controllers {
        let name = hierarchy(controller)?;
        let new = options.root(&name);
        let mut groups = Vec::new();
        for dir in &controller.dirs {
            let old = path(&dir.dir_name)?;
            let top = match new {
                None => old.clone(),
                Some(new) => path(new.as_bytes())?,
            };
            flatten(dir, top.clone(), DEPTH, &mut groups)?;
            moves.entry(name.clone()).or_default().push((old, top));
        }
        count += groups.len();
        if count > GROUPS {
            return Err(wrong("more groups than a tree has", count));
        }
        planned.hierarchies.push(Hierarchy { name, groups });
    }
    if let Some(set) = entry.sets.iter().find(|set| Some(set.id) == root) {
        let members = members(&beginning(set), &moves)?;
        planned.sets.insert(BEGINNING, members);
    }
    for set in &entry.sets {
        let members = members(set, &moves)?;
        if planned.sets.insert(set.id, members).is_some() {
            return Err(wrong("a set occurs twice", set.id));
        }
    }
    let mut unused = (1..).filter(|id| !entry.sets.iter().any(|set| set.id == *id));
    for (namespace, of) in namespaces {
        if let Some(set) = entry.sets.iter().find(|set| set.id == *of)
            && let Some(id) = unused.next()
        {
            planned.sets.insert(id, members(&beginning(set), &moves)?);
            planned.beginnings.insert(*namespace, id);
        }
    }
    Ok(planned)
}

/// Where the namespace begins of who is in a set.
fn beginning(set: &CgSetEntry) -> CgSetEntry {
    let mut beginning = set.clone();
    beginning.ctls.retain(|member| member.cgns_prefix.is_some());
    for member in &mut beginning.ctls {
        let prefix = member.cgns_prefix.unwrap_or_default();
        member.path.truncate(prefix as usize);
    }
    beginning
}

/// The name of a hierarchy, which becomes options of a mount.
fn hierarchy(controller: &CgControllerEntry) -> Result<String, PlanError> {
    let fits = |name: &str| {
        let plain = name.strip_prefix("name=").unwrap_or(name);
        let byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        !plain.is_empty() && plain.len() < 64 && plain.bytes().all(byte)
    };
    let names = &controller.cnames;
    let is_second = names.len() == 1 && names[0].is_empty();
    if !is_second && (names.is_empty() || !names.iter().all(|name| fits(name))) {
        return Err(wrong("a hierarchy has an impossible name", names.join(",")));
    }
    Ok(names.join(","))
}

fn members(set: &CgSetEntry, moves: &Moves) -> Result<BTreeMap<String, Vec<u8>>, PlanError> {
    let mut members = BTreeMap::new();
    for member in &set.ctls {
        let mut to = path(&member.path)?;
        let moves = moves.get(&member.name).map_or(&[][..], Vec::as_slice);
        // The longest that fits.
        let fitting = moves
            .iter()
            .filter_map(|(old, new)| Some((old.len(), new, below(&to, old)?)));
        if let Some((_, new, rest)) = fitting.max_by_key(|(len, ..)| *len) {
            to = join(new, rest);
        }
        members.insert(member.name.clone(), to);
    }
    Ok(members)
}

/// What is left of a path below another.
fn below<'p>(path: &'p [u8], top: &[u8]) -> Option<&'p [u8]> {
    if top.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(top)? {
        b"" => Some(b""),
        rest => rest.strip_prefix(b"/"),
    }
}

fn join(top: &[u8], rest: &[u8]) -> Vec<u8> {
    match (top, rest) {
        (top, b"") => top.to_vec(),
        (b"", rest) => rest.to_vec(),
        (top, rest) => [top, b"/", rest].concat(),
    }
}

fn flatten(
    dir: &CgroupDirEntry,
    at: Vec<u8>,
    depth: usize,
    groups: &mut Vec<Group>,
) -> Result<(), PlanError> {
    if depth == 0 || groups.len() > GROUPS {
        return Err(wrong("groups are nested too deeply", depth));
    }
    let properties = dir.properties.iter().map(property);
    groups.push(Group {
        properties: properties.collect::<Result<_, _>>()?,
        permissions: dir.dir_perms.as_ref().map(permissions),
        path: at.clone(),
    });
    for child in &dir.children {
        let name = path(&child.dir_name)?;
        if name.is_empty() {
            return Err(wrong("a group has no name", ""));
        }
        flatten(child, join(&at, &name), depth - 1, groups)?;
    }
    Ok(())
}

fn property(entry: &CgroupPropEntry) -> Result<Property, PlanError> {
    let name = &entry.name;
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_.".contains(&byte);
    // What these do is nothing to be restored.
    let acts = matches!(
        &**name,
        "cgroup.kill" | "release_agent" | "cgroup.event_control"
    );
    if name.is_empty() || !name.bytes().all(byte) || name.contains("..") || acts {
        return Err(wrong("a property has an impossible name", name));
    }
    Ok(Property {
        name: name.clone(),
        value: entry.value.clone(),
        permissions: entry.perms.as_ref().map(permissions),
    })
}

fn permissions(entry: &CgroupPerms) -> Permissions {
    Permissions {
        uid: entry.uid,
        gid: entry.gid,
        mode: entry.mode & 0o7777,
    }
}

/// A path without the slashes at its ends.
fn path(path: &[u8]) -> Result<Vec<u8>, PlanError> {
    let parts = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty());
    let parts: Vec<&[u8]> = parts.collect();
    let wrong_part = |part: &&[u8]| matches!(*part, b"." | b"..") || part.contains(&0);
    if parts.iter().any(wrong_part) || path.len() > 4095 {
        return Err(wrong("a path leads elsewhere", path.escape_ascii()));
    }
    Ok(parts.join(&b'/'))
}

fn wrong(what: &'static str, found: impl ToString) -> PlanError {
    PlanError::Cgroup {
        what,
        found: found.to_string(),
    }
}

impl CgroupOptions {
    /// The new root of a hierarchy.
    fn root(&self, name: &str) -> Option<&str> {
        let is_it = |own: &str| own == name || name.split(',').any(|part| part == own);
        let mut roots = self.roots.iter().rev();
        let own = roots
            .clone()
            .find(|(controller, _)| controller.as_deref().is_some_and(is_it));
        let found = own.or_else(|| roots.find(|(controller, _)| controller.is_none()));
        found.map(|(_, path)| &**path)
    }
}

/// The set of cgroups of a thread; old images have it in the part of the process.
pub(super) fn set_of(core: &CoreEntry) -> Option<u32> {
    let thread = core.thread_core.as_ref().and_then(|thread| thread.cg_set);
    thread.or_else(|| core.tc.as_ref().and_then(|process| process.cg_set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_image::messages::CgMemberEntry;

    fn image() -> CgroupEntry {
        let child = CgroupDirEntry {
            dir_name: b"sub".to_vec(),
            ..CgroupDirEntry::default()
        };
        CgroupEntry {
            sets: vec![CgSetEntry {
                id: 2,
                ctls: vec![CgMemberEntry {
                    name: "name=x".into(),
                    path: b"/a/sub".to_vec(),
                    cgns_prefix: None,
                }],
            }],
            controllers: vec![CgControllerEntry {
                cnames: vec!["name=x".into()],
                dirs: vec![CgroupDirEntry {
                    dir_name: b"a".to_vec(),
                    children: vec![child],
                    properties: vec![CgroupPropEntry {
                        name: "pids.max".into(),
                        value: b"9".to_vec(),
                        perms: None,
                    }],
                    dir_perms: None,
                }],
                is_threaded: None,
            }],
        }
    }

    #[test]
    fn groups_go_to_their_new_root() {
        let planned = read(&image(), None, &BTreeMap::new(), &CgroupOptions::default()).unwrap();
        let paths = |planned: &Cgroups| -> Vec<Vec<u8>> {
            let groups = planned.hierarchies[0].groups.iter();
            groups.map(|group| group.path.clone()).collect()
        };
        assert_eq!(paths(&planned), [&b"a"[..], b"a/sub"]);
        assert_eq!(planned.sets[&2]["name=x"], b"a/sub");
        let options = CgroupOptions {
            roots: vec![(Some("name=x".into()), "/b/c/".into())],
            ..CgroupOptions::default()
        };
        let planned = read(&image(), None, &BTreeMap::new(), &options).unwrap();
        assert_eq!(paths(&planned), [&b"b/c"[..], b"b/c/sub"]);
        assert_eq!(planned.sets[&2]["name=x"], b"b/c/sub");
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        let options = CgroupOptions::default();
        type Change = fn(&mut CgroupEntry);
        let changes: [Change; 8] = [
            |image| image.sets[0].ctls[0].path = b"/../x".to_vec(),
            |image| image.sets.push(image.sets[0].clone()),
            |image| image.controllers[0].cnames = vec!["release_agent=/x".into()],
            |image| image.controllers[0].cnames = vec![],
            |image| image.controllers[0].dirs[0].dir_name = b"a/../..".to_vec(),
            |image| image.controllers[0].dirs[0].children[0].dir_name = b"".to_vec(),
            |image| image.controllers[0].dirs[0].properties[0].name = "../tasks".into(),
            |image| image.controllers[0].dirs[0].properties[0].name = "cgroup.kill".into(),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut image = image();
            change(&mut image);
            assert!(
                read(&image, None, &BTreeMap::new(), &options).is_err(),
                "{index}"
            );
        }
    }
}
