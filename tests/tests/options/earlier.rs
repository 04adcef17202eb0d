//! Pages that earlier images have are left to them, if that is wanted.

use super::equal::bytes;
use super::{LIMIT, Test, until};
use crate::failures::{must_be_gone, must_be_untouched, must_fail, start};
use anyhow::{Result, ensure};
use gelid_tests::{Engine, Guest, Outcome, Started, Verdict};
use std::fs;

pub(super) const TESTS: &[Test] = &[
    ("earlier-raw", || generations([RAW, RAW, RAW])),
    ("earlier-packed", || generations([PACKED, PACKED, PACKED])),
    ("earlier-mixed", || generations([RAW, PACKED, PACKED])),
    ("earlier-in-namespace", in_namespace),
    ("earlier-refused", refused),
    ("earlier-of-criu", of_criu),
    ("earlier-to-criu", to_criu),
    ("earlier-by-criu", by_criu),
];

const RAW: &str = "--compress=none";
const PACKED: &str = "--compress=zstd:1";
const AFTER_FIRST: [&str; 3] = ["--dedup-content", "--prev-images-dir", "../1"];
const AFTER_SECOND: [&str; 3] = ["--dedup-content", "--prev-images-dir", "../2"];
const RUNNING: &str = "--leave-running";

/// Has the guest change some of its memory.
fn change(guest: &Guest, number: u32) -> Result<()> {
    let path = guest.path();
    fs::write(path.join(format!("change-{number}")), "")?;
    let done = path.join(format!("changed-{number}"));
    until("a change", || done.exists())
}

/// Dumps a guest three times, each on top of the one before, the first time by `first`.
fn dump_all(guest: &mut Guest, first: &Engine, pages: [&[&str]; 3]) -> Result<()> {
    let engine = Engine::find()?;
    guest.tree.look();
    let root = guest.tree.root();
    let [one, two, three] = ["1", "2", "3"].map(|name| guest.images(name));
    let options = [pages[0], &[RUNNING]].concat();
    first.dump(root, &one, &options)?.expect("dump 1")?;
    change(guest, 1)?;
    let options = [pages[1], &[RUNNING], &AFTER_FIRST].concat();
    engine.dump(root, &two, &options)?.expect("dump 2")?;
    change(guest, 2)?;
    let options = [pages[2], &AFTER_SECOND].concat();
    engine.dump(root, &three, &options)?.expect("dump 3")?;
    guest.tree.await_death(LIMIT)?;
    let [one, two, three] = [bytes(&one)?, bytes(&two)?, bytes(&three)?];
    ensure!(
        two * 10 < one && three * 10 < one,
        "{one}, {two} and {three} bytes"
    );
    Ok(())
}

fn generations(pages: [&str; 3]) -> Result<Verdict> {
    let engine = Engine::find()?;
    let mut guest = start("generations", &[])?;
    let pages = [&pages[..1], &pages[1..2], &pages[2..]];
    dump_all(&mut guest, &engine, pages)?;
    let (first, images) = (guest.images("1"), guest.images("3"));
    // Without the first set, or with another one, there is no restore.
    let away = first.with_file_name("away");
    fs::rename(&first, &away)?;
    must_fail_by(&engine.restore(&images, &[])?, "leads nowhere")?;
    must_be_gone(&guest)?;
    fs::rename(guest.images("2"), &first)?;
    fs::rename(&away, guest.images("2"))?;
    must_fail_by(&engine.restore(&images, &[])?, "another set")?;
    must_be_gone(&guest)?;
    fs::rename(guest.images("2"), &away)?;
    fs::rename(&first, guest.images("2"))?;
    fs::rename(&away, &first)?;
    engine
        .restore(&images, &["--dry-run"])?
        .expect("restore --dry-run")?;
    engine.restore(&images, &[])?.expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}

/// Pages are known by the pids of images, which are not those that the dumper sees.
fn in_namespace() -> Result<Verdict> {
    let mut guest = match Guest::start("generations", Some("pid"), &[], &[])? {
        Started::Ready(guest) => guest,
        Started::Skip(reason) => return Ok(Verdict::Skipped(reason)),
    };
    let engine = Engine::find()?;
    dump_all(&mut guest, &engine, [&[PACKED]; 3])?;
    let file = guest.images("root.pid").display().to_string();
    let restored = engine.restore(&guest.images("3"), &["--pidfile", &file])?;
    restored.expect("restore")?;
    guest.tree.again(fs::read_to_string(&file)?.trim().parse()?);
    guest.check()?;
    Ok(Verdict::Passed)
}

