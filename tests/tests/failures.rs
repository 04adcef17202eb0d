//! What must not happen when something fails: a tree that is disturbed, images that pass for whole ones,
//! tasks that are left behind.
//!
//! `GELID_KILLS` sets how often the dumper is killed at a random instant (default 10).

use crate::trial;
use anyhow::{Context, Result, bail, ensure};
use gelid_tests::{
    DirectoryState, Engine, Guest, Outcome, Snapshot, Started, Verdict, compare, succeeds,
};
use libtest_mimic::Trial;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

/// Facts that the busy guest changes itself.
const BUSY: &[&str] = &["maps", "fd ", "SigPnd"];

/// A test with a name.
type Test = (&'static str, fn() -> Result<Verdict>);

const TESTS: &[Test] = &[
    ("restorer-killed", restorer_killed),
    ("disk-full", disk_full),
    ("directory-read-only", directory_read_only),
    ("no-such-process", no_such_process),
    ("images-missing", images_missing),
    ("pid-taken", pid_taken),
    ("file-changed", file_changed),
    ("file-removed", file_removed),
    ("lock-taken", lock_taken),
    ("images-truncated", images_truncated),
    ("images-flipped", images_flipped),
    ("image-removed", image_removed),
];

/// Room for tapes stays mapped.
const ROOM: &[&str] = &["maps"];

/// Guests whose dumper is killed, and facts that change with it.
const KILLED: &[(&str, &[&str])] = &[
    ("steady", BUSY),
    ("threads", ROOM),
    ("sharing-mixed", ROOM),
    // What is stopped finishes its tape, and is back, when it is continued.
    ("stopped", &["maps", "SigBlk"]),
    ("shared-text", ROOM),
    ("limits-used-up", ROOM),
    ("address-space-full", ROOM),
    ("sigtrap-blocked", ROOM),
    // What waits in it is read and written back.
    ("pty-queues", ROOM),
    ("seccomp-threads", ROOM),
    ("aio", ROOM),
    // Out of repair again, and no packet is kept away.
    ("tcp-full", ROOM),
];

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let killed = KILLED.iter().map(|(guest, ignore)| {
        let name = format!("failure/dumper-killed-{guest}");
        trial(name, || dumper_killed(guest, ignore))
    });
    let others = TESTS.iter();
    let others = others.map(|(name, body)| trial(format!("failure/{name}"), body));
    killed.chain(others).collect()
}

/// Starts a guest that every machine can run.
pub(crate) fn start(name: &str, args: &[&str]) -> Result<Guest> {
    match Guest::start(name, None, args, &[])? {
        Started::Ready(guest) => Ok(guest),
        Started::Skip(reason) => bail!("{name}: {reason}"),
    }
}

/// A command that failed as commands should: an exit code, and something said about it.
pub(crate) fn must_fail(outcome: &Outcome, what: &str) -> Result<()> {
    ensure!(!outcome.ok(), "{what}: succeeded");
    ensure!(
        outcome.code == Some(1),
        "{what}: exit code {:?}\n{}{}",
        outcome.code,
        outcome.output,
        outcome.log
    );
    ensure!(
        !outcome.output.is_empty() || !outcome.log.is_empty(),
        "{what}: not a word why"
    );
    Ok(())
}

