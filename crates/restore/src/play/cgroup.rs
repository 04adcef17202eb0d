//! Groups are made before tasks are born, tasks enter them, and then they get the rest of their properties. What was
//! made goes again unless the restore succeeds.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use gelid_sys::{Errno, cgroup, proc};
use rustix::fs::{AtFlags, Gid, Mode, Uid};

use crate::Error;
use crate::plan::cgroup::{
    CgroupOptions, Cgroups, Group, Hierarchy, ManageCgroups, Permissions, Property,
};

/// Properties of a new group that must be there before anybody is in it, or anything is below it.
const FIRST: &[&str] = &[
    "cpuset.cpus",
    "cpuset.mems",
    "devices.list",
    "memory.kmem.limit_in_bytes",
    "memory.swappiness",
    "memory.oom_control",
    "memory.use_hierarchy",
    "cgroup.type",
    "cgroup.subtree_control",
];
/// Properties that stop whoever is in the group.
const LAST: &[&str] = &["cgroup.freeze", "freezer.state"];
/// What cannot be set, or says nothing.
const NEVER: &[&str] = &["cgroup.procs", "tasks", "cgroup.threads"];

/// The groups of a restore.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    roots: HashMap<String, OwnedFd>,
    /// Where this process is.
    own: BTreeMap<String, Vec<u8>>,
    /// Directories made: the one they are in, and their names.
    made: Vec<(OwnedFd, Vec<u8>)>,
    /// Groups that are to get properties, by hierarchy and number in it.
    pending: Vec<(usize, usize)>,
}

/// A group, for messages.
struct Name<'a> {
    hierarchy: &'a str,
    path: &'a [u8],
}

impl Name<'_> {
    fn failed(&self, operation: &'static str) -> impl Fn(Errno) -> Error + use<> {
        let hierarchy = self.hierarchy.to_owned();
        let path = format!("/{}", String::from_utf8_lossy(self.path));
        move |errno| Error::Cgroup {
            operation,
            hierarchy: hierarchy.clone(),
            path: path.clone(),
            errno,
        }
    }
}

impl Groups {
    /// Makes the groups that are missing.
    pub(crate) fn make(planned: &Cgroups, options: &CgroupOptions) -> Result<Self, Error> {
        let mut groups = Self::default();
        if planned.threads.is_empty() {
            return Ok(groups);
        }
        let own = proc::cgroup::read(&proc::task_dir(rustix::process::getpid())?)?;
        for member in own {
            let name = String::from_utf8_lossy(&member.controllers).into_owned();
            let path = member.path.strip_prefix(b"/").unwrap_or(&member.path);
            groups.own.insert(name, path.to_vec());
        }
        for (at, hierarchy) in planned.hierarchies.iter().enumerate() {
            let root = match &options.yard {
                Some(yard) => cgroup::open_in(yard, &hierarchy.name),
                None => cgroup::open(&hierarchy.name),
            };
            let is_own = |group: &Group| {
                group.path.is_empty() || groups.own.get(&hierarchy.name) == Some(&group.path)
            };
            let only_own = hierarchy.groups.iter().all(is_own);
            let root = match root {
                // Nobody is anywhere in it.
                Err(_) if only_own => continue,
                root => root.map_err(
                    Name {
                        hierarchy: &hierarchy.name,
                        path: b"",
                    }
                    .failed("open"),
                )?,
            };
            for number in 0..hierarchy.groups.len() {
                groups.make_one(&root, hierarchy, (at, number), options.manage)?;
            }
            groups.roots.insert(hierarchy.name.clone(), root);
        }
        Ok(groups)
    }

    fn make_one(
        &mut self,
        root: &OwnedFd,
        hierarchy: &Hierarchy,
        (at, number): (usize, usize),
        manage: ManageCgroups,
    ) -> Result<(), Error> {
        let group = &hierarchy.groups[number];
        // Where this process is, others are too.
        if group.path.is_empty() || self.own.get(&hierarchy.name) == Some(&group.path) {
            return Ok(());
        }
        let name = Name {
            hierarchy: &hierarchy.name,
            path: &group.path,
        };
        let there = match cgroup::group(root, &group.path) {
            Err(Errno::NOENT) => None,
            there => Some(there.map_err(name.failed("open"))?),
        };
        use ManageCgroups::{Full, Ignore, None as Never, Props, Soft, Strict};
        match (there, manage) {
            (_, Ignore) | (Some(_), Never) => {}
            (Some(_), Strict) => return Err(name.failed("make")(Errno::EXIST)),
            (None, Never | Props) => return Err(name.failed("find")(Errno::NOENT)),
            (Some(dir), Soft) => group.own(&dir, &name)?,
            (Some(dir), Props | Full) => {
                group.own(&dir, &name)?;
                self.pending.push((at, number));
            }
            (None, Soft | Full | Strict) => {
                let dir = self.make_directories(root, &group.path, &name)?;
                group.own(&dir, &name)?;
                for property in group
                    .properties
                    .iter()
                    .filter(|property| property.is_first())
                {
                    property.write(&dir, &name)?;
                }
                self.pending.push((at, number));
            }
        }
        Ok(())
    }

