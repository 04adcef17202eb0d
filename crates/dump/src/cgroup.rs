//! Cgroups of threads: `cgroup.img`. Section 22.1 of the format.
//!
//! What is compared with is where the dumper stands itself: threads that stand there too are not moved by a restore.

mod properties;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use gelid_image::messages::{
    CgControllerEntry, CgMemberEntry, CgSetEntry, CgroupDirEntry, CgroupEntry, CgroupPerms,
    CgroupPropEntry, CoreEntry,
};
use gelid_image::{ImageKind, Staging};
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::ns::Kind;
use gelid_sys::{Errno, Pid, cgroup, proc};
use rustix::fs::AtFlags;

use crate::Error;
use crate::namespace::{Census, Instance};
use crate::survey::Task;
pub use properties::{BadProperties, Properties};

/// The set of the dumper.
pub(crate) const OWN: u32 = 1;
/// Groups below groups; deeper ones are not looked into.
const DEPTH: usize = 64;

/// What is recorded of cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Nothing.
    pub ignore: bool,
    /// Groups to record with all that is below them: the hierarchy they are in, or any, and their path.
    pub roots: Vec<(Option<String>, String)>,
    /// The only hierarchies to record, if there are any.
    pub controllers: Vec<String>,
    /// A folder where hierarchies are mounted.
    pub yard: Option<PathBuf>,
    /// What is recorded of groups beside the usual properties, or instead.
    pub properties: Properties,
}

/// Where a thread stands in all hierarchies, by their names.
type Set = BTreeMap<String, Vec<u8>>;

/// Where each thread of a tree stands. Most stand together: what the kernel says of them is taken apart once.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    sets: Vec<Set>,
    /// By thread, the index of its set.
    of: HashMap<Pid, usize>,
}

impl Standings {
    /// Looks at all threads, which stand still.
    pub(crate) fn look(options: &Cgroups, tasks: &[Task]) -> Result<Self, Error> {
        let mut found = Self::default();
        if options.ignore {
            return Ok(found);
        }
        let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
        for task in tasks.iter().filter(|task| task.live.is_some()) {
            let process = proc::task_dir(task.pid)?;
            for tid in &task.tids {
                let text = proc::cgroup::text(&process, *tid)?;
                let index = match known.get(&text) {
                    Some(index) => *index,
                    None => {
                        found.sets.push(read(&process.thread(*tid)?)?);
                        *known.entry(text).or_insert(found.sets.len() - 1)
                    }
                };
                found.of.insert(*tid, index);
            }
        }
        Ok(found)
    }
}

/// Tells the records of threads where these stand.
pub(crate) struct Groups<'a> {
    options: &'a Cgroups,
    standings: Standings,
    sets: Sets,
    /// Number of a standing in a cgroup namespace.
    numbers: HashMap<(Option<u32>, usize), u32>,
}

impl<'a> Groups<'a> {
    pub(crate) fn new(
        options: &'a Cgroups,
        census: &Census,
        standings: Standings,
    ) -> Result<Self, Error> {
        Ok(Self {
            options,
            standings,
            sets: Sets::own(census)?,
            numbers: HashMap::new(),
        })
    }

    /// Says in the record of a thread of a process where it stands.
    pub(crate) fn assign(
        &mut self,
        task: &Task,
        tid: Pid,
        core: &mut CoreEntry,
    ) -> Result<(), Error> {
        let set = match self.options.ignore {
            true => OWN,
            false => self.number(task, tid)?,
        };
        if let Some(thread) = &mut core.thread_core {
            thread.cg_set = Some(set);
        }
        Ok(())
    }

    fn number(&mut self, task: &Task, tid: Pid) -> Result<u32, Error> {
        let live = task.live.as_ref();
        let namespace = live.and_then(|live| live.ids.cgroup_ns_id);
        let namespace = namespace.filter(|id| self.sets.beginnings.contains_key(id));
        let standing = self.standings.of.get(&tid).copied();
        let gone = crate::core::Error::Gone { tid };
        let standing = standing.ok_or(gone)?;
        if let Some(number) = self.numbers.get(&(namespace, standing)) {
            return Ok(*number);
        }
        let number = self.sets.of(&self.standings.sets[standing], namespace)?;
        self.numbers.insert((namespace, standing), number);
        Ok(number)
    }

