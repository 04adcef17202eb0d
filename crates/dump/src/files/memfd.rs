//! Memory with an inode: memfds, and anonymous memory that tasks share. Section 16.1 of the format.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;

use gelid_image::messages::{FdTypes, FileEntry, MemfdFileEntry, MemfdInodeEntry};
use gelid_image::{ImageKind, ImageWriter, Staging};
use gelid_sys::Pid;
use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use super::descriptions::Inode;
use super::kind::DELETED;
use super::pipe::key;
use super::regfile::{HUGETLBFS_MAGIC, Opening};
use super::{Collector, Error, Object, Unsupported};

const MFD_HUGETLB: u32 = 4;
const MFD_HUGE_SHIFT: u32 = 26;

/// Memory whose contents belong into the images.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Key of its pagemap.
    pub(crate) shmid: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes of a page; more than 4096 for huge ones.
    pub(crate) page_size: u64,
    /// Where they are.
    pub(crate) contents: Contents,
}

/// Where the contents of memory can be read.
#[derive(Debug)]
pub(crate) enum Contents {
    /// From the object, opened for reading.
    File(File),
    /// From processes that have mapped it, as nobody may open it.
    Mapped(Vec<Part>),
}

/// A part of memory that a process has mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Who has.
    pub(crate) pid: Pid,
    /// Where.
    pub(crate) address: u64,
    /// First byte of the object.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) len: u64,
}

/// All memory that is held by a descriptor or a mapping.
#[derive(Debug)]
pub(super) struct Memfds {
    writer: ImageWriter,
    inodes: HashMap<Inode, u32>,
    memory: Vec<Memory>,
    shmids: HashSet<u32>,
    /// Memory that cannot be opened, by its inode.
    unseen: BTreeMap<Inode, (u32, Vec<Part>)>,
    /// Whether a device is one of the kernel's own.
    internal: HashMap<u64, bool>,
}

impl Memfds {
    pub(super) fn new(staging: &Staging) -> Result<Self, Error> {
        Ok(Self {
            writer: staging.writer(ImageKind::Memfd, ())?,
            inodes: HashMap::new(),
            memory: Vec::new(),
            shmids: HashSet::new(),
            unseen: BTreeMap::new(),
            internal: HashMap::new(),
        })
    }

    pub(super) fn finish(mut self) -> Result<Vec<Memory>, Error> {
        for ((_, inode), (id, parts)) in std::mem::take(&mut self.unseen) {
            self.record_unseen(inode, id, parts)?;
        }
        self.writer.finish()?;
        Ok(self.memory)
    }

    /// The key of an inode, which is recorded when it is first met.
    fn inode(&mut self, object: &Object<'_>, huge: bool) -> Result<u32, Error> {
        if let Some(id) = self.inodes.get(&object.inode()) {
            return Ok(*id);
        }
        let name = object.link.strip_suffix(DELETED).unwrap_or(&object.link);
        if name.starts_with(b"/SYSV") {
            return Err(object.unsupported(Unsupported::SystemV));
        }
        let file = object.reopen(OFlags::RDONLY)?;
        let seals = rustix::fs::fcntl_get_seals(&file);
        let seals = seals.map_err(object.failed("ask for the seals of"))?;
        let id = self.next_id()?;
        let memory = Memory {
            shmid: key(object.stat.st_ino, &mut self.shmids),
            size: object.stat.st_size.unsigned_abs(),
            page_size: match huge {
                true => object.stat.st_blksize.unsigned_abs(),
                false => gelid_sys::PAGE_SIZE as u64,
            },
            contents: Contents::File(File::from(file)),
        };
        self.writer.push(&MemfdInodeEntry {
            name: name.strip_prefix(b"/memfd:").unwrap_or(name).to_vec(),
            uid: object.stat.st_uid,
            gid: object.stat.st_gid,
            size: memory.size,
            shmid: memory.shmid,
            seals: seals.bits(),
            inode_id: id.into(),
            hugetlb_flag: huge.then(|| huge_flags(memory.page_size)),
            mode: Some(object.stat.st_mode),
        })?;
        self.memory.push(memory);
        self.inodes.insert(object.inode(), id);
        Ok(id)
    }

    fn next_id(&self) -> Result<u32, Error> {
        u32::try_from(self.inodes.len() + 1).map_err(|_| Error::TooMany)
    }

    /// The key of shared anonymous memory of which only mappings are there to be looked at.
    fn unseen(&mut self, inode: Inode) -> Result<u32, Error> {
        let id = self.next_id()?;
        self.inodes.insert(inode, id);
        self.unseen.insert(inode, (id, Vec::new()));
        Ok(id)
    }

    /// Notes where memory can be read, if it cannot be opened.
    pub(super) fn note_part(&mut self, inode: Inode, part: Part) {
        if let Some((_, parts)) = self.unseen.get_mut(&inode) {
            parts.push(part);
        }
    }