    /// Makes a directory, and those above it that are missing.
    fn make_directories(
        &mut self,
        root: &OwnedFd,
        path: &[u8],
        name: &Name<'_>,
    ) -> Result<OwnedFd, Error> {
        let mut dir = cgroup::group(root, b"").map_err(name.failed("open"))?;
        for part in path.split(|byte| *byte == b'/') {
            match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    let next = cgroup::group(&dir, part).map_err(name.failed("open"))?;
                    inherit(name.hierarchy, &dir, &next).map_err(name.failed("set up"))?;
                    self.made.push((dir, part.to_vec()));
                    dir = next;
                }
                Err(Errno::EXIST) => {
                    dir = cgroup::group(&dir, part).map_err(name.failed("open"))?;
                }
                Err(errno) => return Err(name.failed("make")(errno)),
            }
        }
        Ok(dir)
    }

    /// Lets a process without threads of its own enter the groups of a set; `from` is the one that it is in so far,
    /// as its creator. None is that of this process.
    pub(crate) fn enter(
        &self,
        planned: &Cgroups,
        pid: i32,
        from: Option<u32>,
        to: Option<u32>,
    ) -> Result<(), Error> {
        self.go(planned, pid, (from, to), &["cgroup.procs"])
    }

    /// Lets a thread enter the groups of a set.
    pub(crate) fn enter_alone(
        &self,
        planned: &Cgroups,
        tid: i32,
        from: Option<u32>,
        to: Option<u32>,
    ) -> Result<(), Error> {
        self.go(planned, tid, (from, to), &["tasks", "cgroup.threads"])
    }

    fn go(
        &self,
        planned: &Cgroups,
        id: i32,
        (from, to): (Option<u32>, Option<u32>),
        files: &[&str],
    ) -> Result<(), Error> {
        if from == to {
            return Ok(());
        }
        let place = |set: Option<u32>, hierarchy: &str| {
            let set = set.and_then(|set| planned.sets.get(&set));
            let path = set.and_then(|set| set.get(hierarchy));
            path.or_else(|| self.own.get(hierarchy))
                .cloned()
                .unwrap_or_default()
        };
        for (hierarchy, root) in &self.roots {
            let path = place(to, hierarchy);
            if path == place(from, hierarchy) {
                continue;
            }
            let name = Name {
                hierarchy,
                path: &path,
            };
            let group = cgroup::group(root, &path).map_err(name.failed("enter"))?;
            let number = id.to_string();
            let mut done = Err(Errno::NOENT);
            for file in files {
                if done == Err(Errno::NOENT) {
                    done = cgroup::write(&group, file, number.as_bytes());
                }
            }
            done.map_err(name.failed("enter"))?;
        }
        Ok(())
    }

    /// Gives groups their properties, but for those that would stop their tasks.
    pub(crate) fn dress(&self, planned: &Cgroups) -> Result<(), Error> {
        self.write(planned, |property| {
            !LAST.contains(&property.name()) && !property.is_first_done()
        })
    }

    /// Gives groups the rest, and keeps them.
    pub(crate) fn keep(mut self, planned: &Cgroups) {
        self.made.clear();
        if let Err(error) = self.write(planned, |property| LAST.contains(&property.name())) {
            tracing::warn!("{error}");
        }
    }

    fn write(&self, planned: &Cgroups, wanted: impl Fn(&Property) -> bool) -> Result<(), Error> {
        for (at, number) in &self.pending {
            let hierarchy = &planned.hierarchies[*at];
            let group = &hierarchy.groups[*number];
            let Some(root) = self.roots.get(&hierarchy.name) else {
                continue;
            };
            let name = Name {
                hierarchy: &hierarchy.name,
                path: &group.path,
            };
            let dir = cgroup::group(root, &group.path).map_err(name.failed("open"))?;
            for property in group.properties.iter().filter(|property| wanted(property)) {
                property.write(&dir, &name)?;
            }
        }
        Ok(())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for (dir, name) in self.made.drain(..).rev() {
            // Somebody else may have come to use it.
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
        }
    }
}