    /// Writes the image, if any thread stands elsewhere than the dumper.
    pub(crate) fn write(&self, staging: &Staging) -> Result<(), Error> {
        if self.sets.others.is_empty() {
            return Ok(());
        }
        let entry = self.sets.entry(self.options)?;
        Ok(staging.put(ImageKind::Cgroup, (), &entry)?)
    }
}

/// Combinations of groups.
struct Sets {
    own: Set,
    /// Where cgroup namespaces of the tree begin in each hierarchy, by their numbers.
    beginnings: BTreeMap<u32, Set>,
    /// With the cgroup namespace of who is in it. Their numbers begin behind that of the dumper's.
    others: Vec<(Option<u32>, Set)>,
    numbers: HashMap<(Option<u32>, Set), u32>,
}

impl Sets {
    fn own(census: &Census) -> Result<Self, Error> {
        let own = read(&proc::task_dir(rustix::process::getpid())?)?;
        let instances = census.of(Kind::Cgroup);
        let beginnings = instances.map(|instance| Ok((instance.id, beginnings(instance)?)));
        let beginnings: BTreeMap<u32, Set> = beginnings.collect::<Result<_, Error>>()?;
        // A task that is where the dumper is begins its namespace there, unless it is said otherwise.
        let same = beginnings
            .iter()
            .filter(|(_, beginning)| **beginning == own);
        let namespaces = same.map(|(id, _)| Some(*id)).chain([None]);
        let numbers = namespaces.map(|namespace| ((namespace, own.clone()), OWN));
        Ok(Self {
            numbers: numbers.collect(),
            own,
            beginnings,
            others: Vec::new(),
        })
    }

    /// The number of where a thread stands, which is in a cgroup namespace of the tree or in the dumper's.
    fn of(&mut self, set: &Set, namespace: Option<u32>) -> Result<u32, Error> {
        let set = (namespace, set.clone());
        if let Some(number) = self.numbers.get(&set) {
            return Ok(*number);
        }
        if let Some((name, path)) = set.1.iter().find(|(_, path)| path.starts_with(b"/..")) {
            return Err(Error::Cgroup {
                operation: "reach",
                hierarchy: name.clone(),
                path: String::from_utf8_lossy(path).into_owned(),
                errno: Errno::XDEV,
            });
        }
        let number = OWN + 1 + self.others.len() as u32;
        self.numbers.insert(set.clone(), number);
        self.others.push(set);
        Ok(number)
    }

