//! `gelid-guest inside KINDS GUEST DIR [ARGS]`: starts a guest as the first process in namespaces of its own, as a child
//! of the caller, and writes its pid as the caller sees it to `DIR/root`. With `box` among the kinds, and `mnt`, the folder
//! that `DIR` is in becomes its root directory.

mod boxed;

use crate::os::os;
use crate::protocol::{Check, Failure};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Users of a user namespace: their number, and what the first one is outside.
const USERS: (u32, u32) = (65536, 700_000);

/// The host that a guest is on, in a uts namespace of its own.
pub(crate) const HOST: &str = "gelid-inside";

/// Starts it.
pub(crate) fn start(kinds: &str, words: &[String]) -> Check {
    let kinds: Vec<&str> = kinds.split_whitespace().collect();
    let flags = kinds
        .iter()
        .try_fold(0, |flags, kind| Ok::<_, Failure>(flags | flag(kind)?))?;
    let has = |kind| kinds.contains(&kind);
    let dir = Path::new(words.get(1).ok_or("a folder is missing")?);
    let (mut ready, mut go) = std::io::pipe()?;
    let args = [(flags | libc::CLONE_PARENT) as libc::c_ulong, 0, 0, 0, 0];
    let pid = os!(libc::syscall(
        libc::SYS_clone,
        args[0],
        args[1],
        args[2],
        args[3],
        args[4]
    ))?;
    if pid != 0 {
        if has("user") {
            let (count, first) = USERS;
            for map in ["uid_map", "gid_map"] {
                std::fs::write(format!("/proc/{pid}/{map}"), format!("0 {first} {count}\n"))?;
            }
        }
        std::fs::write(dir.join("root"), pid.to_string())?;
        go.write_all(b"g")?;
        return Ok(());
    }
    drop(go);
    ready.read_exact(&mut [0])?;
    drop(ready);
    if has("user") {
        os!(libc::setgroups(0, std::ptr::null()))?;
        os!(libc::setresgid(0, 0, 0))?;
        os!(libc::setresuid(0, 0, 0))?;
    }
    if has("uts") {
        os!(libc::sethostname(HOST.as_ptr().cast(), HOST.len()))?;
    }
    if has("time") {
        os!(libc::unshare(libc::CLONE_NEWTIME))?;
        std::fs::write(
            "/proc/self/timens_offsets",
            "monotonic 5000 7\nboottime 9000 8\n",
        )?;
        let clocks = std::fs::File::open("/proc/self/ns/time_for_children")?;
        use std::os::fd::AsRawFd;
        os!(libc::setns(clocks.as_raw_fd(), libc::CLONE_NEWTIME))?;
    }
    os!(libc::setsid())?;
    if has("box") {
        return boxed::start(dir, words);
    }
    let error = Command::new("/proc/self/exe").args(words).exec();
    Err(error.into())
}

pub(crate) fn flag(kind: &str) -> Check<i32> {
    Ok(match kind {
        "cgroup" => libc::CLONE_NEWCGROUP,
        "ipc" => libc::CLONE_NEWIPC,
        "mnt" => libc::CLONE_NEWNS,
        "net" => libc::CLONE_NEWNET,
        "pid" => libc::CLONE_NEWPID,
        // By calls of their own.
        "time" | "box" => 0,
        "user" => libc::CLONE_NEWUSER,
        "uts" => libc::CLONE_NEWUTS,
        kind => return Err(Failure::new(format!("no namespace is called {kind}"))),
    })
}
