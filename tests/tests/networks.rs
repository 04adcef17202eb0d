//! Network namespaces whose links and whose place are a matter of the caller.

use crate::failures::{must_be_gone, must_fail, start};
use crate::trial;
use anyhow::{Context, Result, ensure};
use gelid_tests::{Engine, Guest, Verdict, output, spawn, succeeds};
use libtest_mimic::Trial;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where programs of the network are, beside where others are.
const PLACES: &str = "/usr/sbin:/sbin";

/// Phases of a restore in which something of it is there.
const PHASES: [&str; 7] = [
    "namespaces",
    "files",
    "births",
    "memory",
    "threads",
    "state",
    "release",
];

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("network/pair-of-links".to_owned(), pair_of_links),
        trial("network/joined".to_owned(), joined),
        trial("namespaces/joined".to_owned(), others_joined),
        trial("namespaces/pids-of-others".to_owned(), pids_of_others),
    ]
}

pub(crate) fn tool(program: &str, words: &[&str]) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words).env("PATH", format!("{path}:{PLACES}"));
    command
}

/// Has `ip` do something, in the namespace of a process or in that of the test.
fn ip(inside: Option<i32>, words: &str) -> Result<String> {
    let mut all: Vec<&str> = words.split(' ').collect();
    let pid = inside.map(|pid| pid.to_string()).unwrap_or_default();
    match inside {
        None => output(&mut tool("ip", &all)),
        Some(_) => {
            all.splice(0..0, ["-n", "-t", pid.as_str(), "ip"]);
            output(&mut tool("nsenter", &all))
        }
    }
}

/// A bridge outside of the guest, and the name of the outer end of its pair.
struct Outside {
    bridge: String,
    outer: String,
}

impl Outside {
    fn has(&self, link: &str) -> bool {
        Path::new("/sys/class/net").join(link).exists()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for link in [&self.outer, &self.bridge] {
            let _ = ip(None, &format!("link del {link}"));
        }
    }
}

fn missing() -> Option<Verdict> {
    let there = succeeds(&mut tool("ip", &["-V"]));
    (!there).then(|| Verdict::Skipped("ip is not installed".to_owned()))
}

/// Dumps the guest, with its pair, into a new folder.
pub(crate) fn dumped(guest: &Guest, engine: &Engine) -> Result<PathBuf> {
    let images = guest.images("images");
    let options = ["--tcp-established"];
    let outcome = engine.dump(guest.tree.root(), &images, &options)?;
    outcome.expect("dump")?;
    guest.tree.await_death(Duration::from_secs(20))?;
    Ok(images)
}

