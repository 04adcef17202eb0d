//! Who else has slaves of the tree open: they would be hung up when the masters end with the tree.

use std::collections::{HashMap, HashSet};

use gelid_sys::proc::{self, fd};
use gelid_sys::{Errno, Pid};
use rustix::fs::{AtFlags, CWD, statat};

use super::super::descriptions::Inode;

/// What slaves are called, wherever the file system of theirs is mounted as usual.
const SLAVES: &[u8] = b"/dev/pts/";

/// The slave of number `number` whose master a process has open by the name `master`. Several file systems may have one
/// of this number, so it is the one that stands beside the master.
pub(super) fn node(pid: Pid, master: &[u8], number: u32) -> Option<Inode> {
    let above = |path: &[u8]| {
        path.rsplitn(2, |byte| *byte == b'/')
            .nth(1)
            .map(<[u8]>::to_vec)
    };
    let mut folder = above(master)?;
    if !folder.ends_with(b"/pts") {
        folder.extend_from_slice(b"/pts");
    }
    let mut path = format!("/proc/{}/root", pid.as_raw_pid()).into_bytes();
    path.extend_from_slice(&folder);
    path.extend_from_slice(format!("/{number}").as_bytes());
    // A task with another root directory may have it elsewhere: then it is the usual one.
    let found = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW);
    let found =
        found.or_else(|_| statat(CWD, format!("/dev/pts/{number}"), AtFlags::SYMLINK_NOFOLLOW));
    found.ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Finds a process outside of the tree that has one of these slaves open: the number of the slave, and the process.
pub(super) fn holder(
    nodes: &HashMap<Inode, u32>,
    tree: &HashSet<i32>,
) -> Result<Option<(u32, i32)>, Errno> {
    if nodes.is_empty() {
        return Ok(None);
    }
    let own = rustix::process::getpid();
    let others = rustix::fs::Dir::new(rustix::fs::open(
        "/proc",
        rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?)?;
    for entry in others {
        let name = entry?;
        let number = name.file_name().to_str().ok();
        let pid = number
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw);
        let Some(pid) = pid.filter(|pid| *pid != own && !tree.contains(&pid.as_raw_pid())) else {
            continue;
        };
        if let Some(number) = slave_of(pid, nodes) {
            return Ok(Some((number, pid.as_raw_pid())));
        }
    }
    Ok(None)
}

/// One of the slaves that a process has open. Who ends meanwhile has none.
fn slave_of(pid: Pid, nodes: &HashMap<Inode, u32>) -> Option<u32> {
    let task = proc::task_dir(pid).ok()?;
    fd::list(&task).ok()?.into_iter().find_map(|number| {
        let link = fd::link(&task, number).ok()?;
        if !link.to_bytes().starts_with(SLAVES) {
            return None;
        }
        let stat = statat(&task, format!("fd/{number}"), AtFlags::empty()).ok()?;
        nodes.get(&(stat.st_dev, stat.st_ino)).copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn somebody_with_a_slave_is_found() {
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let master = rustix::fs::open("/dev/ptmx", flags, rustix::fs::Mode::empty()).unwrap();
        gelid_sys::pty::set_locked(&master, false).unwrap();
        let index = gelid_sys::pty::index(&master).unwrap();
        let slave = gelid_sys::pty::peer(&master).unwrap();
        let own = rustix::process::getpid();
        let node = node(own, b"/dev/ptmx", index).unwrap();
        assert_eq!(super::node(own, b"/dev/pts/ptmx", index), Some(node));
        let nodes = HashMap::from([(node, index)]);
        let find = |tree: &[i32]| holder(&nodes, &tree.iter().copied().collect());
        assert_eq!(find(&[]), Ok(None));
        let mut child = Command::new("sleep")
            .arg("100")
            .stdin(Stdio::from(slave))
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        assert_eq!(find(&[]), Ok(Some((index, pid))));
        assert_eq!(find(&[pid]), Ok(None));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
