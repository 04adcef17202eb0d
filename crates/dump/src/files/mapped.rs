//! Files behind mappings.

use std::os::fd::OwnedFd;

use gelid_sys::Errno;
use gelid_sys::proc::TaskDir;
use gelid_sys::proc::maps::Mapping;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, makedev, openat, statat};

use super::descriptions::Inode;
use super::memfd::Part;
use super::{Collector, Error, Name, Place, Task, Unsupported};

/// What is behind a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// File id.
    pub(crate) id: u32,
    /// How the file was opened: 0 for reading, 1 for writing, 2 for both.
    pub(crate) fdflags: Option<u32>,
    /// It is memory with an inode, not a file.
    pub(crate) memfd: bool,
}

/// What is known of an inode behind mappings, by what it is called: its file id, and whether it is memory.
pub(super) type ByPath = Vec<(Vec<u8>, (u32, bool))>;

impl Collector<'_> {
    /// Records the file behind a mapping. Each file is looked at once.
    pub(crate) fn mapped(&mut self, task: Task<'_>, mapping: &Mapping) -> Result<Mapped, Error> {
        let name = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        let place = Place::Mapping {
            pid: task.pid,
            start: mapping.start,
            end: mapping.end,
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let link = statat(task.dir, &name, flags).map_err(|errno| Error::System {
            operation: "look at",
            place,
            name: Name(mapping.path.clone()),
            errno,
        })?;
        let fdflags = Some(match link.st_mode & 0o600 {
            0o600 => 2,
            0o200 => 1,
            _ => 0,
        });
        let key = (mapping.dev, mapping.inode);
        let known = self.mapped.get(&key).and_then(|paths| {
            let (_, known) = paths.iter().find(|(path, _)| *path == mapping.path)?;
            Some(*known)
        });
        let (id, memfd) = match known {
            Some(known) => known,
            None => {
                let known = match self.named_by(mapping)? {
                    Some(id) => (id, false),
                    None => self.behind_mapping(task.dir, &name, (place, mapping))?,
                };
                let paths = self.mapped.entry(key).or_default();
                paths.push((mapping.path.clone(), known));
                known
            }
        };
        if memfd {
            let part = Part {
                pid: task.pid,
                address: mapping.start,
                offset: mapping.offset,
                len: mapping.size(),
            };
            self.memfds.note_part(inode(mapping), part);
        }
        Ok(Mapped { id, fdflags, memfd })
    }

    /// Records a file by what `smaps` calls it, if that leads to it and nothing more is to be known of it.
    fn named_by(&mut self, mapping: &Mapping) -> Result<Option<u32>, Error> {
        match self.stat_by_name(mapping) {
            Some(stat) if (stat.st_dev, stat.st_ino) == inode(mapping) => {
                self.plain_reference(stat, &mapping.path)
            }
            _ => Ok(None),
        }
    }

    /// Looks behind a mapping by its link. With rights in a user namespace alone links may be read, but not followed:
    /// then by the name, where that is still one of the same file.
    fn behind_mapping(
        &mut self,
        dir: &TaskDir,
        link: &str,
        (place, mapping): (Place, &Mapping),
    ) -> Result<(u32, bool), Error> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match openat(dir, link, flags, Mode::empty()) {
            Ok(file) => return self.behind(dir, link, place, file),
            Err(Errno::PERM) => {}
            Err(_) => return self.behind_link(dir, link, place),
        }
        let path = dir.link(link)?.into_bytes();
        if let Some(id) = self.unseen_memory(inode(mapping), &path)? {
            return Ok((id, true));
        }
        let file = openat(
            &self.root,
            path.as_slice(),
            flags | OFlags::NOFOLLOW,
            Mode::empty(),
        );
        let is_same = |file: &OwnedFd| {
            fstat(file).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == inode(mapping))
        };
        match file.ok().filter(is_same) {
            Some(file) => self.behind(dir, link, place, file),
            None => Err(Error::Unsupported {
                place,
                name: Name(path),
                why: Unsupported::UnseenMapping,
            }),
        }
    }
}

fn inode(mapping: &Mapping) -> Inode {
    let device = makedev(mapping.dev.major, mapping.dev.minor);
    (device, mapping.inode)
}
