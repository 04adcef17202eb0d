//! Automounters: `autofs-*.img`. Section 20.4 of the format.
//!
//! **Model.** The kernel asks a daemon for what is missing, through a pipe of which `mountinfo` tells the inode, and lets
//! alone who is in the daemon's process group. The dumper is not, so whatever it touched might be asked for, of somebody
//! who stands still: directories are opened by themselves (`.`), never on the way to something.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd};

use gelid_image::messages::{AutofsEntry, Fstype, GelidAutofsPart};
use gelid_image::{ImageKind, Staging};
use gelid_sys::Errno;
use gelid_sys::proc::mountinfo::MountInfo;
use gelid_sys::proc::ns::Kind;
use gelid_sys::proc::{self, fd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};

use super::{Fate, Mount, MountRefusal, contents};
use crate::namespace::{Census, Instance};
use crate::survey::Task;
use crate::{Error, Refusal};

/// Directories of an automounter are not deeper than this.
const DEEPEST: usize = 64;

/// An automounter that is to be made anew.
#[derive(Debug)]
pub(crate) struct Automounter {
    info: MountInfo,
    said: Said,
    parts: Vec<GelidAutofsPart>,
}

/// What its options say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    entry: AutofsEntry,
    /// Inode of the pipe, while anybody is asked.
    pipe: Option<u64>,
}

/// Reads the options of an automounter.
pub(super) fn read(info: &MountInfo) -> Option<Said> {
    let options = std::str::from_utf8(&info.super_options).ok()?;
    let (mut entry, mut mode, mut pipe) = (AutofsEntry::default(), None, None);
    let (mut group, mut protocols) = (None, None);
    for word in options.split(',') {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse::<i32>().ok();
        match key {
            "fd" => entry.fd = number()?,
            "pgrp" => group = number(),
            "timeout" => entry.timeout = number()?,
            "minproto" => entry.minproto = number()?,
            "maxproto" => protocols = number(),
            "uid" => entry.uid = Some(number()?),
            "gid" => entry.gid = Some(number()?),
            "pipe_ino" => pipe = Some(value.parse::<i64>().ok()?),
            "direct" => mode = Some(0),
            "indirect" => mode = Some(1),
            "offset" => mode = Some(2),
            "rw" | "ro" | "strictexpire" | "ignore" => {}
            _ => return None,
        }
    }
    (entry.pgrp, entry.maxproto, entry.mode) = (group?, protocols?, mode?);
    let pipe = u64::try_from(pipe?).ok();
    Some(Said { entry, pipe })
}

/// Looks at all that are to be made anew.
pub(super) fn look(
    instances: &[&Instance],
    mounts: &[Mount],
    census: &Census,
) -> Result<Vec<Automounter>, Error> {
    let (mut found, mut met) = (Vec::new(), BTreeSet::new());
    let new = |mount: &&Mount| mount.kind == Fstype::Autofs && mount.fate == Fate::New;
    for mount in mounts.iter().filter(new) {
        let info = &mount.info;
        if info.root != b"/" || !met.insert(number(info)) {
            continue;
        }
        let refused = || Refusal::mount(info, MountRefusal::AutofsKind);
        let said = read(info).filter(|_| census.root(Kind::User).is_none());
        let said = said.ok_or_else(refused)?;
        let root = contents::open(instances[mount.namespace], mount)?;
        let mut parts = Vec::new();
        walk(root.as_fd(), &[], &mut parts, 0).map_err(|errno| Error::Mount {
            operation: "look into",
            point: String::from_utf8_lossy(&info.mount_point).into_owned(),
            errno,
        })?;
        let info = info.clone();
        found.push(Automounter { info, said, parts });
    }
    Ok(found)
}

fn number(info: &MountInfo) -> u32 {
    info.dev.major << 20 | info.dev.minor
}