/// The guest must be as it was, under no tracer, and there must be no images.
pub(crate) fn must_be_untouched(
    guest: &mut Guest,
    before: &Snapshot,
    ignore: &[&str],
    images: &Path,
) -> Result<()> {
    let (mut after, mut differences) = (Snapshot::default(), Vec::new());
    // What is stopped and let go runs for a moment until it stops again, and a copy may be about to end.
    for _ in 0..50 {
        match guest.snapshot(&["sd"]) {
            Ok(snapshot) => {
                after = snapshot.without(ignore);
                differences = compare(before, &after);
            }
            Err(error) => differences = vec![format!("{error:#}")],
        }
        if differences.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    ensure!(
        differences.is_empty(),
        "disturbed:\n  {}",
        differences.join("\n  ")
    );
    for pid in after.tasks.keys() {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        ensure!(
            status.contains("TracerPid:\t0\n"),
            "process {pid} is still traced"
        );
    }
    ensure!(
        !images.join("inventory.img").exists(),
        "a failed dump left images behind"
    );
    Ok(())
}

/// Nothing of the tree may be there.
pub(crate) fn must_be_gone(guest: &Guest) -> Result<()> {
    guest
        .tree
        .await_death(Duration::from_secs(5))
        .context("a failed restore left tasks behind")
}

/// Random numbers, to be repeated from the seed that a failure names.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self(now.as_nanos() as u64 | 1)
    }

    /// Below a limit (xorshift64).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

fn kills() -> usize {
    std::env::var("GELID_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10)
}

fn dumper_killed(name: &str, ignore: &[&str]) -> Result<Verdict> {
    let engine = Engine::find()?;
    let mut guest = start(name, &[])?;
    let pid = guest.tree.root().to_string();
    // It may say that it is ready a little before the last of its tasks has come to rest.
    std::thread::sleep(Duration::from_millis(50));
    let before = guest.snapshot(&["sd"])?.without(ignore);
    let whole = Instant::now();
    engine
        .dump(
            guest.tree.root(),
            &guest.images("whole"),
            &["--leave-running", "--tcp-established"],
        )?
        .expect("dump")?;
    let mut longest = whole.elapsed().as_micros() as u64 * 11 / 10;
    let mut random = Random::new();
    let seed = random.0;
    let mut unfinished = 0;
    let most = kills() * 10;
    // The first dump may have been so much slower than the rest, or the machine be so busy, that every instant comes too
    // late.
    for round in 0..most {
        if round >= kills() && unfinished > 0 {
            break;
        }
        let images = guest.images(&format!("killed-{round}"));
        fs::create_dir(&images)?;
        // A child that has ended there stays until the tape goes on with the program.
        let copied = match name == "stopped" || round.is_multiple_of(2) {
            true => "--snapshot=never",
            false => "--snapshot=always",
        };
        let words = ["-t", &pid, "--leave-running", "--tcp-established", copied];
        let mut dumper = engine.start("dump", &images, &words)?;
        let instant = random.below(longest);
        std::thread::sleep(Duration::from_micros(instant));
        match dumper.poll()? {
            None => unfinished += 1,
            Some(_) if unfinished == 0 => longest = longest * 9 / 10,
            Some(_) => {}
        }
        dumper.kill()?;
        let told = || format!("round {round}, killed after {instant} us, seed {seed}");
        let whole = images.join("inventory.img").exists();
        // Whole images may be there, if the very end was hit; half of them may not pass for that.
        if whole {
            fs::remove_file(images.join("inventory.img"))?;
        }
        // A tape on its way may have to come to its end.
        std::thread::sleep(Duration::from_millis(20));
        must_be_untouched(&mut guest, &before, ignore, &images).with_context(told)?;
        fs::remove_dir_all(&images)?;
    }
    ensure!(unfinished > 0, "no dump was under way when it was killed");
    guest.check()?;
    Ok(Verdict::Passed)
}

fn restorer_killed() -> Result<Verdict> {
    let engine = Engine::find()?;
    let mut guest = start("tree-deep", &["5"])?;
    let images = guest.images("images");
    guest.tree.look();
    engine
        .dump(guest.tree.root(), &images, &[])?
        .expect("dump")?;
    guest.tree.await_death(Duration::from_secs(20))?;
    let mut random = Random::new();
    let seed = random.0;
    for round in 0..kills() {
        let mut restorer = engine.start("restore", &images, &["-d"])?;
        let instant = random.below(15_000);
        std::thread::sleep(Duration::from_micros(instant));
        let finished = restorer.poll()?.is_some();
        restorer.kill()?;
        let log = fs::read_to_string(images.join("restore.log")).unwrap_or_default();
        if finished || log.contains("phase=release") {
            // Then it is the tree that has to go.
            guest.tree.kill();
        }
        must_be_gone(&guest)
            .with_context(|| format!("round {round}, killed after {instant} us, seed {seed}"))?;
    }
    engine.restore(&images, &[])?.expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}

/// A small file system of its own, unmounted in the end.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: PathBuf, options: &str) -> Result<Option<Self>> {
        fs::create_dir(&path)?;
        let done = succeeds(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "gelid-test"])
                .arg(&path),
        );
        Ok(done.then_some(Self(path)))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !succeeds(Command::new("umount").arg(&self.0)) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}

