//! Where threads stand among cgroups.
//!
//! To read the file of one thread takes 10 us here. Each cgroup lists its threads, so that of many one list for each
//! hierarchy is read instead; hierarchies that are mounted nowhere are mounted for it, where nobody sees that.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use gelid_sys::Pid;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::cgroup::{self, Membership};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::Failure;

/// So many threads are worth the lists.
const MANY: usize = 256;

/// Looks where all threads of a process stand.
pub(crate) fn look(process: &TaskDir, threads: &[Pid]) -> Result<(), Failure> {
    let all = cgroup::read(process)?;
    let mut apart = threads.to_vec();
    if threads.len() >= MANY {
        let mut here: HashSet<Pid> = threads.iter().copied().collect();
        for membership in &all {
            // Whoever is not in a list stands somewhere else; where there is no list, so may all.
            let listed = listed(membership).unwrap_or_default();
            here.retain(|tid| listed.contains(tid));
        }
        apart.retain(|tid| !here.contains(tid));
    }
    let own = process.pid();
    let mut others = apart.iter().filter(|tid| **tid != own);
    others.try_for_each(|tid| Ok(cgroup::text(process, *tid).map(drop)?))
}

/// The threads of a cgroup.
fn listed(membership: &Membership) -> Result<HashSet<Pid>, Failure> {
    let path = std::str::from_utf8(&membership.path)?.trim_start_matches('/');
    let (root, name) = match membership.hierarchy {
        0 => (mounted("cgroup2", "")?, "cgroup.threads"),
        _ => {
            let controllers = std::str::from_utf8(&membership.controllers)?;
            (mounted("cgroup", controllers)?, "tasks")
        }
    };
    let path = match path {
        "" => name.to_owned(),
        path => format!("{path}/{name}"),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(&root, path, flags, Mode::empty())?);
    let mut text = vec![0; 64 << 10];
    let (mut tids, mut number) = (HashSet::new(), 0);
    loop {
        let read = file.read(&mut text)?;
        if read == 0 {
            return Ok(tids);
        }
        for byte in &text[..read] {
            match byte {
                b'0'..=b'9' => number = number * 10 + i32::from(byte - b'0'),
                _ => tids.extend(Pid::from_raw(std::mem::take(&mut number))),
            }
        }
    }
}

/// A mount of a hierarchy that stands nowhere.
fn mounted(kind: &str, controllers: &str) -> Result<OwnedFd, Failure> {
    let system = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for controller in controllers.split(',').filter(|name| !name.is_empty()) {
        match controller.strip_prefix("name=") {
            Some(name) => {
                fsconfig_set_flag(&system, "none")?;
                fsconfig_set_string(&system, "name", name)?;
            }
            None => fsconfig_set_flag(&system, controller)?,
        }
    }
    fsconfig_create(&system)?;
    let attributes = MountAttrFlags::empty();
    Ok(fsmount(&system, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelid_sys::proc::task_dir;

    #[test]
    fn this_thread_is_listed() {
        if !rustix::process::getuid().is_root() {
            return;
        }
        let tid = rustix::thread::gettid();
        let own = task_dir(tid).unwrap();
        for membership in cgroup::read(&own).unwrap() {
            // One whose controllers have been moved meanwhile cannot be mounted.
            if let Ok(listed) = listed(&membership) {
                assert!(listed.contains(&tid), "{membership:?}");
            }
        }
    }
}
