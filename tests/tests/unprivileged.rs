//! Dumps and restores by somebody who is not root and has two capabilities, `CAP_CHECKPOINT_RESTORE` and
//! `CAP_SYS_PTRACE`: on the host, and in a user namespace, where much may not even be looked at.

use crate::trial;
use anyhow::{Context, Result, bail, ensure};
use gelid_tests::{Engine, Verdict, build, run_to_end};
use libtest_mimic::Trial;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use tempfile::TempDir;

/// Has each guest in `$NAMES` dumped and restored in a folder of its own below `$DIR`, and says what came of it.
pub(crate) const SCRIPT: &str = r#"
for name in $NAMES; do
    mkdir -p "$DIR/$name/images" && cd "$DIR/$name" || exit 1
    setsid "$GUEST" "$name" "$PWD" </dev/null >/dev/null 2>&1 &
    pid=$!
    n=0; until [ -s ready ]; do n=$((n+1)); [ $n -gt 1000 ] && break; sleep 0.02; done
    case $(cat ready) in skip*) echo "$name: skipped"; continue ;; esac
    "$GELID" dump -t $pid -D images -o dump.log -v4 --unprivileged ||
        { echo "$name: dump: $(grep Error images/dump.log)"; kill -9 $pid; continue; }
    wait $pid
    "$GELID" restore -d -D images -o restore.log -v4 --unprivileged ||
        { echo "$name: restore: $(grep Error images/restore.log)"; continue; }
    : >go
    n=0; until [ -s result ]; do n=$((n+1)); [ $n -gt 1000 ] && break; sleep 0.02; done
    echo "$name: $(head -n 1 result)"
done 2>/dev/null
"#;

/// Guests that take no rights themselves, and no names that those in another pid namespace could take too.
pub(crate) const GUESTS: &str = "regular deleted-directory pipe-data shared-anon shared-anon-moved file-private \
    epoll-timerfd mutexes zombies handlers posix-timers umask limits tcp-listening unix-pairs \
    unix-queues blocked-futex";

const CAPABILITIES: &str = "+checkpoint_restore,+sys_ptrace";

/// Somebody who is not root.
const USER: u32 = 64_321;

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("unprivileged/ambient".into(), ambient),
        trial("unprivileged/user-namespace".into(), user_namespace),
    ]
}

/// All must have come back, or not be for this machine.
pub(crate) fn all_came_back(said: &str) -> Result<()> {
    for name in GUESTS.split_whitespace() {
        let found = said
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        match found.with_context(|| format!("nothing is said of {name}:\n{said}"))? {
            "ok" | "skipped" => {}
            wrong => bail!("{name}: {wrong}"),
        }
    }
    Ok(())
}

/// The programs, where everybody can reach them, and a folder of that user.
fn place() -> Result<TempDir> {
    let place = tempfile::Builder::new().prefix("gelid-user.").tempdir()?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    fs::copy(Engine::find()?.program(), place.path().join("gelid"))?;
    fs::copy(
        build()?.join("gelid-guest"),
        place.path().join("gelid-guest"),
    )?;
    let own = place.path().join("own");
    fs::create_dir(&own)?;
    chown(own, Some(USER), Some(USER))?;
    Ok(place)
}

/// A command of that user, by `setpriv`, in a pid namespace where nobody else takes numbers.
fn command(place: &TempDir, words: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-fpm", "--mount-proc", "--", "setpriv"]);
    let ids = [format!("--reuid={USER}"), format!("--regid={USER}")];
    command.args(ids).arg("--clear-groups").args(words);
    command
        .env("NAMES", GUESTS)
        .env("DIR", place.path().join("own"))
        .env("GELID", place.path().join("gelid"))
        .env("GUEST", place.path().join("gelid-guest"))
        .env("HOME", "/nonexistent")
        .env_remove("CRIU_CONFIG_FILE");
    command.current_dir("/");
    command
}

/// Runs it and looks at what it says.
fn run(place: &TempDir, words: &[&str]) -> Result<Verdict> {
    let output = run_to_end(&mut command(place, words))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{} {said} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    all_came_back(&said)?;
    Ok(Verdict::Passed)
}

/// Whether a command of that user works here.
fn works(place: &TempDir, words: &[&str]) -> bool {
    let output = run_to_end(&mut command(place, words));
    output.is_ok_and(|output| output.status.success())
}

/// Capabilities that everything started has.
fn ambient() -> Result<Verdict> {
    let place = place()?;
    let with = ["--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES];
    if !works(&place, &[&with[..], &["true"]].concat()) {
        return Ok(Verdict::Skipped(
            "setpriv gives no such capabilities".into(),
        ));
    }
    run(&place, &[&with[..], &["sh", "-c", &script()]].concat())
}

/// Capabilities of the executable, which count in a user namespace only.
fn user_namespace() -> Result<Verdict> {
    let place = place()?;
    let inside = ["unshare", "-Ucfpm", "--mount-proc", "--"];
    if !works(&place, &[&inside[..], &["true"]].concat()) {
        return Ok(Verdict::Skipped("no user namespaces for everybody".into()));
    }
    let mut set = Command::new("setcap");
    set.arg("cap_checkpoint_restore,cap_sys_ptrace+eip");
    set.arg(place.path().join("gelid"));
    if !run_to_end(&mut set).is_ok_and(|output| output.status.success()) {
        return Ok(Verdict::Skipped("no setcap".into()));
    }
    run(&place, &[&inside[..], &["sh", "-c", &script()]].concat())
}

/// With a shell that stays, since it is the first process, and takes care of orphans.
fn script() -> String {
    format!("{SCRIPT}\ntrue")
}