fn pair_of_links() -> Result<Verdict> {
    if let Some(verdict) = missing() {
        return Ok(verdict);
    }
    let (mut guest, engine) = (start("net-sockets", &[])?, Engine::find()?);
    let root = guest.tree.root();
    let outside = Outside {
        bridge: format!("glb{root}"),
        outer: format!("glo{root}"),
    };
    let Outside { bridge, outer } = &outside;
    ip(None, &format!("link add {bridge} type bridge"))?;
    ip(
        None,
        &format!("link add {outer} type veth peer name eth0 netns {root}"),
    )?;
    ip(Some(root), "addr add 10.77.0.2/24 dev eth0")?;
    ip(Some(root), "link set eth0 up")?;
    guest.tree.look();
    let images = dumped(&guest, &engine)?;
    // The other end has died with its namespace, a moment later.
    for _ in 0..500 {
        if !outside.has(outer) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let key = format!("veth[eth0]:{outer}@{bridge}");
    let options = ["--tcp-established", "--external", &key];
    for phase in PHASES {
        let outcome = engine.failing_in(phase).restore(&images, &options)?;
        must_fail(&outcome, phase)?;
        must_be_gone(&guest)?;
        ensure!(!outside.has(outer), "{phase}: {outer} is left");
    }
    engine.restore(&images, &options)?.expect("restore")?;
    let link = ip(None, &format!("-o link show {outer}"))?;
    ensure!(link.contains(&format!("master {bridge}")), "{link}");
    let address = ip(Some(root), "-o addr show dev eth0")?;
    ensure!(address.contains("10.77.0.2/24"), "{address}");
    guest.check()?;
    Ok(Verdict::Passed)
}

fn joined() -> Result<Verdict> {
    if let Some(verdict) = missing() {
        return Ok(verdict);
    }
    let (mut guest, engine) = (start("net-sockets", &[])?, Engine::find()?);
    let root = guest.tree.root();
    // What the guest was in is held, and joined again as it is.
    let namespace = File::open(format!("/proc/{root}/ns/net")).context("namespace")?;
    let before = std::fs::read_link(format!("/proc/{root}/ns/net"))?;
    let images = dumped(&guest, &engine)?;
    let (own, fd) = (std::process::id(), namespace.as_raw_fd());
    let target = format!("net:/proc/{own}/fd/{fd}");
    let options = ["--tcp-established", "--join-ns", &target];
    engine.restore(&images, &options)?.expect("restore")?;
    let after = std::fs::read_link(format!("/proc/{root}/ns/net"))?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    guest.check()?;
    Ok(Verdict::Passed)
}

/// A tree that is not the first in its pid namespace: in that of others, which is given back by a key or by a path, and
/// where nothing is left of a restore that fails.
fn pids_of_others() -> Result<Verdict> {
    // Whoever is the first there takes orphans, and waits for them.
    let first = "trap : CHLD; echo there; while :; do sleep 0.01; done";
    let words = ["--pid", "--fork", "--kill-child", "sh", "-c", first];
    let holder = spawn(tool("unshare", &words).stdout(Stdio::piped()));
    let Ok(mut holder) = holder else {
        return Ok(Verdict::Skipped("unshare is not installed".to_owned()));
    };
    let tried = await_word(&mut holder).and_then(|()| among_those_of(&holder));
    holder.kill()?;
    holder.wait()?;
    tried
}

pub(crate) fn await_word(holder: &mut Child) -> Result<()> {
    let output = holder.stdout.take();
    let told = output.context("output")?.read_exact(&mut [0; 6]);
    told.context("the holder says nothing")
}

fn among_those_of(holder: &Child) -> Result<Verdict> {
    let inner = child_of(holder.id())?;
    let namespace = File::open(format!("/proc/{inner}/ns/pid")).context("namespace")?;
    let folder = tempfile::tempdir()?;
    let at = folder.path().display();
    let script = format!(
        "i=0; while :; do i=$((i+1)); echo $i >{at}/c; mv {at}/c {at}/count; sleep 0.01; done"
    );
    let words = ["-p", "-t", &inner, "setsid", "sh", "-c", &script];
    let mut command = tool("nsenter", &words);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut parent = spawn(command.stderr(Stdio::null())).context("nsenter")?;
    let count = folder.path().join("count");
    counts_from(&count, 0)?;
    let root: i32 = child_of(parent.id())?.parse()?;
    let engine = Engine::find()?;
    let refused = engine.dump(root, &folder.path().join("refused"), &[])?;
    ensure!(!refused.ok(), "it is dumped without its namespace");
    counts_from(&count, counted(&count))?;
    let images = folder.path().join("images");
    let key = format!("pid[{}]:pids", namespace.metadata()?.ino());
    let dumped = engine.dump(root, &images, &["--external", &key])?;
    dumped.expect("dump")?;
    parent.wait()?;
    let before = counted(&count);
    let missing = engine.restore(&images, &[])?;
    ensure!(!missing.ok(), "it is restored without its namespace");
    let target = format!(
        "pid:/proc/{}/fd/{}",
        std::process::id(),
        namespace.as_raw_fd()
    );
    let options = ["--join-ns", &target];
    let shown = at.to_string();
    for phase in PHASES {
        must_fail(&engine.failing_in(phase).restore(&images, &options)?, phase)?;
        ensure!(!anybody_with(&shown)?, "{phase}: somebody is left");
    }
    engine.restore(&images, &options)?.expect("restore")?;
    counts_from(&count, before)?;
    Ok(Verdict::Passed)
}

/// The only child of a process.
pub(crate) fn child_of(pid: u32) -> Result<String> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let first = children.split_whitespace().next();
    Ok(first.context("a child")?.to_owned())
}

fn counted(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

/// Waits until it is counted on from there.
fn counts_from(file: &Path, from: u64) -> Result<()> {
    for _ in 0..1000 {
        let now = counted(file);
        ensure!(now >= from || now == 0, "it counts {now} after {from}");
        if now > from + 2 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    anyhow::bail!("it stands at {from}")
}

/// Whether a process lives that was called with a word.
fn anybody_with(word: &str) -> Result<bool> {
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let called = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let called = String::from_utf8_lossy(&called).contains(word);
        if called && entry.file_name() != own.as_str() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Host names, clocks, IPC and mounts of somebody else.
fn others_joined() -> Result<Verdict> {
    let kinds = ["uts", "ipc", "time", "mnt"];
    let mut words = vec![
        "--uts",
        "--ipc",
        "--mount",
        "--time",
        "--monotonic",
        "1000000",
        "--fork",
    ];
    words.extend(["--kill-child", "sh", "-c", "echo there; exec sleep 300"]);
    let holder = spawn(tool("unshare", &words).stdout(Stdio::piped()));
    let Ok(mut holder) = holder else {
        return Ok(Verdict::Skipped("unshare is not installed".to_owned()));
    };
    let tried = await_word(&mut holder).and_then(|()| join_those_of(&holder, kinds));
    holder.kill()?;
    holder.wait()?;
    tried
}

fn join_those_of(holder: &Child, kinds: [&str; 4]) -> Result<Verdict> {
    let pid = holder.id();
    let inner = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let inner = inner.trim();
    let link = |of: &str, kind| std::fs::read_link(format!("/proc/{of}/ns/{kind}"));
    let (mut guest, engine) = (start("idle-tree", &[])?, Engine::find()?);
    let images = dumped(&guest, &engine)?;
    let targets = kinds.map(|kind| format!("{kind}:/proc/{inner}/ns/{kind}"));
    let mut options = Vec::new();
    for target in &targets {
        options.extend(["--join-ns", target]);
    }
    engine.restore(&images, &options)?.expect("restore")?;
    let root = guest.tree.root().to_string();
    for kind in kinds {
        let (now, wanted) = (link(&root, kind)?, link(inner, kind)?);
        ensure!(now == wanted, "{kind}: {now:?} instead of {wanted:?}");
    }
    guest.check()?;
    Ok(Verdict::Passed)
}
