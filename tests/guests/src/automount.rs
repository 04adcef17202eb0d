//! Automounters (`autofs`) in a mount namespace of their own, with their daemon.
//!
//! `automount`: one that has been asked for something, one with a directory and a link, and one that asks nobody any more;
//! all of them are shown as before, and the first asks again. `automount-outside`: the daemon's pipe is nobody's in the tree.

use crate::Entry;
use crate::mounts::{fresh, mount, unmount};
use crate::os::os;
use crate::protocol::{Check, Failure, Guest, ensure, same};
use std::fs::{self, File};
use std::io::{Read, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

pub(crate) const GUESTS: &[Entry] = &[
    Entry("automount", automount),
    Entry("automount-outside", outside),
];

/// `AUTOFS_IOC_CATATONIC`, `AUTOFS_IOC_SETTIMEOUT` and `AUTOFS_IOC_READY`
const CATATONIC: u64 = 0x9362;
const SET_TIMEOUT: u64 = 0xc008_9364;
const READY: u64 = 0x9360;

/// Mounts one that asks by a pipe.
fn make(at: &Path, pipe: i32, kind: &str) -> Check<File> {
    // SAFETY: the call takes nothing.
    let group = unsafe { libc::getpgrp() };
    let options = format!("fd={pipe},pgrp={group},minproto=5,maxproto=5,{kind}");
    mount(Path::new("daemon"), at, "autofs", 0, &options)?;
    Ok(File::open(at)?)
}

/// What is shown of all of them, but for the inode of the pipe.
fn shown() -> Check<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let lines = text.lines().filter(|line| line.contains(" autofs "));
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').skip(4).collect();
        let words = words.join(" ");
        words
            .split(",pipe_ino=")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    Ok(lines.map(line).collect())
}

/// Serves one request of `kind` 3 (something in a directory) or 5 (the directory itself).
fn serve(requests: &mut impl Read, root: &File, at: &Path, kind: u32) -> Check {
    // struct autofs_v5_packet
    let mut packet = [0; 304];
    requests.read_exact(&mut packet)?;
    let word = |at: usize| {
        u32::from_ne_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
    };
    same!("kind of request", word(4), kind);
    let token = word(8);
    let at = match kind {
        3 => at.join("asked"),
        _ => at.to_owned(),
    };
    mount(Path::new("served"), &at, "tmpfs", 0, "size=64k")?;
    os!(libc::ioctl(root.as_raw_fd(), READY, u64::from(token)))?;
    Ok(())
}

/// Has somebody else, who is not let alone, open a path, which the daemon is asked for.
fn ask(guest: &Guest, path: &Path, serve: impl FnOnce() -> Check) -> Check {
    let kid = os!(libc::fork())?;
    if kid == 0 {
        // SAFETY: the calls take numbers.
        unsafe { libc::setpgid(0, 0) };
        let made = fs::write(path.join("file"), "text");
        std::process::exit(i32::from(made.is_err()));
    }
    let served = serve();
    let mut status = 0;
    os!(libc::waitpid(kid, &raw mut status, 0))?;
    served?;
    same!(
        "who asks",
        (status, guest.args.len()),
        (0, guest.args.len())
    );
    Ok(())
}

fn automount(guest: &Guest) -> Check {
    fresh()?;
    let (direct, indirect) = (guest.path("direct"), guest.path("indirect"));
    let silent = guest.path("silent");
    let (mut requests, writer) = pipe()?;
    let number = writer.as_raw_fd();
    let root = make(&direct, number, "direct")?;
    let roots = make(&indirect, number, "indirect")?;
    let still = make(&silent, number, "indirect")?;
    let mut timeout = 77_u64;
    os!(libc::ioctl(
        roots.as_raw_fd(),
        SET_TIMEOUT,
        &raw mut timeout
    ))?;
    fs::create_dir(indirect.join("empty"))?;
    symlink("empty", indirect.join("link"))?;
    fs::create_dir(silent.join("kept"))?;
    os!(libc::ioctl(still.as_raw_fd(), CATATONIC))?;
    drop(OwnedFd::from(writer));
    ask(guest, &direct, || serve(&mut requests, &root, &direct, 5))?;
    // What is covered has no path.
    drop(root);
    let before = shown()?;
    same!("automounters", before.len(), 3);
    guest.hold()?;
    same!("automounters", shown()?, before);
    same!(
        "what was asked for",
        fs::read(direct.join("file"))?,
        b"text"
    );
    same!(
        "link",
        fs::read_link(indirect.join("link"))?,
        Path::new("empty")
    );
    ensure!(indirect.join("empty").is_dir(), "the directory is gone");
    ensure!(
        silent.join("kept").is_dir(),
        "the directory that is silent is gone"
    );
    ensure!(!silent.join("nothing").exists(), "somebody was asked");
    let asked = indirect.join("asked");
    ask(guest, &asked, || serve(&mut requests, &roots, &indirect, 3))?;
    unmount(&direct)?;
    let root = File::open(&direct)?;
    ask(guest, &direct, || serve(&mut requests, &root, &direct, 5))
}

fn outside(guest: &Guest) -> Check {
    fresh()?;
    let (requests, writer) = pipe()?;
    let at = guest.path("outside");
    let root = make(&at, writer.as_raw_fd(), "indirect")?;
    drop((requests, OwnedFd::from(writer)));
    guest.hold()?;
    drop(root);
    Ok::<(), Failure>(())
}