/// A dump into a folder that cannot take it.
fn dump_into(options: &str) -> Result<Verdict> {
    let engine = Engine::find()?;
    let mut guest = start("anon-dense", &["16"])?;
    let Some(images) = Mounted::new(guest.images("images"), options)? else {
        return Ok(Verdict::Skipped("a tmpfs cannot be mounted here".into()));
    };
    let before = guest.snapshot(&["sd"])?.without(BUSY);
    match engine.dump(
        guest.tree.root(),
        &images.0,
        &["--compress=none"][usize::from(engine.is_criu())..],
    ) {
        Ok(outcome) => must_fail(&outcome, "dump")?,
        // The harness cannot even keep its output there.
        Err(_) if options.starts_with("ro") => {}
        Err(error) => return Err(error),
    }
    must_be_untouched(&mut guest, &before, BUSY, &images.0)?;
    guest.check()?;
    Ok(Verdict::Passed)
}

fn disk_full() -> Result<Verdict> {
    dump_into("size=1m")
}

fn directory_read_only() -> Result<Verdict> {
    dump_into("ro,size=1m")
}

fn no_such_process() -> Result<Verdict> {
    let engine = Engine::find()?;
    let dir = tempfile::tempdir()?;
    let free = (30_000..32_000)
        .rev()
        .find(|pid| !Path::new(&format!("/proc/{pid}")).exists());
    let outcome = engine.dump(free.context("no free id")?, dir.path(), &[])?;
    must_fail(&outcome, "dump of a process that does not exist")?;
    ensure!(!dir.path().join("inventory.img").exists(), "it left images");
    Ok(Verdict::Passed)
}

fn images_missing() -> Result<Verdict> {
    let dir = tempfile::tempdir()?;
    let outcome = Engine::find()?.restore(dir.path(), &[])?;
    must_fail(&outcome, "restore from an empty folder")?;
    Ok(Verdict::Passed)
}

fn pid_taken() -> Result<Verdict> {
    let engine = Engine::find()?;
    let mut guest = start("tree-deep", &["5"])?;
    let images = guest.images("images");
    let before = guest.snapshot(&["sd"])?.without(BUSY);
    engine
        .dump(guest.tree.root(), &images, &["--leave-running"])?
        .expect("dump")?;
    // The original still has its ids.
    must_fail(
        &engine.restore(&images, &[])?,
        "restore beside the original",
    )?;
    let after = guest.snapshot(&["sd"])?.without(BUSY);
    ensure!(
        compare(&before, &after).is_empty(),
        "the original was disturbed"
    );
    guest.check()?;
    Ok(Verdict::Passed)
}

/// Dumps a guest, does something to its files, lets a restore fail, undoes it, and restores.
fn with_files(change: fn(&Path) -> Result<()>) -> Result<Verdict> {
    let engine = Engine::find()?;
    let mut guest = start("dup", &[])?;
    let images = guest.images("images");
    guest.tree.look();
    engine
        .dump(guest.tree.root(), &images, &[])?
        .expect("dump")?;
    guest.tree.await_death(Duration::from_secs(20))?;
    let files = DirectoryState::save(&guest.path())?;
    change(&guest.path().join("data"))?;
    let outcome = engine.restore(&images, &[])?;
    must_fail(&outcome, "restore with another file")?;
    let text = format!("{}{}", outcome.output, outcome.log);
    ensure!(text.contains("data"), "the file is not named:\n{text}");
    must_be_gone(&guest)?;
    files.put_back()?;
    engine.restore(&images, &[])?.expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}