/// A new group of processors and memory nodes is empty, and nobody can enter it.
fn inherit(hierarchy: &str, from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    if !hierarchy
        .split(',')
        .any(|controller| controller == "cpuset")
    {
        return Ok(());
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = cgroup::read(from, file)?;
        cgroup::write(to, file, value.trim_ascii())?;
    }
    Ok(())
}

impl Group {
    /// Gives it and its files their owners.
    fn own(&self, dir: &OwnedFd, name: &Name<'_>) -> Result<(), Error> {
        if let Some(permissions) = &self.permissions {
            permissions
                .apply(dir, ".")
                .map_err(name.failed("give an owner to"))?;
        }
        for property in &self.properties {
            if let Some(permissions) = &property.permissions {
                match permissions.apply(dir, &property.name) {
                    // A property that this kernel does not have is told when it is set.
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(name.failed("give an owner to")(errno)),
                }
            }
        }
        Ok(())
    }
}

impl Permissions {
    fn apply(&self, dir: &OwnedFd, file: &str) -> Result<(), Errno> {
        let stat = rustix::fs::statat(dir, file, AtFlags::SYMLINK_NOFOLLOW)?;
        if (stat.st_uid, stat.st_gid) != (self.uid, self.gid) {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(dir, file, Some(uid), Some(gid), flags)?;
        }
        if stat.st_mode & 0o7777 != self.mode {
            let mode = Mode::from_raw_mode(self.mode);
            rustix::fs::chmodat(dir, file, mode, AtFlags::empty())?;
        }
        Ok(())
    }
}

impl Property {
    fn name(&self) -> &str {
        &self.name
    }

    /// It has to be there first, if it says anything.
    fn is_first(&self) -> bool {
        let nothing: &[u8] = match self.name() {
            "memory.swappiness" => b"60",
            "memory.oom_control" => b"0",
            _ => b"",
        };
        FIRST.contains(&self.name()) && self.value != nothing
    }

    /// It is not to be set again.
    fn is_first_done(&self) -> bool {
        self.name == "cgroup.type" && self.value != b"threaded"
    }

    /// Sets it, unless it is so already.
    fn write(&self, dir: &OwnedFd, name: &Name<'_>) -> Result<(), Error> {
        if NEVER.contains(&self.name()) || self.is_first_done() {
            return Ok(());
        }
        if let Ok(now) = cgroup::read(dir, &self.name)
            && (now.trim_ascii() == self.value
                || now.starts_with(&[b"oom_kill_disable ", &self.value[..]].concat()))
        {
            return Ok(());
        }
        let failed = |errno| match errno {
            // Old properties that a newer kernel has no more.
            Errno::NOENT | Errno::OPNOTSUPP => {
                tracing::warn!(
                    property = self.name,
                    "this kernel does not have that property"
                );
                Ok(())
            }
            errno => Err(name.failed(self.operation())(errno)),
        };
        self.lines(dir).or_else(failed)
    }

    fn operation(&self) -> &'static str {
        match self.name() {
            "memory.limit_in_bytes" | "memory.memsw.limit_in_bytes" => "limit the memory of",
            "cpuset.cpus" | "cpuset.mems" => "set the processors of",
            "devices.list" => "set the devices of",
            "pids.max" => "limit the processes of",
            _ => "set a property of",
        }
    }

    /// Writes the value as the kernel wants it: several properties one line at a time.
    fn lines(&self, dir: &OwnedFd) -> Result<(), Errno> {
        let lines = || {
            self.value
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
        };
        match self.name() {
            "devices.list" => {
                cgroup::write(dir, "devices.deny", b"a")?;
                lines().try_for_each(|line| cgroup::write(dir, "devices.allow", line))
            }
            "net_prio.ifpriomap" => {
                let set = |line: &&[u8]| !line.ends_with(b" 0");
                lines()
                    .filter(set)
                    .try_for_each(|line| cgroup::write(dir, &self.name, line))
            }
            "cgroup.subtree_control" => {
                let now = cgroup::read(dir, &self.name)?;
                let words = |text: &[u8], sign: u8| -> Vec<Vec<u8>> {
                    let words = text
                        .split(u8::is_ascii_whitespace)
                        .filter(|word| !word.is_empty());
                    words.map(|word| [&[sign], word].concat()).collect()
                };
                let (on, off) = (words(&self.value, b'+'), words(&now, b'-'));
                let stays = |word: &&Vec<u8>| !on.iter().any(|other| other[1..] == word[1..]);
                let off = off.iter().filter(stays);
                let all: Vec<&[u8]> = on.iter().chain(off).map(Vec::as_slice).collect();
                cgroup::write(dir, &self.name, &all.join(&b' '))
            }
            _ => cgroup::write(dir, &self.name, &self.value),
        }
    }
}