    /// Records what was found in the mappings. What none of them shows nobody will miss.
    fn record_unseen(&mut self, inode: u64, id: u32, parts: Vec<Part>) -> Result<(), Error> {
        /// Of shared anonymous memory.
        const MODE: u32 = 0o100_777;
        let ends = parts.iter().map(|part| part.offset + part.len);
        let memory = Memory {
            shmid: key(inode, &mut self.shmids),
            size: ends.max().unwrap_or_default(),
            page_size: gelid_sys::PAGE_SIZE as u64,
            contents: Contents::Mapped(parts),
        };
        self.writer.push(&MemfdInodeEntry {
            name: ANONYMOUS.to_vec(),
            // Nobody: whoever makes it has it.
            uid: u32::MAX,
            gid: u32::MAX,
            size: memory.size,
            shmid: memory.shmid,
            seals: SealFlags::SEAL.bits(),
            inode_id: id.into(),
            hugetlb_flag: None,
            mode: Some(MODE),
        })?;
        self.memory.push(memory);
        Ok(())
    }
}

/// What the kernel calls shared anonymous memory, and what it is called where it had to be made as a memfd.
const ANONYMOUS: &[u8] = b"/dev/zero";

/// Flags that make a memfd of such pages.
pub(crate) fn huge_flags(page_size: u64) -> u32 {
    MFD_HUGETLB | page_size.trailing_zeros() << MFD_HUGE_SHIFT
}

impl Collector<'_> {
    /// Keeps keys of shared memory that others give out.
    pub(crate) fn reserve(&mut self, shmids: impl IntoIterator<Item = u32>) {
        self.memfds.shmids.extend(shmids);
    }

    /// A key that no other shared memory has.
    pub(crate) fn new_shmid(&mut self) -> u32 {
        key(1, &mut self.memfds.shmids)
    }

    /// Whether a file that is called like memory is on a file system of the kernel's own.
    pub(super) fn is_memory(&mut self, object: &Object<'_>) -> Result<bool, Error> {
        let device = object.stat.st_dev;
        if let Some(internal) = self.memfds.internal.get(&device) {
            return Ok(*internal);
        }
        let mut flags = MemfdFlags::CLOEXEC;
        if self.magic(object)? == HUGETLBFS_MAGIC {
            let huge = huge_flags(object.stat.st_blksize.unsigned_abs());
            flags |= MemfdFlags::from_bits_retain(huge);
        }
        // Where no such memfd can be made, none was.
        let same = rustix::fs::memfd_create("gelid", flags)
            .and_then(rustix::fs::fstat)
            .is_ok_and(|own| own.st_dev == device);
        self.memfds.internal.insert(device, same);
        Ok(same)
    }

    /// Records an open description of memory, or a reference by a mapping.
    pub(super) fn memory(
        &mut self,
        object: &Object<'_>,
        opening: Opening,
    ) -> Result<(FdTypes, u32), Error> {
        if self.is_leased(object.inode()) {
            return Err(object.unsupported(Unsupported::DeletedLeased));
        }
        let huge = self.magic(object)? == HUGETLBFS_MAGIC;
        let inode_id = self.memfds.inode(object, huge)?;
        self.push_memory(inode_id, opening)
    }

    /// Records a reference by a mapping to shared anonymous memory that cannot be opened; none if it is something else.
    pub(super) fn unseen_memory(
        &mut self,
        inode: Inode,
        link: &[u8],
    ) -> Result<Option<u32>, Error> {
        let name = link.strip_suffix(DELETED).unwrap_or_default();
        let name = name.strip_prefix(b"/memfd:").unwrap_or(name);
        let own =
            rustix::fs::memfd_create("gelid", MemfdFlags::CLOEXEC).and_then(rustix::fs::fstat);
        if name != ANONYMOUS || !own.is_ok_and(|own| own.st_dev == inode.0) {
            return Ok(None);
        }
        let inode_id = match self.memfds.inodes.get(&inode) {
            Some(id) => *id,
            None => self.memfds.unseen(inode)?,
        };
        let (_, id) = self.push_memory(inode_id, Opening::reference())?;
        Ok(Some(id))
    }

    fn push_memory(&mut self, inode_id: u32, opening: Opening) -> Result<(FdTypes, u32), Error> {
        let id = self.new_id()?;
        self.push(FileEntry {
            r#type: FdTypes::Memfd.into(),
            id,
            memfd: Some(MemfdFileEntry {
                id,
                flags: opening.flags,
                pos: opening.pos,
                fown: opening.fown,
                inode_id,
            }),
            ..FileEntry::default()
        })?;
        Ok((FdTypes::Memfd, id))
    }
}