fn file_changed() -> Result<Verdict> {
    with_files(|path| Ok(fs::write(path, "longer than it was")?))
}

fn file_removed() -> Result<Verdict> {
    with_files(|path| Ok(fs::remove_file(path)?))
}

/// Damages every image in turn; the restore must fail and leave nothing. Afterwards the undamaged ones must do.
/// Somebody else has a lock when it is to be taken again.
fn lock_taken() -> Result<Verdict> {
    const LOCKS: &[&str] = &["--file-locks"];
    let engine = Engine::find()?;
    let mut guest = start("locks-descriptions", &[])?;
    let images = guest.images("images");
    guest.tree.look();
    engine
        .dump(guest.tree.root(), &images, LOCKS)?
        .expect("dump")?;
    guest.tree.await_death(Duration::from_secs(20))?;
    let file = fs::File::open(guest.path().join("one"))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    let outcome = engine.restore(&images, LOCKS)?;
    must_fail(&outcome, "restore beside another's lock")?;
    let text = format!("{}{}", outcome.output, outcome.log);
    ensure!(
        text.contains("the lock of descriptor") && text.contains("another's now"),
        "the lock is not named:\n{text}"
    );
    must_be_gone(&guest)?;
    drop(file);
    engine.restore(&images, LOCKS)?.expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}

fn with_damage(damage: fn(&mut Random, &[u8]) -> Option<Vec<u8>>) -> Result<Verdict> {
    let engine = Engine::find()?;
    if engine.is_criu() {
        return Ok(Verdict::Skipped("CRIU trusts its images".into()));
    }
    let mut guest = start("pipe-data", &[])?;
    let images = guest.images("images");
    guest.tree.look();
    engine
        .dump(guest.tree.root(), &images, &[])?
        .expect("dump")?;
    guest.tree.await_death(Duration::from_secs(20))?;
    let mut random = Random::new();
    let seed = random.0;
    let mut names: Vec<PathBuf> = fs::read_dir(&images)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    names.retain(|path| {
        path.extension()
            .is_some_and(|kind| kind == "img" || kind == "zst")
    });
    names.sort();
    for path in names {
        let whole = fs::read(&path)?;
        let Some(damaged) = damage(&mut random, &whole) else {
            continue;
        };
        if damaged.is_empty() {
            fs::remove_file(&path)?;
        } else {
            fs::write(&path, &damaged)?;
        }
        let told = || format!("{} damaged, seed {seed}", path.display());
        let outcome = engine.restore(&images, &[])?;
        if outcome.ok() {
            guest.tree.kill();
        }
        must_fail(&outcome, "restore").with_context(told)?;
        must_be_gone(&guest).with_context(told)?;
        fs::write(&path, &whole)?;
    }
    engine.restore(&images, &[])?.expect("restore")?;
    guest.check()?;
    Ok(Verdict::Passed)
}

fn images_truncated() -> Result<Verdict> {
    with_damage(|random, whole| {
        let keep = 1 + random.below((whole.len() as u64).checked_sub(1)?) as usize;
        Some(whole.get(..keep)?.to_vec())
    })
}

fn images_flipped() -> Result<Verdict> {
    with_damage(|random, whole| {
        let mut damaged = whole.to_vec();
        let at = random.below(whole.len() as u64) as usize;
        *damaged.get_mut(at)? ^= 1 << random.below(8);
        Some(damaged)
    })
}

fn image_removed() -> Result<Verdict> {
    with_damage(|_, _| Some(Vec::new()))
}
