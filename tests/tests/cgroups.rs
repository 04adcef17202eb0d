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
    vec![trial("cgroup/modes".into(), modes)]
}

/// The groups of a guest, which go with this.
struct Groups(Vec<PathBuf>);

impl Groups {
    fn of(guest: &Guest) -> Result<Self> {
        let start = format!("gelid-guest-{}-", guest.tree.root());
        let mounts = fs::read_dir("/sys/fs/cgroup")?.flatten();
        let mounts = mounts.map(|entry| entry.path());
        let all = mounts.chain([PathBuf::from("/sys/fs/cgroup")]);
        let groups = all.filter_map(|mount| fs::read_dir(mount).ok()).flatten();
        let named = groups.flatten().filter(|group| {
            let name = group.file_name();
            name.to_string_lossy().starts_with(&start)
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
