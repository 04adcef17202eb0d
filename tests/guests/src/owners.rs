//! File systems that belong to user namespaces below that of the root.
//!
//! `owners`: in memory, of the root, of one below that and of one deeper, and the first of them that has come to both.
//! `owners-devpts`, `owners-unmapped`: terminals of one below, and memory of one that has no users, which are refused.

use crate::Entry;
use crate::mounts::{mount, private, procfs, tmpfs};
use crate::os::{errno, os};
use crate::protocol::{Check, Failure, Gate, Guest, same};
use crate::users::{become_user, hold, mapped, stay};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("owners", owners),
    Entry("owners-devpts", terminals),
    Entry("owners-unmapped", unmapped),
];

/// Whether a file system is ours to do with it what we like: it could be frozen, if it were one that can be.
fn is_ours(at: &Path) -> Check<bool> {
    const FIFREEZE: libc::c_ulong = 0xc004_5877;
    let dir = File::open(at)?;
    let asked = os!(libc::ioctl(dir.as_raw_fd(), FIFREEZE, 0));
    Ok(asked.is_ok() || errno() != libc::EPERM)
}

/// What is to be the same, of the file systems at some places.
fn seen(places: &[&Path]) -> Check<Vec<String>> {
    let mut seen = Vec::new();
    for at in places {
        let ours = is_ours(at)?;
        seen.push(format!("{} ours: {ours}", at.display()));
        for name in [".", "file", "dir", "dir/inner"] {
            let path = at.join(name);
            let meta = fs::metadata(&path)?;
            let (uid, gid, mode) = (meta.uid(), meta.gid(), meta.mode());
            seen.push(format!("{} {uid} {gid} {mode:o}", path.display()));
        }
    }
    Ok(seen)
}

fn fill(at: &Path, owner: u32) -> Check {
    fs::write(at.join("file"), "text")?;
    fs::create_dir(at.join("dir"))?;
    fs::write(at.join("dir/inner"), "inner")?;
    chown(at.join("file"), Some(owner), Some(owner + 1))?;
    Ok(())
}

/// Has what is mounted there grow, as only its owner may.
fn grow(at: &Path) -> Check {
    let (from, to) = (
        c"none",
        std::ffi::CString::new(at.to_string_lossy().as_bytes())?,
    );
    let (kind, data) = (c"tmpfs", c"size=8m");
    let flags = libc::MS_REMOUNT;
    os!(libc::mount(
        from.as_ptr(),
        to.as_ptr(),
        kind.as_ptr(),
        flags,
        data.as_ptr().cast()
    ))?;
    Ok(())
}

/// Skips the guest unless what it mounts, or makes at a path that every machine has, is for nobody else.
pub(crate) fn alone_with_mounts() -> Check {
    match is_of_the_caller()? {
        true => Err(Failure::skip("a mount namespace must be its own")),
        false => Ok(()),
    }
}

/// Whether what is mounted here would be mounted for the caller too. In a pid namespace of its own nobody has called it.
fn is_of_the_caller() -> Check<bool> {
    let Some(parent) = rustix::process::getppid() else {
        return Ok(false);
    };
    let of = |pid| fs::read_link(format!("/proc/{pid}/ns/mnt"));
    Ok(of(parent.to_string())? == of("self".to_owned())?)
}

/// Lets everybody in, and procfs know the numbers of who is here.
fn begin(guest: &Guest) -> Check {
    alone_with_mounts()?;
    private()?;
    procfs()?;
    // Where it is not ours, others see it already.
    let _ = guest.open_to_all();
    Ok(())
}

fn owners(guest: &Guest) -> Check {
    begin(guest)?;
    let gate = Gate::new()?;
    let [roots, mine, deep] = ["roots", "mine", "deep"].map(|name| guest.path(name));
    for place in [&mine, &deep] {
        fs::create_dir(place)?;
    }
    tmpfs("roots", &roots, 0, "size=1m,mode=755")?;
    fill(&roots, 0)?;
    let map = "0 1000 100\n";
    let kid = mapped(guest, "kid", (libc::CLONE_NEWNS, map, map), |guest| {
        become_user([0; 3], [0; 3], &[])?;
        private()?;
        tmpfs("mine", &mine, 0, "size=1m,mode=755,uid=7,gid=8")?;
        fill(&mine, 3)?;
        let inner = "5 10 5\n";
        let inner = mapped(guest, "inner", (libc::CLONE_NEWNS, inner, inner), |guest| {
            become_user([5; 3], [5; 3], &[])?;
            private()?;
            tmpfs("deep", &deep, 0, "size=1m,mode=700")?;
            fill(&deep, 6)?;
            let all = [roots.as_path(), &mine, &deep];
            let ours = || all.iter().map(|at| is_ours(at)).collect::<Check<Vec<_>>>();
            same!("ours", ours()?, [false, false, true]);
            let before = seen(&[&roots, &deep])?;
            stay(guest, &gate)?;
            same!("deep", seen(&[&roots, &deep])?, before);
            same!("ours", ours()?, [false, false, true]);
            grow(&deep)
        })?;
        let before = seen(&[&roots, &mine])?;
        same!("ours", [is_ours(&roots)?, is_ours(&mine)?], [false, true]);
        stay(guest, &gate)?;
        same!("mine", seen(&[&roots, &mine])?, before);
        grow(&mine)?;
        inner.join(guest)
    })?;
    let before = seen(&[&roots])?;
    hold(guest, gate, 2, &[kid])?;
    same!("roots", seen(&[&roots])?, before);
    grow(&roots)
}

fn terminals(guest: &Guest) -> Check {
    begin(guest)?;
    let gate = Gate::new()?;
    let at = guest.path("pts");
    fs::create_dir(&at)?;
    let map = "0 1000 100\n";
    let kid = mapped(guest, "kid", (libc::CLONE_NEWNS, map, map), |guest| {
        become_user([0; 3], [0; 3], &[])?;
        private()?;
        mount(Path::new("pts"), &at, "devpts", 0, "newinstance")?;
        stay(guest, &gate)?;
        same!("ours", is_ours(&at)?, true);
        Ok(())
    })?;
    hold(guest, gate, 1, &[kid])
}

fn unmapped(guest: &Guest) -> Check {
    begin(guest)?;
    let gate = Gate::new()?;
    let at = guest.path("memory");
    fs::create_dir(&at)?;
    let kid = guest.fork("kid", |guest| {
        os!(libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS))?;
        private()?;
        tmpfs("memory", &at, 0, "")?;
        stay(guest, &gate)?;
        same!("ours", is_ours(&at)?, true);
        Ok(())
    })?;
    hold(guest, gate, 1, &[kid])
}
