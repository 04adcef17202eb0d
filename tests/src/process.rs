//! The test's own processes: building what they run, finding, collecting and ending them.

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Makes this process the parent of every orphan below it (`PR_SET_CHILD_SUBREAPER`, `prctl(2)`).
///
/// # Errors
///
/// The kernel's refusal, which no supported kernel gives.
pub fn adopt_orphans() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become a subreaper")
}

/// Builds `gelid` and the guest program once, in the profile of this test, and tells where they are. `GELID_BUILT` in
/// the environment says that they are built.
///
/// # Errors
///
/// A build that fails.
pub fn build() -> Result<&'static Path> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOLDER
        .get_or_init(|| build_now().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|text| anyhow::anyhow!("{text}"))
}

/// The folder of the built programs: where this test program itself was built.
fn build_now() -> Result<PathBuf> {
    let own = std::env::current_exe().context("path of the test program")?;
    let folder = own
        .parent()
        .and_then(Path::parent)
        .context("test program outside a target folder")?;
    if std::env::var_os("GELID_BUILT").is_some() {
        return Ok(folder.to_owned());
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "-p", "gelid-guests"]);
    if std::env::var_os("GELID_BIN").is_none() {
        cargo.args(["-p", "gelid"]);
    }
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => {}
        Some("release") => drop(cargo.arg("--release")),
        Some(profile) => drop(cargo.args(["--profile", profile])),
        None => bail!("no profile in {}", folder.display()),
    }
    if let Some(target) = folder.parent() {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let status = cargo.status().context("start cargo")?;
    ensure!(status.success(), "building gelid and the guests: {status}");
    Ok(folder.to_owned())
}

/// Ids of processes that a test will collect itself. All other children that end are strays: forked by a
/// tree between the last look at it and its death.
static CLAIMED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// The claims; held while processes are started that have none, so that nobody takes them for strays.
pub(crate) fn claims() -> MutexGuard<'static, BTreeSet<i32>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Collects the children of this process that have ended and that nobody has claimed.
fn collect_strays() {
    let claimed = claims();
    let strays = children(std::process::id().cast_signed())
        .into_iter()
        .filter(|pid| !claimed.contains(pid));
    for pid in strays.filter_map(Pid::from_raw) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Starts a process and claims it at once.
///
/// # Errors
///
/// It cannot be started.
pub fn spawn(command: &mut Command) -> std::io::Result<std::process::Child> {
    let mut claimed = claims();
    let child = command.spawn()?;
    claimed.insert(child.id().cast_signed());
    Ok(child)
}

/// Runs a command to its end and tells whether it succeeded; it writes nothing.
#[must_use]
pub fn succeeds(command: &mut Command) -> bool {
    use std::process::Stdio;
    let _claimed = claims();
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

/// Runs a command to its end while others start theirs, and tells whether it succeeded. It and what it leaves behind
/// have nothing but `/dev/null` open.
///
/// # Errors
///
/// It cannot be started.
pub fn succeeds_alone(command: &mut Command) -> Result<bool> {
    use std::process::Stdio;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = spawn(command).with_context(|| format!("{command:?}"))?;
    let status = child.wait();
    claims().remove(&child.id().cast_signed());
    Ok(status?.success())
}

/// Runs a command to its end while others start theirs; what it wrote to its standard output and error, as far as
/// nobody else has these descriptors by then: a container keeps those that it was started with.
///
/// # Errors
///
/// It cannot be started.
pub fn run_to_end(command: &mut Command) -> Result<std::process::Output> {
    let files = [tempfile::tempfile()?, tempfile::tempfile()?];
    command
        .stdout(files[0].try_clone()?)
        .stderr(files[1].try_clone()?);
    let mut child = spawn(command).with_context(|| format!("{command:?}"))?;
    let status = child.wait();
    claims().remove(&child.id().cast_signed());
    let [stdout, stderr] = files.map(|mut file| -> std::io::Result<Vec<u8>> {
        let mut text = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut text)?;
        Ok(text)
    });
    Ok(std::process::Output {
        status: status?,
        stdout: stdout?,
        stderr: stderr?,
    })
}

/// Runs a command to its end; what it wrote to its standard output.
///
/// # Errors
///
/// It cannot be started, or writes what is not UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    let _claimed = claims();
    Ok(String::from_utf8(command.output()?.stdout)?)
}

/// Ids of the children of every thread of a process; none if it is gone.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}

