//! The name of a bound socket, and the file that stands for it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use gelid_image::messages::FilePermsEntry;
use gelid_sys::diag::UnixSocket;
use gelid_sys::{Errno, unix};
use rustix::fs::{Mode, OFlags};

use super::super::kind::DELETED;
use super::super::place::Name;
use super::super::{Collector, Error, Object, Task};
use super::UnixRefusal;

/// What there is to be said about a name beside the name itself.
#[derive(Debug, Default)]
pub(super) struct Bound {
    pub(super) permissions: Option<FilePermsEntry>,
    /// Where a relative name starts from.
    pub(super) directory: Option<Vec<u8>>,
    pub(super) deleted: bool,
    /// The mount that the file is on, if images are to tell.
    pub(super) mount: Option<i32>,
}

impl Collector<'_> {
    /// Looks at the file that a socket is bound to, if its name is a path.
    pub(super) fn bound(
        &self,
        task: Task<'_>,
        object: &Object<'_>,
        seen: &UnixSocket,
    ) -> Result<Bound, Error> {
        let path = match seen.name.as_slice() {
            [] | [0, ..] => return Ok(Bound::default()),
            name => name.strip_suffix(&[0]).unwrap_or(name),
        };
        let node = match unix::node(object.file) {
            // It takes rights over the network namespace.
            Err(Errno::PERM) => match self.by_name(task, path, seen)? {
                Ok(node) => node,
                Err(gone) => return Ok(gone),
            },
            node => node.map_err(object.failed("look for the file of"))?,
        };
        let stat = rustix::fs::fstat(&node).map_err(object.failed("look at the file of"))?;
        let stat = self.census.users.of_file(stat);
        let link = format!("/proc/self/fd/{}", node.as_raw_fd());
        let link = rustix::fs::readlink(link, Vec::new());
        let link = link.map_err(object.failed("look for the path of"))?;
        let file = Object {
            place: object.place,
            file: node.as_fd(),
            stat: &stat,
            link: link.into_bytes(),
        };
        let (directory, deleted) = self.resolve(task, &file, path)?;
        Ok(Bound {
            permissions: Some(FilePermsEntry {
                mode: stat.st_mode,
                uid: stat.st_uid,
                gid: stat.st_gid,
            }),
            directory,
            deleted,
            mount: self.mount_of(&file),
        })
    }

    /// Looks for the file of a socket where the name leads now; what there is to be said if it is not there any more.
    fn by_name(
        &self,
        task: Task<'_>,
        path: &[u8],
        seen: &UnixSocket,
    ) -> Result<Result<OwnedFd, Bound>, Error> {
        let directory = match path.first() {
            Some(&b'/') => None,
            _ => Some(task.dir.link("cwd")?.into_bytes()),
        };
        let path = match &directory {
            None => path.to_vec(),
            Some(directory) => [directory, &b"/"[..], path].concat(),
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let is_it = |file: &OwnedFd| {
            let stat = rustix::fs::fstat(file);
            stat.is_ok_and(|stat| seen.is_bound_to(stat.st_dev, stat.st_ino))
        };
        let found = rustix::fs::openat(&self.root, path, flags, Mode::empty());
        Ok(found.ok().filter(is_it).ok_or(Bound {
            directory,
            deleted: true,
            ..Bound::default()
        }))
    }

    /// Finds where a name starts from, and whether the file is gone.
    fn resolve(
        &self,
        task: Task<'_>,
        file: &Object<'_>,
        path: &[u8],
    ) -> Result<(Option<Vec<u8>>, bool), Error> {
        let link = file.link.as_slice();
        if self.leads_to(file, path)? {
            return Ok((None, false));
        }
        let there = self.leads_to(file, link)?;
        let deleted = !there && file.stat.st_nlink == 0;
        let link = match deleted {
            true => link.strip_suffix(DELETED).unwrap_or(link),
            false => link,
        };
        let moved = || {
            let (bound, node) = (Name(path.to_vec()), Name(file.link.clone()));
            Err(file.refused(UnixRefusal::Moved { bound, node }))
        };
        if path.first() == Some(&b'/') {
            return if deleted { Ok((None, true)) } else { moved() };
        }
        if !there && !deleted {
            return moved();
        }
        if let Some(directory) = before(link, path) {
            return Ok((Some(directory), deleted));
        }
        // It has `..` or links in it: then it may still be understood where it is used.
        let directory = task.dir.link("cwd")?.into_bytes();
        match self.leads_to(file, &[&directory, &b"/"[..], path].concat())? {
            true => Ok((Some(directory), false)),
            false => moved(),
        }
    }
}

/// The directory from which `path`, which is relative, leads to `full`.
fn before(full: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let mut rest = full;
    for part in path.rsplit(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => rest = rest.strip_suffix(part)?.strip_suffix(b"/")?,
        }
    }
    match rest {
        [] => Some(b"/".to_vec()),
        rest => Some(rest.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_name_starts_somewhere() {
        let before = |full: &str, path: &str| {
            let directory = before(full.as_bytes(), path.as_bytes());
            directory.map(|directory| String::from_utf8(directory).unwrap())
        };
        assert_eq!(before("/a/b/s", "s").as_deref(), Some("/a/b"));
        assert_eq!(before("/a/b/s", "./b//s").as_deref(), Some("/a"));
        assert_eq!(before("/s", "s").as_deref(), Some("/"));
        assert_eq!(before("/a/bs", "s"), None);
        assert_eq!(before("/a/b/s", "../b/s"), None);
        assert_eq!(before("/a/b/s", "c/s"), None);
    }
}
