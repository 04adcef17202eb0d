//! What `--manage-cgroups` does with groups that are there, or are not, and that no group stays of a restore that
//! fails.

use crate::failures::{must_be_gone, must_fail};
use crate::trial;
use anyhow::{Result, ensure};
use gelid_tests::{Engine, Guest, Started, Verdict};
use libtest_mimic::Trial;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("cgroup/modes".into(), modes),
        trial("cgroup/root".into(), elsewhere),
    ]
}

/// The groups of a guest, which go with this.
#[derive(Debug)]
struct Groups(Vec<PathBuf>);

impl Groups {
    fn of(guest: &Guest) -> Result<Self> {
        Self::called(&format!("gelid-guest-{}-", guest.tree.root()))
    }

    /// Those whose names start so.
    fn called(start: &str) -> Result<Self> {
        let mounts = fs::read_dir("/sys/fs/cgroup")?.flatten();
        let mounts = mounts.map(|entry| entry.path());
        let all = mounts.chain([PathBuf::from("/sys/fs/cgroup")]);
        let groups = all.filter_map(|mount| fs::read_dir(mount).ok()).flatten();
        let named = groups.flatten().filter(|group| {
            let name = group.file_name();
            name.to_string_lossy().starts_with(start)
        });
        Ok(Self(named.map(|group| group.path()).collect()))
    }

    fn are_there(&self) -> bool {
        self.0.iter().any(|group| group.is_dir())
    }

    fn remove(&self) {
        for group in &self.0 {
            // Those of a hierarchy may be gone already.
            let _ = fs::remove_dir(group.join("inner"));
            let _ = fs::remove_dir(group);
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Groups come back below another root (`--cgroup-root`).
fn elsewhere() -> Result<Verdict> {
    let mut guest = match Guest::start("cgroups", None, &[], &[])? {
        Started::Ready(guest) => guest,
        Started::Skip(reason) => return Ok(Verdict::Skipped(reason)),
    };
    let groups = Groups::of(&guest)?;
    let (engine, images) = (Engine::find()?, guest.images("images"));
    let root = guest.tree.root();
    guest.tree.look();
    engine.dump(root, &images, &[])?.expect("dump")?;
    guest.tree.await_death(Duration::from_secs(20))?;
    groups.remove();
    let name = format!("gelid-elsewhere-{root}");
    let wrong = ["--cgroup-root", &name];
    must_fail(&engine.restore(&images, &wrong)?, "no path")?;
    // Where it is in the group of all, it stays there.
    let roots = groups.0.iter().filter_map(|group| {
        let hierarchy = group.parent()?.file_name()?.to_string_lossy();
        let controller = match &*hierarchy {
            "unified" | "cgroup" => "",
            controller => controller,
        };
        Some(format!("--cgroup-root={controller}:/{name}"))
    });
    let roots: Vec<String> = roots.collect();
    let roots: Vec<&str> = roots.iter().map(String::as_str).collect();
    let restored = engine.restore(&images, &roots)?;
    let others = Groups::called(&name)?;
    restored.expect("restore")?;
    let memberships = fs::read_to_string(format!("/proc/{root}/cgroup"))?;
    let found = memberships
        .lines()
        .filter(|line| line.ends_with(&format!(":/{name}")));
    ensure!(found.count() == others.0.len(), "{memberships}");
    ensure!(others.0.len() == groups.0.len(), "{others:?}, {groups:?}");
    ensure!(!groups.are_there(), "they are where they were");
    // It would look for its old ones.
    drop(guest);
    others.remove();
    ensure!(!others.are_there(), "somebody is left in them");
    Ok(Verdict::Passed)
}

fn modes() -> Result<Verdict> {
    let mut guest = match Guest::start("cgroups", None, &[], &[])? {
        Started::Ready(guest) => guest,
        Started::Skip(reason) => return Ok(Verdict::Skipped(reason)),
    };
    let groups = Groups::of(&guest)?;
    let engine = Engine::find()?;
    let images = guest.images("images");
    let wrong = ["--cgroup-props", "pids:"];
    must_fail(
        &engine.dump(guest.tree.root(), &images, &wrong)?,
        "line 1 of the properties",
    )?;
    let properties =
        "\"none\":\n - \"strategy\": \"replace\"\n - \"properties\": [\"none.at.all\"]";
    let properties = ["--cgroup-props", properties];
    engine
        .dump(guest.tree.root(), &images, &properties)?
        .expect("dump")?;
    guest.tree.await_death(Duration::from_secs(20))?;
    ensure!(groups.are_there(), "the groups of the dead");
    let strict = engine.restore(&images, &["--manage-cgroups=strict"])?;
    must_fail(&strict, "all groups are there")?;
    must_be_gone(&guest)?;
    ensure!(groups.are_there(), "they were not made by the restore");
    groups.remove();
    ensure!(!groups.are_there(), "they cannot be removed");
    for mode in ["none", "props"] {
        let outcome = engine.restore(&images, &[&*format!("--manage-cgroups={mode}")])?;
        must_fail(&outcome, "no group is there")?;
        must_be_gone(&guest)?;
        ensure!(!groups.are_there(), "{mode}: groups were left behind");
    }
    for phase in ["births", "memory", "state", "release"] {
        let failing = engine.clone().failing_in(phase);
        must_fail(&failing.restore(&images, &[])?, phase)?;
        must_be_gone(&guest)?;
        ensure!(!groups.are_there(), "{phase}: groups were left behind");
    }
    engine
        .restore(&images, &["--manage-cgroups=strict"])?
        .expect("restore")?;
    guest.check()?;
    ensure!(!groups.are_there(), "the guest has removed them");
    Ok(Verdict::Passed)
}