/// Appends what is in a directory.
fn walk(
    dir: BorrowedFd<'_>,
    path: &[u8],
    parts: &mut Vec<GelidAutofsPart>,
    depth: usize,
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = match openat(dir, ".", flags, Mode::empty()) {
        // One that is empty is not opened for anybody but the daemon.
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    for name in names {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(dir, &*name, flags, Mode::empty())?;
        let stat = statat(&found, "", AtFlags::EMPTY_PATH)?;
        let path = match path {
            b"" => name,
            path => [path, &name].join(&b'/'),
        };
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        let target = is_link.then(|| readlinkat(&found, "", Vec::new()));
        parts.push(GelidAutofsPart {
            path: path.clone(),
            mode: stat.st_mode & 0o7777,
            target: target.transpose()?.map(|target| target.into_bytes()),
        });
        if !is_link && depth < DEEPEST {
            walk(found.as_fd(), &path, parts, depth + 1)?;
        }
    }
    Ok(())
}

impl Automounter {
    /// Records it. `pipes` are those of the tree, by inode.
    pub(crate) fn write(
        &self,
        staging: &Staging,
        (tasks, census): (&[Task], &Census),
        pipes: &HashMap<u64, u32>,
    ) -> Result<(), Error> {
        let mut entry = AutofsEntry {
            parts: self.parts.clone(),
            ..self.said.entry.clone()
        };
        let group = entry.pgrp;
        // That of somebody who asks nobody may be one that has ended.
        entry.pgrp = match census.numbers.number(group) {
            0 => group,
            number => number,
        };
        if let Some(inode) = self.said.pipe {
            let refused = || Refusal::mount(&self.info, MountRefusal::Autofs);
            let is_member = |task: &&Task| task.live.is_some() && task.stat.pgrp == group;
            let pipe = pipes
                .get(&inode)
                .filter(|_| tasks.iter().any(|task| is_member(&task)));
            entry.pipe_id = Some(*pipe.ok_or_else(refused)?);
            let master = tasks.iter().filter(is_member);
            let master = master
                .into_iter()
                .find(|task| task.pid.as_raw_pid() == group);
            if let Some(master) = master {
                entry.read_fd = read_end(master, inode, entry.fd)?;
            }
        }
        staging.put(ImageKind::Autofs, number(&self.info), &entry)?;
        Ok(())
    }
}

/// The descriptor by which a daemon reads the pipe, if it does not have the one any more that it was mounted with.
fn read_end(daemon: &Task, inode: u64, mounted_with: i32) -> Result<Option<i32>, Error> {
    let dir = proc::task_dir(daemon.living)?;
    let pipe = format!("pipe:[{inode}]");
    let is_it =
        |number: &i32| fd::link(&dir, *number).is_ok_and(|link| link.to_bytes() == pipe.as_bytes());
    match is_it(&mounted_with) {
        true => Ok(None),
        false => Ok(fd::list(&dir)?.into_iter().find(is_it)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(options: &str) -> Option<Said> {
        let line = format!("12 10 0:7 / /d rw - autofs x {options}");
        read(&proc::mountinfo::parse_line(line.as_bytes()).unwrap())
    }

    #[test]
    fn options_tell_who_is_asked() {
        let options = "rw,fd=4,pgrp=7,timeout=60,minproto=5,maxproto=5,indirect,pipe_ino=99";
        let found = said(options).unwrap();
        let entry = AutofsEntry {
            fd: 4,
            pgrp: 7,
            timeout: 60,
            minproto: 5,
            maxproto: 5,
            mode: 1,
            ..AutofsEntry::default()
        };
        assert_eq!((found.entry, found.pipe), (entry, Some(99)));
        let options = "rw,fd=-1,pgrp=7,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=-1";
        assert_eq!(said(options).unwrap().pipe, None);
        assert_eq!(
            said("rw,fd=4,pgrp=7,timeout=60,minproto=5,maxproto=5,direct"),
            None
        );
        assert_eq!(said("rw,fd=x"), None);
    }
}
