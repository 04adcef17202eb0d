//! Paths that do not lead to their file any more. Section 12.2 of the format.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gelid_image::messages::{RegFileEntry, RemapFilePathEntry, RemapType};
use gelid_image::{ImageKind, ImageWriter, Staging};
use gelid_sys::Errno;
use rustix::fs::{AtFlags, FileType};

use super::descriptions::Inode;
use super::regfile::{HUGETLBFS_MAGIC, relative};
use super::{Collector, Error, Name, Object, Unsupported, fown, ghost_file};

/// What stands in for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remap {
    /// The contents, as no other name is left.
    Ghost,
    /// Another name, to be made.
    Linked,
    /// The process the path belongs to, which has ended.
    Process(u32),
}

/// What was recorded so far.
#[derive(Debug)]
pub(super) struct Remaps {
    writer: ImageWriter,
    ghosts: HashMap<Inode, u32>,
    links: HashMap<Inode, u32>,
    last_ghost: u32,
}

impl Remaps {
    pub(super) fn new(staging: &Staging) -> Result<Self, Error> {
        Ok(Self {
            writer: staging.writer(ImageKind::RemapFpath, ())?,
            ghosts: HashMap::new(),
            links: HashMap::new(),
            last_ghost: 0,
        })
    }

    pub(super) fn finish(self) -> Result<(), Error> {
        Ok(self.writer.finish()?)
    }
}

impl Collector<'_> {
    /// Records what stands in for the path `name` of the file with the id `orig_id`.
    pub(super) fn remap(
        &mut self,
        orig_id: u32,
        object: &Object<'_>,
        name: &[u8],
        remap: Remap,
    ) -> Result<(), Error> {
        let (kind, remap_id) = match remap {
            Remap::Ghost => (RemapType::Ghost, self.ghost(object, name)?),
            Remap::Linked => (RemapType::Linked, self.link(object, name)?),
            Remap::Process(pid) => (RemapType::Procfs, pid),
        };
        self.remaps.writer.push(&RemapFilePathEntry {
            orig_id,
            remap_id,
            remap_type: Some(kind.into()),
        })?;
        Ok(())
    }

    /// Puts the contents of a file into an image, once.
    fn ghost(&mut self, object: &Object<'_>, name: &[u8]) -> Result<u32, Error> {
        if let Some(id) = self.remaps.ghosts.get(&object.inode()) {
            return Ok(*id);
        }
        if object.is_regular() {
            let size = object.stat.st_blocks.unsigned_abs().saturating_mul(512);
            if size > self.options.ghost_limit {
                return Err(Error::GhostTooLarge {
                    place: object.place,
                    name: Name(name.to_vec()),
                    size,
                    limit: self.options.ghost_limit,
                });
            }
            if self.is_leased(object.inode()) {
                return Err(object.unsupported(Unsupported::DeletedLeased));
            }
            if self.magic(object)? == HUGETLBFS_MAGIC {
                return Err(object.unsupported(Unsupported::DeletedHuge));
            }
        }
        let id = self.remaps.last_ghost.checked_add(1);
        let id = id.ok_or(Error::TooMany)?;
        ghost_file::write(self.staging, id, object)?;
        self.remaps.last_ghost = id;
        self.remaps.ghosts.insert(object.inode(), id);
        Ok(id)
    }

    /// Gives a file a name again, once.
    fn link(&mut self, object: &Object<'_>, name: &[u8]) -> Result<u32, Error> {
        if let Some(id) = self.remaps.links.get(&object.inode()) {
            return Ok(*id);
        }
        if !self.options.link_remap {
            return Err(Error::Linked {
                place: object.place,
                name: Name(name.to_vec()),
                links: object.stat.st_nlink,
            });
        }
        let (id, path) = self.make_link(object, name)?;
        self.push_regular(RegFileEntry {
            id,
            fown: fown::nobody(),
            name: path,
            mode: Some(object.stat.st_mode),
            mnt_id: self.mount_of(object),
            size: (object.is_regular()).then(|| object.stat.st_size.unsigned_abs()),
            ..RegFileEntry::default()
        })?;
        self.remaps.links.insert(object.inode(), id);
        Ok(id)
    }

    /// Links the file into the directory it was in, or the nearest one above that is still there.
    fn make_link(&mut self, object: &Object<'_>, name: &[u8]) -> Result<(u32, Vec<u8>), Error> {
        let mut directory = name;
        let root = self.root_of(object).try_clone_to_owned();
        let root = Arc::new(root.map_err(|_| object.failed("link")(Errno::MFILE))?);
        loop {
            let parent = directory.iter().rposition(|byte| *byte == b'/');
            directory = &directory[..parent.unwrap_or(0)];
            // A name that is taken, by an earlier dump perhaps, is left alone.
            let id = self.new_id()?;
            let path = [directory, format!("/link_remap.{id}").as_bytes()].concat();
            let made =
                rustix::fs::linkat(object.file, "", &root, relative(&path), AtFlags::EMPTY_PATH);
            match made {
                Ok(()) => {
                    let made = (root, path.clone(), object.inode());
                    self.links.made.push(made);
                    return Ok((id, path));
                }
                Err(Errno::EXIST) => directory = name,
                Err(Errno::NOENT | Errno::NOTDIR) if !directory.is_empty() => {}
                Err(errno) => return Err(object.failed("link")(errno)),
            }
        }
    }
}

/// Hard links that a dump has made. They are removed again unless they are [kept](Self::keep).
#[derive(Debug)]
pub(crate) struct Links {
    made: Vec<(Arc<OwnedFd>, Vec<u8>, Inode)>,
}

impl Links {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { made: Vec::new() }
    }

    /// Leaves them to the restore, which needs them.
    pub(crate) fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for (root, path, inode) in &self.made {
            let path = relative(path);
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let ours = rustix::fs::statat(root, path, flags).is_ok_and(|stat| {
                (stat.st_dev, stat.st_ino) == *inode
                    && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
            });
            if ours && let Err(errno) = rustix::fs::unlinkat(root, path, AtFlags::empty()) {
                let path = Name(path.to_vec());
                tracing::warn!("cannot remove the link /{path}: {errno}");
            }
        }
    }
}
