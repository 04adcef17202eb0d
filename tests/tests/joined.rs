//! Trees in a user namespace of somebody else.

use crate::failures::{must_be_gone, must_fail, start};
use crate::networks::{await_word, dumped, tool};
use crate::trial;
use anyhow::{Result, bail, ensure};
use gelid_tests::{Engine, Guest, Started, Verdict, spawn, succeeds};
use libtest_mimic::Trial;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

/// Who is root in there.
const FIRST: u32 = 300_000;

/// Every test of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("namespaces/users-of-others".to_owned(), users)]
}

fn users() -> Result<Verdict> {
    let words = ["--user", "sh", "-c", "echo there; exec sleep 300"];
    let holder = spawn(tool("unshare", &words).stdout(Stdio::piped()));
    let Ok(mut holder) = holder else {
        return Ok(Verdict::Skipped("unshare is not installed".to_owned()));
    };
    let pid = holder.id();
    let tried = await_word(&mut holder)
        .and_then(|()| last_of_all(pid))
        .and_then(|()| from_birth(pid));
    holder.kill()?;
    holder.wait()?;
    tried.map(|()| Verdict::Passed)
}

/// The user namespace of a process.
fn users_of(pid: impl std::fmt::Display) -> Result<PathBuf> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/user"))?)
}

/// Sees that a tree is in the namespace, with its root as the root there.
fn is_there(guest: &mut Guest, holder: u32) -> Result<()> {
    let wanted = users_of(holder)?;
    for pid in guest.tree.look() {
        let now = users_of(pid)?;
        ensure!(now == wanted, "{pid}: {now:?} instead of {wanted:?}");
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let ids = format!("Uid:\t{FIRST}\t{FIRST}\t{FIRST}\t{FIRST}\n");
        ensure!(status.contains(&ids), "{status}");
    }
    Ok(())
}

/// A tree of the host's users: it is made with its numbers, and enters then.
fn last_of_all(holder: u32) -> Result<()> {
    let (mut guest, engine) = (start("idle-tree", &[])?, Engine::find()?);
    // Somebody else writes there then.
    fs::set_permissions(guest.path(), Permissions::from_mode(0o777))?;
    let images = dumped(&guest, &engine)?;
    let target = format!("user:{holder},0,0");
    let options = ["--join-ns", &target];
    let nobody = engine.restore(&images, &options)?;
    ensure!(!nobody.ok(), "nobody is root there yet");
    for map in ["uid_map", "gid_map"] {
        fs::write(
            format!("/proc/{holder}/{map}"),
            format!("0 {FIRST} 65536\n"),
        )?;
    }
    for phase in ["births", "state"] {
        must_fail(&engine.failing_in(phase).restore(&images, &options)?, phase)?;
        must_be_gone(&guest)?;
    }
    engine.restore(&images, &options)?.expect("restore")?;
    is_there(&mut guest, holder)?;
    guest.check()
}

/// A tree that had users of its own, to which all else of it belonged: it is born there.
fn from_birth(holder: u32) -> Result<()> {
    let kinds = "pid user uts net";
    let mut guest = match Guest::start("tree-deep", Some(kinds), &[], &[])? {
        Started::Ready(guest) => guest,
        Started::Skip(reason) => bail!("{reason}"),
    };
    let engine = Engine::find()?;
    let images = dumped(&guest, &engine)?;
    let target = format!("user:/proc/{holder}/ns/user");
    let options = ["--join-ns", &target];
    must_fail(
        &engine.failing_in("births").restore(&images, &options)?,
        "births",
    )?;
    let file = guest.images("root.pid").display().to_string();
    let options = [
        "--join-ns",
        &target,
        "--restore-sibling",
        "--pidfile",
        &file,
    ];
    engine.restore(&images, &options)?.expect("restore")?;
    guest.tree.again(fs::read_to_string(&file)?.trim().parse()?);
    is_there(&mut guest, holder)?;
    let root = guest.tree.root().to_string();
    let words = ["-t", &root, "-U", "-u", "hostname", "mine"];
    ensure!(
        succeeds(&mut tool("nsenter", &words)),
        "its host is that of somebody above"
    );
    guest.check()
}
