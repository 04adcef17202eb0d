//! Action scripts: when they are run, what they are told, and what becomes of it if they object.

use crate::failures::{must_be_gone, must_be_untouched, must_fail, start};
use crate::trial;
use anyhow::{Context, Result, ensure};
use gelid_tests::{Engine, Guest, Verdict};
use libtest_mimic::Trial;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A test with a name.
type Test = (&'static str, fn() -> Result<Verdict>);

const TESTS: &[Test] = &[
    ("all-in-order", all_in_order),
    ("leave-running", leave_running),
    ("pre-dump-objects", pre_dump_objects),
    ("post-dump-objects", post_dump_objects),
    ("post-restore-objects", post_restore_objects),
];

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    let tests = TESTS.iter();
    let tests = tests.map(|(name, body)| trial(format!("hook/{name}"), body));
    tests.collect()
}

/// A script that writes down the moment, the root, its state, and whether images are there; it fails at the moment
/// `objects_to`.
fn script(folder: &Path, name: &str, objects_to: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    let told = folder.join("told");
    let text = format!(
        "#!/bin/sh\n\
         pid=${{CRTOOLS_INIT_PID:-none}}\n\
         state=$(sed -n 's/^State:[^A-Za-z]*\\(.\\).*/\\1/p' /proc/$pid/status 2>/dev/null)\n\
         images=no; [ -e $CRTOOLS_IMAGE_DIR/inventory.img ] && images=yes\n\
         read line && images=input\n\
         [ -e /proc/self/fd/3 ] && images=descriptor\n\
         echo {name} $CRTOOLS_SCRIPT_ACTION $pid ${{state:-none}} $images >>{}\n\
         [ $CRTOOLS_SCRIPT_ACTION != \"{objects_to}\" ]\n",
        told.display()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    Ok(path)
}

/// What the scripts have written down, with the root's pid replaced.
fn told(folder: &Path, pid: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(folder.join("told")).context("no script was run")?;
    let lines = text.lines().map(|line| line.replace(pid, "PID"));
    Ok(lines.collect())
}

struct Scene {
    engine: Engine,
    guest: Guest,
    folder: PathBuf,
    images: PathBuf,
    pid: String,
}

impl Scene {
    fn new() -> Result<Self> {
        let mut guest = start("threads", &[])?;
        let folder = guest.images("scripts");
        fs::create_dir(&folder)?;
        guest.tree.look();
        Ok(Self {
            engine: Engine::find()?,
            folder,
            images: guest.images("images"),
            pid: guest.tree.root().to_string(),
            guest,
        })
    }

    fn script(&self, name: &str, objects_to: &str) -> Result<String> {
        Ok(script(&self.folder, name, objects_to)?
            .display()
            .to_string())
    }
}

fn all_in_order() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let (first, second) = (scene.script("first", "")?, scene.script("second", "")?);
    let words = ["--action-script", &first, "--action-script", &second];
    let root = scene.guest.tree.root();
    scene
        .engine
        .dump(root, &scene.images, &words)?
        .expect("dump")?;
    scene.guest.tree.await_death(Duration::from_secs(20))?;
    scene
        .engine
        .restore(&scene.images, &words)?
        .expect("restore")?;
    scene.guest.check()?;
    let want = [
        "pre-dump PID S no",
        "post-dump PID t yes",
        "pre-restore none none yes",
        "post-restore PID t yes",
        "pre-resume PID t yes",
        "post-resume PID S yes",
    ];
    // The one that was given last comes first.
    let want = want
        .iter()
        .flat_map(|line| [format!("second {line}"), format!("first {line}")]);
    let want: Vec<String> = want.collect();
    let told = told(&scene.folder, &scene.pid)?;
    // It runs, or waits again.
    let told = told.iter().map(|line| line.replace("PID R", "PID S"));
    let told: Vec<String> = told.collect();
    ensure!(told == want, "{told:#?}");
    Ok(Verdict::Passed)
}

fn leave_running() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let script = scene.script("only", "")?;
    let words = ["--action-script", &script, "--leave-running"];
    let root = scene.guest.tree.root();
    scene
        .engine
        .dump(root, &scene.images, &words)?
        .expect("dump")?;
    scene.guest.check()?;
    let told = told(&scene.folder, &scene.pid)?;
    // It runs, or waits.
    let told: Vec<String> = told
        .iter()
        .map(|line| line.replace("PID R", "PID S"))
        .collect();
    ensure!(
        told == ["only pre-dump PID S no", "only post-dump PID t yes"],
        "{told:#?}"
    );
    Ok(Verdict::Passed)
}

fn pre_dump_objects() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let script = scene.script("only", "pre-dump")?;
    let before = scene.guest.snapshot(&["sd"])?;
    let root = scene.guest.tree.root();
    let outcome = scene
        .engine
        .dump(root, &scene.images, &["--action-script", &script])?;
    must_fail(&outcome, "the dump")?;
    must_be_untouched(&mut scene.guest, &before, &[], &scene.images)?;
    ensure!(
        told(&scene.folder, &scene.pid)?.len() == 1,
        "more than one script was run"
    );
    scene.guest.check()?;
    Ok(Verdict::Passed)
}

fn post_dump_objects() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let script = scene.script("only", "post-dump")?;
    let before = scene.guest.snapshot(&["sd"])?;
    let root = scene.guest.tree.root();
    let outcome = scene
        .engine
        .dump(root, &scene.images, &["--action-script", &script])?;
    ensure!(outcome.code == Some(255), "exit code {:?}", outcome.code);
    must_be_untouched(&mut scene.guest, &before, &[], &scene.images)?;
    scene.guest.check()?;
    Ok(Verdict::Passed)
}

fn post_restore_objects() -> Result<Verdict> {
    let mut scene = Scene::new()?;
    let script = scene.script("only", "post-restore")?;
    let root = scene.guest.tree.root();
    scene
        .engine
        .dump(root, &scene.images, &[])?
        .expect("dump")?;
    scene.guest.tree.await_death(Duration::from_secs(20))?;
    let outcome = scene
        .engine
        .restore(&scene.images, &["--action-script", &script])?;
    must_fail(&outcome, "the restore")?;
    must_be_gone(&scene.guest)?;
    scene
        .engine
        .restore(&scene.images, &[])?
        .expect("restore")?;
    scene.guest.check()?;
    Ok(Verdict::Passed)
}
