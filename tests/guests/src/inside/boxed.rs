//! A root directory of its own, as a container has one: what the harness has put there, `/proc`, `/tmp` and `/dev/pts`.

use crate::os::os;
use crate::protocol::Check;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr::null;

/// Leaves the host's files for those of the folder that `dir` is in, and becomes the guest there.
pub(super) fn start(dir: &Path, words: &[String]) -> Check {
    let root = dir.parent().ok_or("a folder without a parent")?;
    let name = dir.file_name().ok_or("a folder without a name")?;
    let dir = Path::new("/").join(name);
    enter(root)?;
    // Nothing of the host's stays open.
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    let input = File::open("/dev/null")?;
    for (from, to) in [(&input, 0), (&log, 1), (&log, 2)] {
        os!(libc::dup2(from.as_raw_fd(), to))?;
    }
    drop((input, log));
    let guest = words.first().ok_or("a guest is missing")?;
    let rest = words.get(2..).unwrap_or_default();
    let error = Command::new("/gelid-guest")
        .arg(guest)
        .arg(dir)
        .args(rest)
        .exec();
    Err(error.into())
}

fn enter(root: &Path) -> Check {
    mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)?;
    mount(Some(root), root, None, libc::MS_BIND)?;
    for (kind, place) in [("proc", "proc"), ("tmpfs", "tmp"), ("devpts", "dev/pts")] {
        mount(None, &root.join(place), Some(kind), 0)?;
    }
    std::env::set_current_dir(root)?;
    os!(libc::syscall(
        libc::SYS_pivot_root,
        c".".as_ptr(),
        c".".as_ptr()
    ))?;
    os!(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// The word that stands for a kind of file system is what its mount is called, too.
fn mount(from: Option<&Path>, to: &Path, kind: Option<&str>, flags: libc::c_ulong) -> Check {
    let path = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let kind = kind.map(CString::new).transpose()?;
    let from = from.map(path).transpose()?.or_else(|| kind.clone());
    let to = path(to)?;
    let raw = |word: &Option<CString>| word.as_ref().map_or(null(), |word| word.as_ptr());
    os!(libc::mount(
        raw(&from),
        to.as_ptr(),
        raw(&kind),
        flags,
        null()
    ))?;
    Ok(())
}
