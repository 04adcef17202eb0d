//! Equal pages are stored once, if that is wanted.

use super::{LIMIT, Test, until};
use crate::failures::{must_fail, start};
use anyhow::{Context, Result, ensure};
use gelid_tests::{Engine, Guest, Verdict, output};
use std::fs;
use std::path::Path;
use std::process::Command;

pub(super) const TESTS: &[Test] = &[
    ("dedup-content", dedup_content),
    ("dedup-merged", dedup_merged),
];

/// The same level for both, so that nothing but the option makes a difference.
const PACKED: &str = "--compress=zstd:1";
const DEDUP: &str = "--dedup-content";

/// Bytes of all files of pages.
pub(super) fn bytes(images: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(images)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b"pages-") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Dumps a guest with two programs without the option and with it, and restores what that has written.
fn halves(guest: &mut Guest) -> Result<()> {
    let engine = Engine::find()?;
    let root = guest.tree.root();
    let pids = guest.tree.look();
    let (whole, once) = (guest.images("whole"), guest.images("once"));
    engine
        .dump(root, &whole, &[PACKED, "--leave-running"])?
        .expect("dump")?;
    must_fail(
        &engine.dump(root, &once, &["--compress=none", DEDUP])?,
        "raw pages",
    )?;
    engine.dump(root, &once, &[PACKED, DEDUP])?.expect("dump")?;
    guest.tree.await_death(LIMIT)?;
    // Of 2,732 pages 1,280 are different.
    let (whole, bytes) = (bytes(&whole)?, bytes(&once)?);
    ensure!(bytes * 100 < whole * 58, "{bytes} bytes instead of {whole}");
    let mut moved = 0;
    for pid in &pids {
        let mut show = Command::new(engine.program());
        show.arg("show")
            .arg(&once)
            .arg(format!("pagemap-{pid}.img"));
        moved += output(&mut show)?.matches("same_at").count();
    }
    ensure!(moved > 0, "no page is elsewhere");
    engine.restore(&once, &[])?.expect("restore")?;
    guest.check()
}

fn dedup_content() -> Result<Verdict> {
    halves(&mut start("equal-memory", &[])?)?;
    Ok(Verdict::Passed)
}

/// The kernel's own merging, switched on for a moment.
struct Merging(String);

impl Merging {
    const RUN: &str = "/sys/kernel/mm/ksm/run";
    const SCAN: &str = "/sys/kernel/mm/ksm/pages_to_scan";

    fn begin() -> Option<Self> {
        let scan = fs::read_to_string(Self::SCAN).ok()?;
        fs::write(Self::SCAN, "20000").ok()?;
        fs::write(Self::RUN, "1").ok()?;
        Some(Self(scan))
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        // What is merged stays so.
        let _ = fs::write(Self::RUN, "0");
        let _ = fs::write(Self::SCAN, self.0.trim());
    }
}

/// Pages that the kernel has merged are those of two programs too.
fn dedup_merged() -> Result<Verdict> {
    let was_on = fs::read_to_string(Merging::RUN).is_ok_and(|run| run.trim() != "0");
    let mut guest = start("equal-memory", &[])?;
    let pids = guest.tree.look();
    let merging = match was_on {
        true => None,
        false => Some(Merging::begin()),
    };
    if let Some(None) = merging {
        return Ok(Verdict::Skipped("this kernel merges no pages".into()));
    }
    for pid in &pids {
        let file = format!("/proc/{pid}/ksm_merging_pages");
        let count = || -> Option<u64> { fs::read_to_string(&file).ok()?.trim().parse().ok() };
        count().context("no count of merged pages")?;
        until("merged pages", || count() >= Some(1000))?;
    }
    halves(&mut guest)?;
    Ok(Verdict::Passed)
}
