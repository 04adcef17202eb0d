//! `cgroups`: a process in a group of its own, a child in one below it, in every hierarchy that this machine has
//! mounted and lets groups be made in. `cgroup-threads`: threads in different groups. `cgroup-mounted`: groups, mounted
//! where a cgroup namespace begins; with the argument `alone` nobody has others there.

use crate::Entry;
use crate::protocol::{Check, Failure, Gate, Guest, ensure, same, until};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("cgroups", cgroups),
    Entry("cgroup-threads", threads),
    Entry("cgroup-mounted", mounted),
];

/// Where hierarchies are mounted.
const MOUNTS: &[&str] = &[
    "/sys/fs/cgroup/pids",
    "/sys/fs/cgroup/freezer",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup",
];

/// Groups of this name in all hierarchies where that can be made; they go with this.
pub(crate) struct Groups(pub(crate) Vec<PathBuf>);

impl Groups {
    pub(crate) fn make(mounts: &[&str]) -> Check<Self> {
        // A process with the same number may run in another namespace.
        let mut chance = [0; 4];
        rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::empty())?;
        let chance = u32::from_ne_bytes(chance);
        let name = format!("gelid-guest-{}-{chance:08x}", std::process::id());
        let mut made = Vec::new();
        for mount in mounts {
            let group = Path::new(mount).join(&name);
            if Path::new(mount).join("cgroup.procs").exists() && fs::create_dir(&group).is_ok() {
                made.push(group);
            }
        }
        match made.is_empty() {
            true => Err(Failure::skip("no group can be made")),
            false => Ok(Self(made)),
        }
    }

    /// Leaves the groups, and removes them.
    pub(crate) fn leave(&self) -> Check {
        for group in &self.0 {
            let above = group.parent().ok_or("no group above")?;
            fs::write(above.join("cgroup.procs"), "0")?;
            for inner in ["inner", ""] {
                let dir = group.join(inner);
                // Who has ended may be in it for a moment.
                until("an empty group", || {
                    Ok(!dir.exists() || fs::remove_dir(&dir).is_ok())
                })?;
            }
        }
        Ok(())
    }
}

/// A file of a group, if the group has it.
fn value(group: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(group.join(name)).ok()?;
    Some(text.trim().to_owned())
}

fn memberships(of: &str) -> Check<String> {
    Ok(fs::read_to_string(format!("/proc/{of}/cgroup"))?)
}

fn cgroups(guest: &Guest) -> Check {
    let groups = Groups::make(MOUNTS)?;
    for group in &groups.0 {
        let inner = group.join("inner");
        fs::create_dir(&inner)?;
        std::os::unix::fs::chown(&inner, Some(1234), Some(5))?;
        if value(group, "pids.max").is_some() {
            fs::write(group.join("pids.max"), "100")?;
            fs::write(inner.join("pids.max"), "50")?;
        }
        fs::write(group.join("cgroup.procs"), "0")?;
    }
    let gate = Gate::new()?;
    let kid = guest.fork("below", |guest| {
        for group in &groups.0 {
            fs::write(group.join("inner/cgroup.procs"), "0")?;
        }
        let before = memberships("self")?;
        ensure!(before.contains("/inner"), "below: {before}");
        gate.arrive()?;
        guest.wait();
        same!("groups of the child", memberships("self")?, before);
        Ok(())
    })?;
    gate.wait(1)?;
    let before = memberships("self")?;
    guest.hold()?;
    same!("groups", memberships("self")?, before);
    for group in &groups.0 {
        let inner = group.join("inner");
        let data = fs::metadata(&inner)?;
        same!("owner", (data.uid(), data.gid()), (1234, 5));
        if value(group, "pids.max").is_some() {
            same!("limit", value(group, "pids.max"), Some("100".to_owned()));
            same!("limit", value(&inner, "pids.max"), Some("50".to_owned()));
        }
    }
    kid.join(guest)?;
    groups.leave()
}

fn threads(guest: &Guest) -> Check {
    // Of version 1, where each thread has its own.
    let groups = Groups::make(&["/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids"])?;
    let group = groups.0[0].clone();
    fs::create_dir(group.join("inner"))?;
    let own = || -> Check<String> {
        let tid = rustix::thread::gettid().as_raw_pid();
        memberships(&format!("self/task/{tid}"))
    };
    let (ready, come) = mpsc::channel();
    let thread = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Check {
            let tid = rustix::thread::gettid().as_raw_pid();
            fs::write(group.join("inner/tasks"), tid.to_string())?;
            let before = own()?;
            ready.send(()).map_err(|_| "nobody waits")?;
            guest.wait();
            same!("groups of the thread", own()?, before);
            ensure!(before.contains("/inner"), "the thread: {before}");
            Ok(())
        });
        come.recv().map_err(|_| "the thread has failed")?;
        let before = own()?;
        ensure!(!before.contains("/inner"), "the leader: {before}");
        guest.hold()?;
        same!("groups of the leader", own()?, before);
        thread
            .join()
            .unwrap_or_else(|_| Err("the thread has failed".into()))
    });
    thread?;
    groups.leave()
}

/// What is mounted at a place shows its root, as this process sees it.
fn shows_root(at: &Path) -> Check {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let at = at.to_str();
    let mut lines = lines.filter(|line| line.get(4).copied() == at);
    let line = lines.next().ok_or("groups are not mounted")?;
    same!("root", line[3], "/");
    Ok(())
}

fn mounted(guest: &Guest) -> Check {
    crate::owners::alone_with_mounts()?;
    let at = guest.path("groups");
    crate::mounts::mount(&at, &at, "cgroup2", 0, "")
        .map_err(|error| Failure::skip(error.to_string()))?;
    shows_root(&at)?;
    guest.hold()?;
    shows_root(&at)?;
    ensure!(at.join("cgroup.procs").exists(), "no processes are told");
    for entry in fs::read_dir(&at)?.flatten() {
        // The test has made one.
        let is_own = entry.file_name() == "inner" || !entry.file_type()?.is_dir();
        let is_alone = guest.args.iter().any(|word| word == "alone");
        ensure!(is_own || !is_alone, "others: {}", entry.path().display());
    }
    Ok(())
}