/// A process and all that descend from it, parents before children.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let (mut found, mut next) = (vec![root], 0);
    while let Some(pid) = found.get(next).copied() {
        let new: Vec<i32> = children(pid)
            .into_iter()
            .filter(|child| !found.contains(child))
            .collect();
        found.extend(new);
        next += 1;
    }
    found
}

/// Whether a task with this id exists, as a zombie or alive.
pub(crate) fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A process tree that this test started: everything that was ever seen in it.
#[derive(Debug)]
pub struct Tree {
    root: i32,
    seen: BTreeSet<i32>,
    /// Those that left it before it was ready: they are ended with the test, but not with the tree.
    strangers: BTreeSet<i32>,
}

impl Tree {
    /// The tree below a process just started.
    #[must_use]
    pub fn new(root: i32) -> Self {
        claims().insert(root);
        Self {
            root,
            seen: [root].into(),
            strangers: BTreeSet::new(),
        }
    }

    /// The tree has come back, with another id. Those that it had are somebody else's by now.
    pub fn again(&mut self, root: i32) {
        let mut claims = claims();
        for pid in std::mem::take(&mut self.seen) {
            claims.remove(&pid);
        }
        self.strangers.clear();
        claims.insert(root);
        self.root = root;
        self.seen.insert(root);
    }

    /// Id of the root.
    #[must_use]
    pub fn root(&self) -> i32 {
        self.root
    }

    /// Takes notice of all processes that are in the tree now, and gives them back.
    pub fn look(&mut self) -> Vec<i32> {
        let now = descendants(self.root);
        self.seen.extend(&now);
        claims().extend(&now);
        now
    }

    /// Takes notice of a tree that is ready: who is not in it by now has left it.
    pub fn settle(&mut self) {
        let now: BTreeSet<i32> = self.look().into_iter().collect();
        self.strangers = self.seen.difference(&now).copied().collect();
    }

    /// Collects zombies until nothing of the tree is left, so that its ids are free again.
    ///
    /// # Errors
    ///
    /// Something of the tree is left when the time is over.
    pub fn await_death(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            self.collect();
            let left: Vec<i32> = self
                .seen
                .difference(&self.strangers)
                .copied()
                .filter(|pid| exists(*pid))
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            ensure!(
                start.elapsed() < limit,
                "still there after {limit:?}: {}",
                describe(&left)
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the root, which is a child of this process, to end; its wait status.
    ///
    /// # Errors
    ///
    /// It is no child and becomes none, or does not end in time.
    pub fn await_root(&self, limit: Duration) -> Result<i32> {
        let start = Instant::now();
        let root = Pid::from_raw(self.root).context("root has no id")?;
        loop {
            match waitpid(Some(root), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => return Ok(status.as_raw()),
                Ok(None) => {}
                // Whoever has restored it ends after it is done, and only then leaves it to this process.
                Err(Errno::CHILD) if exists(self.root) => {}
                Err(errno) => return Err(errno).context("wait for the root of the tree"),
            }
            ensure!(
                start.elapsed() < limit,
                "not ended after {limit:?}: {}",
                describe(&descendants(self.root))
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Collects whatever zombies of the tree are children of this process.
    fn collect(&self) {
        for pid in self.seen.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        collect_strays();
    }

    /// Kills what is left of the tree: processes seen in it that still descend from this one, and
    /// their descendants.
    pub fn kill(&mut self) {
        for _ in 0..200 {
            self.collect();
            let mine = descendants(std::process::id().cast_signed());
            let left: BTreeSet<i32> = mine
                .iter()
                .filter(|pid| self.seen.contains(pid))
                .flat_map(|pid| descendants(*pid))
                .collect();
            if left.is_empty() {
                return;
            }
            self.seen.extend(&left);
            for pid in left.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("could not end all of {:?}", self.seen);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.kill();
        let mut claimed = claims();
        claimed.retain(|pid| !self.seen.contains(pid));
    }
}

/// Ids with state and name, for messages.
fn describe(pids: &[i32]) -> String {
    let one = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let name = stat
            .split(' ')
            .skip(1)
            .take(2)
            .collect::<Vec<_>>()
            .join(" ");
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        format!(
            "{pid} {name} in call {}",
            call.split(' ').next().unwrap_or_default().trim()
        )
    };
    pids.iter().take(5).map(one).collect::<Vec<_>>().join(", ")
}
