//! Who else has slaves of the tree open: they would be hung up when the masters end with the tree.

use std::collections::{HashMap, HashSet};

use gelid_sys::proc::{self, fd};
use gelid_sys::{Errno, Pid};
use rustix::fs::{AtFlags, CWD, statat};

use super::super::descriptions::Inode;

/// What slaves are called, wherever the file system of theirs is mounted as usual.
const SLAVES: &[u8] = b"/dev/pts/";

/// Finds a process outside of the tree that has one of these slaves open: the number of the slave, and the process.
pub(super) fn holder(
    numbers: impl Iterator<Item = u32>,
    tree: &HashSet<i32>,
) -> Result<Option<(u32, i32)>, Errno> {
    let nodes = numbers.filter_map(|number| {
        let stat = statat(CWD, format!("/dev/pts/{number}"), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(((stat.st_dev, stat.st_ino), number))
    });
    let nodes: HashMap<Inode, u32> = nodes.collect();
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
        if let Some(number) = slave_of(pid, &nodes) {
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
        let find = |tree: &[i32]| holder([index].into_iter(), &tree.iter().copied().collect());
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