fn must_fail_by(outcome: &Outcome, words: &str) -> Result<()> {
    must_fail(outcome, words)?;
    let text = format!("{}{}", outcome.output, outcome.log);
    ensure!(text.contains(words), "not because of {words:?}:\n{text}");
    Ok(())
}

/// What cannot be compared with is refused before anything is touched.
fn refused() -> Result<Verdict> {
    let engine = Engine::find()?;
    let mut guest = start("generations", &[])?;
    guest.tree.look();
    let root = guest.tree.root();
    let (one, two) = (guest.images("1"), guest.images("2"));
    let images = guest.images("images");
    fs::create_dir(guest.images("empty"))?;
    engine
        .dump(root, &one, &[PACKED, RUNNING])?
        .expect("dump 1")?;
    engine
        .dump(root, &two, &[&[PACKED, RUNNING], &AFTER_FIRST[..]].concat())?
        .expect("dump 2")?;
    let before = guest.snapshot(&[])?;
    let after = |path: &'static str| [PACKED, "--dedup-content", "--prev-images-dir", path];
    let refuse =
        |options: &[&str], words: &str| must_fail_by(&engine.dump(root, &images, options)?, words);
    refuse(&[PACKED, "--prev-images-dir", "../1"], "--dedup-content")?;
    refuse(&after("../nowhere"), "nowhere")?;
    refuse(&after("../empty"), "inventory.img")?;
    refuse(&after("."), "in a circle")?;
    refuse(&[&[RAW], &AFTER_FIRST[..]].concat(), "packed pages")?;
    for name in fs::read_dir(&one)? {
        let path = name?.path();
        if path.to_string_lossy().ends_with(".img.zst") {
            let bytes = fs::read(&path)?;
            fs::write(&path, bytes.get(..bytes.len() - 9).unwrap_or_default())?;
        }
    }
    refuse(&after("../1"), "another copy")?;
    refuse(&after("../2"), "another copy")?;
    fs::remove_dir_all(&one)?;
    refuse(&after("../2"), "leads nowhere")?;
    must_be_untouched(&mut guest, &before, &[], &images)?;
    guest.check()?;
    Ok(Verdict::Passed)
}

/// CRIU's images may be the first ones.
fn of_criu() -> Result<Verdict> {
    let Some(criu) = Engine::criu() else {
        return Ok(Verdict::Skipped("there is no CRIU".into()));
    };
    let mut guest = start("generations", &[])?;
    dump_all(&mut guest, &criu, [&[], &[PACKED], &[PACKED]])?;
    let images = guest.images("3");
    Engine::find()?.restore(&images, &[])?.expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}

/// CRIU restores what is raw in all sets.
fn to_criu() -> Result<Verdict> {
    let Some(criu) = Engine::criu() else {
        return Ok(Verdict::Skipped("there is no CRIU".into()));
    };
    let mut guest = start("generations", &[])?;
    dump_all(&mut guest, &Engine::find()?, [&[RAW]; 3])?;
    criu.restore(&guest.images("3"), &[])?.expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}

/// CRIU's incremental dumps come back, where it can make some.
fn by_criu() -> Result<Verdict> {
    let Some(criu) = Engine::criu() else {
        return Ok(Verdict::Skipped("there is no CRIU".into()));
    };
    let mut guest = start("generations", &[])?;
    guest.tree.look();
    let root = guest.tree.root();
    let [one, two] = ["1", "2"].map(|name| guest.images(name));
    let first = criu.dump(root, &one, &["--track-mem", RUNNING])?;
    if first.log.contains("rack") && !first.ok() {
        return Ok(Verdict::Skipped("this kernel tracks no changes".into()));
    }
    first.expect("dump 1")?;
    change(&guest, 1)?;
    let options = ["--track-mem", "--prev-images-dir", "../1"];
    criu.dump(root, &two, &options)?.expect("dump 2")?;
    guest.tree.await_death(LIMIT)?;
    let (first, second) = (bytes(&one)?, bytes(&two)?);
    ensure!(second * 5 < first, "{first} and {second} bytes");
    Engine::find()?.restore(&two, &[])?.expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}