    fn entry(&self, options: &Cgroups) -> Result<CgroupEntry, Error> {
        let sets = self
            .others
            .iter()
            .zip(OWN + 1..)
            .map(|((namespace, set), id)| {
                let beginning = namespace.and_then(|id| self.beginnings.get(&id));
                CgSetEntry {
                    id,
                    ctls: set.iter().map(|path| member(path, beginning)).collect(),
                }
            });
        let wanted = |name: &&String| {
            let only = &options.controllers;
            only.is_empty()
                || name
                    .split(',')
                    .any(|part| only.iter().any(|only| only == part))
        };
        let names: BTreeSet<&String> = self.others.iter().flat_map(|(_, set)| set.keys()).collect();
        let controllers = names.into_iter().filter(wanted);
        Ok(CgroupEntry {
            sets: sets.collect(),
            controllers: controllers
                .map(|name| self.controller(name, options))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Records the groups of a hierarchy.
    fn controller(&self, name: &str, options: &Cgroups) -> Result<CgControllerEntry, Error> {
        let failed = |operation, path: &[u8]| failed(operation, name, path);
        let root = match &options.yard {
            Some(yard) => cgroup::open_in(yard, name),
            None => cgroup::open(name),
        };
        let root = root.map_err(failed("open", b"/"))?;
        let paths = self.others.iter().filter_map(|(_, set)| set.get(name));
        let mut paths: BTreeSet<&[u8]> = paths.map(|path| relative(path)).collect();
        if let Some(top) = options.root(name) {
            if let Some(outside) = paths.iter().find(|path| !is_below(path, top)) {
                return Err(failed("find below --cgroup-root", outside)(Errno::NOENT));
            }
            paths = BTreeSet::from([top]);
        }
        let own = self.own.get(name).map_or(&b""[..], |path| relative(path));
        let mut dirs = Vec::new();
        let mut last: Option<&[u8]> = None;
        for path in paths {
            // What is below another is recorded with that; the groups of everybody are not.
            let shared = |path: &[u8]| path.is_empty() || path == own;
            if last.is_some_and(|last| !shared(last) && is_below(path, last)) {
                continue;
            }
            last = Some(path);
            let group = cgroup::group(&root, path).map_err(failed("open", path))?;
            let depth = if shared(path) { 0 } else { DEPTH };
            let names = options.properties.of(name);
            let mut dir = directory((name, &names), &group, path, depth)?;
            dir.dir_name = path.to_vec();
            dirs.push(dir);
        }
        let threaded = |dir: &CgroupDirEntry| {
            let mut properties = dir.properties.iter();
            properties
                .any(|property| property.name == "cgroup.type" && property.value == b"threaded")
        };
        Ok(CgControllerEntry {
            cnames: name.split(',').map(str::to_owned).collect(),
            is_threaded: Some(!name.is_empty() || dirs.iter().any(threaded)),
            dirs,
        })
    }
}

impl Cgroups {
    /// The group that is recorded of a hierarchy with all that is below it.
    fn root(&self, name: &str) -> Option<&[u8]> {
        let own = |controller: &Option<String>| {
            let controller = controller.as_deref();
            controller.is_some_and(|own| own == name || name.split(',').any(|part| part == own))
        };
        let mut roots = self.roots.iter().rev();
        let found = roots.clone().find(|(controller, _)| own(controller));
        let found = found.or_else(|| roots.find(|(controller, _)| controller.is_none()));
        found.map(|(_, path)| relative(path.as_bytes()))
    }
}

fn read(task: &TaskDir) -> Result<Set, Error> {
    let members = proc::cgroup::read(task)?;
    let member = |member: proc::cgroup::Membership| {
        let name = String::from_utf8_lossy(&member.controllers).into_owned();
        (name, member.path)
    };
    Ok(members.into_iter().map(member).collect())
}

/// Where a cgroup namespace begins in each hierarchy: what is in front of a path, as it is seen from inside.
fn beginnings(namespace: &Instance) -> Result<Set, Error> {
    let task = proc::task_dir(namespace.task)?;
    let inside = namespace.inside(|| read(&task))?;
    let mut set = read(&task)?;
    for (hierarchy, path) in &mut set {
        let below = inside.get(hierarchy).map_or(&[][..], Vec::as_slice);
        let below = if below == b"/" { &[][..] } else { below };
        // A task that has been moved out of its namespace: nothing in front of its path would be it.
        if let Some(beginning) = path.strip_suffix(below) {
            *path = beginning.to_vec();
        }
        if path.is_empty() {
            *path = b"/".to_vec();
        }
    }
    Ok(set)
}

fn member((name, path): (&String, &Vec<u8>), beginnings: Option<&Set>) -> CgMemberEntry {
    let beginning = beginnings.and_then(|set| set.get(name));
    let beginning =
        beginning.filter(|beginning| beginning.len() > 1 && path.starts_with(beginning.as_slice()));
    CgMemberEntry {
        name: name.clone(),
        path: path.clone(),
        cgns_prefix: beginning.map(|beginning| beginning.len() as u32),
    }
}

/// A group, and as many levels below it.
fn directory(
    (hierarchy, names): (&str, &[String]),
    group: &OwnedFd,
    path: &[u8],
    depth: usize,
) -> Result<CgroupDirEntry, Error> {
    let failed = |operation| failed(operation, hierarchy, path);
    let mut children = Vec::new();
    if depth > 0 {
        for name in cgroup::below_of(group).map_err(failed("list"))? {
            let below = match cgroup::group(group, &name) {
                // It has gone meanwhile: nobody of the tree was in it.
                Err(Errno::NOENT) => continue,
                below => below.map_err(failed("open"))?,
            };
            let path = [path, b"/", &name].concat();
            let mut child = directory((hierarchy, names), &below, &path, depth - 1)?;
            child.dir_name = name;
            children.push(child);
        }
    }
    let stat = rustix::fs::fstat(group).map_err(failed("look at"))?;
    Ok(CgroupDirEntry {
        dir_name: Vec::new(),
        children,
        properties: read_properties((hierarchy, names), group, path)?,
        dir_perms: Some(permissions(&stat)),
    })
}

fn read_properties(
    (hierarchy, names): (&str, &[String]),
    group: &OwnedFd,
    path: &[u8],
) -> Result<Vec<CgroupPropEntry>, Error> {
    let mut entries = Vec::new();
    for name in names {
        let failed = |operation| failed(operation, hierarchy, path);
        let stat = match rustix::fs::statat(group.as_fd(), name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
        {
            Err(Errno::NOENT) => continue,
            stat => stat.map_err(failed("look at a property of"))?,
        };
        let value = match properties::is_list_of_tasks(name) {
            true => Vec::new(),
            false => match cgroup::read(group, name) {
                // The kernel has it, and does not support it.
                Err(Errno::OPNOTSUPP) => continue,
                text => properties::value(name, text.map_err(failed("read a property of"))?),
            },
        };
        entries.push(CgroupPropEntry {
            name: name.to_owned(),
            value,
            perms: Some(permissions(&stat)),
        });
    }
    Ok(entries)
}

fn permissions(stat: &rustix::fs::Stat) -> CgroupPerms {
    CgroupPerms {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
    }
}

fn relative(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}

fn is_below(path: &[u8], top: &[u8]) -> bool {
    let rest = path.strip_prefix(top);
    top.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn failed(
    operation: &'static str,
    hierarchy: &str,
    path: &[u8],
) -> impl Fn(Errno) -> Error + use<> {
    let hierarchy = hierarchy.to_owned();
    let path = format!("/{}", String::from_utf8_lossy(path));
    move |errno| Error::Cgroup {
        operation,
        hierarchy: hierarchy.clone(),
        path: path.clone(),
        errno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_below_groups() {
        assert!(is_below(b"a/b", b"a") && is_below(b"a", b"a") && is_below(b"a", b""));
        assert!(!is_below(b"ab", b"a") && !is_below(b"a", b"a/b"));
        assert_eq!(relative(b"/a/b/"), b"a/b");
    }

    #[test]
    fn roots_are_for_one_hierarchy_or_for_all() {
        let options = Cgroups {
            roots: vec![(None, "/all".into()), (Some("cpu".into()), "/one".into())],
            ..Cgroups::default()
        };
        assert_eq!(options.root("cpu,cpuacct"), Some(&b"one"[..]));
        assert_eq!(options.root("memory"), Some(&b"all"[..]));
        assert_eq!(Cgroups::default().root("memory"), None);
    }

    #[test]
    fn the_group_of_a_task_is_recorded() {
        let mut sets = Sets::own(&Census::default()).unwrap();
        let own = read(&proc::task_dir(rustix::process::getpid()).unwrap()).unwrap();
        assert_eq!(sets.of(&own, None).unwrap(), OWN);
        // As if it stood elsewhere in a hierarchy where it stands at the root.
        let mut other = sets.own.clone();
        let Some(name) = other
            .keys()
            .find(|name| *name == "pids" || name.is_empty())
            .cloned()
        else {
            return;
        };
        other.insert(name.clone(), b"/".to_vec());
        sets.others.push((None, other));
        let options = Cgroups {
            controllers: vec![name.clone()],
            ..Cgroups::default()
        };
        let entry = match sets.entry(&options) {
            Err(Error::Cgroup {
                errno: Errno::PERM, ..
            }) => return,
            entry => entry.unwrap(),
        };
        assert_eq!(entry.sets[0].ctls.len(), sets.own.len());
        assert_eq!(entry.controllers.len(), 1);
        assert_eq!(entry.controllers[0].cnames, [name]);
        assert!(entry.controllers[0].dirs[0].dir_name.is_empty());
    }
}
