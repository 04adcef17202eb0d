//! One guest program on its way through a test.

use crate::process::{Tree, build, spawn};
use crate::snapshot::Snapshot;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A guest may take this long to set up, or to check itself.
const LIMIT: Duration = Duration::from_secs(60);

/// Variables of the environment that guests are given.
const PASSED_ON: [&str; 6] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "JAVA_HOME",
    "RUST_BACKTRACE",
];

/// A running guest, or the reason why it cannot run here.
#[derive(Debug)]
pub enum Started {
    /// It has said that it is ready.
    Ready(Guest),
    /// It has said why this machine cannot run it.
    Skip(String),
}

/// A guest that is ready to be dumped.
#[derive(Debug)]
pub struct Guest {
    /// All its processes; killed when the guest is dropped.
    pub tree: Tree,
    dir: TempDir,
    hash: String,
    inside: bool,
    boxed: bool,
}

impl Guest {
    /// Starts a guest in a folder of its own, which holds these files (name and text), and waits until its
    /// state is set up. In arguments `{dir}` stands for the folder.
    ///
    /// # Errors
    ///
    /// It ends before it is ready, or takes too long.
    pub fn start(
        name: &str,
        inside: Option<&str>,
        args: &[&str],
        files: &[(&str, &str)],
    ) -> Result<Started> {
        let dir = tempfile::Builder::new().prefix("gelid-guest.").tempdir()?;
        let boxed = inside.is_some_and(|kinds| kinds.split(' ').any(|kind| kind == "box"));
        let work = folder(dir.path(), boxed);
        fs::create_dir_all(&work)?;
        if boxed {
            crate::boxed::furnish(&dir.path().join("box"), &build()?.join("gelid-guest"))?;
        }
        for (file, text) in files {
            fs::write(work.join(file), text)?;
        }
        let shown = if boxed { Path::new("/work") } else { &work };
        let args = args
            .iter()
            .map(|word| word.replace("{dir}", &shown.display().to_string()));
        // Guests that become other users go on writing there.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(work.join("log"))?;
        let mut command = Command::new(build()?.join("gelid-guest"));
        if let Some(kinds) = inside {
            command.args(["inside", kinds]);
            // Whoever is nobody outside writes there.
            fs::set_permissions(&work, fs::Permissions::from_mode(0o777))?;
            log.set_permissions(fs::Permissions::from_mode(0o666))?;
        }
        command.arg(name).arg(&work).args(args).current_dir("/");
        // Differences between environments are printed: nothing of the caller's belongs there.
        command.env_clear().envs(
            std::env::vars_os().filter(|(name, _)| PASSED_ON.iter().any(|passed| name == passed)),
        );
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut child = spawn(&mut command).with_context(|| format!("start guest {name}"))?;
        let mut root = child.id().cast_signed();
        if inside.is_some() {
            // It has started the guest in its own place.
            ensure!(
                child.wait()?.success(),
                "the guest cannot be started inside"
            );
            root = fs::read_to_string(work.join("root"))?.parse()?;
        }
        let mut guest = Self {
            tree: Tree::new(root),
            dir,
            hash: String::new(),
            inside: inside.is_some(),
            boxed,
        };
        let start = Instant::now();
        loop {
            if let Ok(text) = fs::read_to_string(guest.path().join("ready")) {
                if let Some(reason) = text.strip_prefix("skip ") {
                    child.wait()?;
                    return Ok(Started::Skip(reason.trim().to_owned()));
                }
                guest.hash = guest.believe(&text)?;
                guest.tree.settle();
                return Ok(Started::Ready(guest));
            }
            if let Some(status) = child.try_wait()?.filter(|_| inside.is_none()) {
                bail!(
                    "ended before it was ready: {status}\n{}",
                    guest.last_words()
                );
            }
            ensure!(
                start.elapsed() < LIMIT,
                "not ready after {LIMIT:?}\n{}",
                guest.last_words()
            );
            guest.tree.look();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The hash in what a guest says when it is ready; the process id must be the one started.
    fn believe(&self, text: &str) -> Result<String> {
        let (pid, hash) = text
            .trim()
            .split_once(' ')
            .with_context(|| format!("ready says {text:?}"))?;
        ensure!(
            pid.parse() == Ok(if self.inside { 1 } else { self.tree.root() }),
            "ready says process {pid}, but {} was started",
            self.tree.root()
        );
        Ok(hash.to_owned())
    }

    /// The guest's own folder.
    #[must_use]
    pub fn path(&self) -> std::path::PathBuf {
        folder(self.dir.path(), self.boxed)
    }

    /// Its root directory, if that is its own.
    #[must_use]
    pub fn root_directory(&self) -> Option<std::path::PathBuf> {
        self.boxed.then(|| self.dir.path().join("box"))
    }

    /// A folder beside it, for images.
    #[must_use]
    pub fn images(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// What `/proc` shows of the tree now; see [`Snapshot::take`].
    ///
    /// # Errors
    ///
    /// A process that ends meanwhile.
    pub fn snapshot(&mut self, past: &[&str]) -> Result<Snapshot> {
        self.tree.look();
        Snapshot::take(self.tree.root(), past)
    }

    /// Says go, and waits for the guest's own verdict: `ok`, exit code 0, the nonce of the beginning, and
    /// nothing of the tree left.
    ///
    /// # Errors
    ///
    /// Whatever of this does not hold.
    pub fn check(&mut self) -> Result<()> {
        self.tree.look();
        fs::write(self.path().join("go"), "")?;
        let status = self
            .tree
            .await_root(LIMIT)
            .with_context(|| self.last_words())?;
        let result = fs::read_to_string(self.path().join("result"));
        let result = result.with_context(|| {
            format!("no result; wait status {status:#x}\n{}", self.last_words())
        })?;
        let (verdict, nonce) = result.trim_end().rsplit_once('\n').unwrap_or((&result, ""));
        ensure!(
            verdict == "ok",
            "guest says: {verdict}\n{}",
            self.last_words()
        );
        ensure!(
            status == 0,
            "guest says ok, but its wait status is {status:#x}"
        );
        let hash = format!("{:016x}", fnv1a(nonce.as_bytes()));
        ensure!(
            hash == self.hash,
            "the nonce is another one: this is not the process that was dumped"
        );
        self.tree.await_death(LIMIT)
    }

    /// What the guest and its children wrote.
    fn last_words(&self) -> String {
        let mut text = String::new();
        let names = fs::read_dir(self.path()).into_iter().flatten().flatten();
        for path in names.map(|entry| entry.path()).filter(|path| tells(path)) {
            let words = fs::read(&path).unwrap_or_default();
            let name = path.file_name().unwrap_or_default().display().to_string();
            text.push_str(&format!(
                "{name}: {}\n",
                String::from_utf8_lossy(&words).trim_end()
            ));
        }
        text
    }
}

/// The folder of a guest, below the root directory that it may have.
fn folder(dir: &Path, boxed: bool) -> std::path::PathBuf {
    dir.join(if boxed { "box/work" } else { "work" })
}

/// Whether a file of the guest's folder is meant for people.
fn tells(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let worth = name == "log" || name.starts_with("fail.");
    worth && fs::metadata(path).is_ok_and(|data| data.len() > 0)
}

/// 64-bit FNV-1a, as the guests compute it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn hash_of_the_published_vectors() {
        assert_eq!(super::fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
